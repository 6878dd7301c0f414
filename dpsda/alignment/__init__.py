"""What released instructions are for: answers, fine-tuning, win rates and reinforcement learning (Yu et al. 2024)."""

"""Aug-PE (Xie et al. 2024): evolve a model's texts towards private data by noisy votes."""

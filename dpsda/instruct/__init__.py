"""Resampling synthetic text by a noisy histogram over its clusters (Yu et al. 2024, Algorithm 2)."""

"""Differentially private synthetic text: the side that sees private data."""

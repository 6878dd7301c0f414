"""Rows: what stands beside a text, drawn from noisy marginals of the private records."""

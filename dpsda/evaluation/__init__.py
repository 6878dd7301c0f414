"""Evaluation: one file a metric, arrays in and floats out, and the tables that are made of them."""

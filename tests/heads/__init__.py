"""Distributions of the next symbol."""

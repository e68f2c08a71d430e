"""Heads, one per file: a dense layer, and the distribution of what comes next."""

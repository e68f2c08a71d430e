"""Cells with heads, and Markov chains."""

"""Kernels on a GPU, beside what else there is."""

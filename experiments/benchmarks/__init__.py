"""Benchmarks: what is compared runs in turn within one process."""

"""The experiments and benchmarks."""

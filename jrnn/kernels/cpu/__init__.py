"""Kernels for CPUs: C code, generated from a cell and compiled on the user's machine.

docs/kernels.md says which compilers serve, and where the compiled libraries are kept.
"""

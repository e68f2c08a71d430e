"""Kernels for accelerators, in Pallas: one launch runs a whole sequence.

Pallas is imported inside the functions that launch a kernel, so that `import jrnn` does
not need it. docs/kernels.md says what lowers for which machine, and what is unmeasured.
"""

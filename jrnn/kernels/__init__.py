"""Kernels for accelerators, in Pallas: one launch walks a whole sequence.

Pallas is imported inside the functions that launch a kernel, so that `import jrnn` does
without it. What lowers for which machine, and what is unmeasured: docs/kernels.md.
"""

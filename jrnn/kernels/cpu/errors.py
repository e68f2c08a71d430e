"""The exceptions raised where a kernel for a CPU cannot be compiled or loaded."""


class KernelError(RuntimeError):
    """A kernel for this CPU cannot be had; `jrnn.bptt()` needs none."""


class NoCompiler(KernelError):
    """No C compiler was found, or none that makes a shared library."""


class CompileError(KernelError):
    """The compiler failed, took too long, or made a library that cannot be loaded."""


class UnsafeCache(KernelError):
    """Someone else may have written the cache of compiled kernels."""

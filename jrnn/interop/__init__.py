"""Other libraries and files, one module for each; only it imports the library."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop import export as export
    from jrnn.interop import files as files
    from jrnn.interop import torch as torch
else:
    __getattr__, __dir__ = _submodules(globals(), "export", "files", "torch")

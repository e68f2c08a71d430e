"""Converts weights of other libraries to cells and parameters, one module for each."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop import torch as torch
else:
    __getattr__, __dir__ = _submodules(globals(), "torch")

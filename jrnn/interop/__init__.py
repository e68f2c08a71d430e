"""Works with other libraries: one module or package for each, imported on first use."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop import equinox as equinox
    from jrnn.interop import flax as flax
    from jrnn.interop import haiku as haiku
    from jrnn.interop import keras as keras
    from jrnn.interop import torch as torch
else:
    __getattr__, __dir__ = _submodules(
        globals(), "equinox", "flax", "haiku", "keras", "torch"
    )

"""Flax: its weights as those of cells of jrnn."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop.flax import weights as weights
else:
    __getattr__, __dir__ = _submodules(globals(), "weights")

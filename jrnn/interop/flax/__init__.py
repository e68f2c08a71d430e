"""Flax: cells of jrnn as its modules, its cells as cells of jrnn, and its weights.

`nnx` and `linen` hold the same names, for the two interfaces of Flax: `RNN`, `RNNCell`,
`Bidirectional`, `Stack` and `as_cell`. `weights` converts parameters.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from jrnn.core.lazy import submodules as _submodules

if _TYPE_CHECKING:
    from jrnn.interop.flax import linen as linen
    from jrnn.interop.flax import nnx as nnx
    from jrnn.interop.flax import weights as weights
else:
    __getattr__, __dir__ = _submodules(globals(), "linen", "nnx", "weights")

"""Modules of Flax NNX around cells of jrnn, and its cells as cells of jrnn.

`RNN`, `Bidirectional` and `Stack` stand in for `nnx.RNN` and `nnx.Bidirectional`:
batch-first inputs, the same keywords. They differ from Flax in this:

    carry        the cell's own state, such as LSTMState(h, c); Flax has (c, h)
    seq_lengths  outputs past a length are 0; Flax returns what it computes there
    rngs         the initial state takes no key; only the noise of a cell does
    method       how to run the cell: `jrnn.bptt()`, `jrnn.scan()`, ...
    resets, mask as in `jrnn.unroll`, laid out like the inputs

Parameters are plain `nnx.Param`s, by the names that the cell gives them.
"""

from jrnn.core.lazy import needed_by as _needed_by

with _needed_by("jrnn.interop.flax.nnx", "flax"):
    from jrnn.interop.flax.nnx._adopted import as_cell as as_cell
    from jrnn.interop.flax.nnx._adopted import params_of as params_of
    from jrnn.interop.flax.nnx._cells import RNNCell as RNNCell
    from jrnn.interop.flax.nnx._combined import Bidirectional as Bidirectional
    from jrnn.interop.flax.nnx._combined import Stack as Stack
    from jrnn.interop.flax.nnx._modules import RNN as RNN

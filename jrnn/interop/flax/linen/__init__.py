"""Modules of Flax Linen around cells of jrnn, and its cells as cells of jrnn.

`RNN`, `Bidirectional` and `Stack` stand in for `nn.RNN` and `nn.Bidirectional`:
batch-first inputs, the same keywords. They differ from Flax in this:

    carry        the cell's own state, such as LSTMState(h, c); Flax has (c, h)
    seq_lengths  outputs past a length are 0; Flax returns what it computes there
    init_key     None: the initial state takes no key
    method       how to run the cell: `jrnn.bptt()`, `jrnn.scan()`, ...
    resets, mask as in `jrnn.unroll`, laid out like the inputs

Parameters are arrays by the names that the cell gives them, in the collection "params";
`nest` and `unnest` convert them from and to those of `cell.init`.
"""

from jrnn.core.lazy import needed_by as _needed_by

with _needed_by("jrnn.interop.flax.linen", "flax"):
    from jrnn.interop.flax._names import nest as nest
    from jrnn.interop.flax._names import unnest as unnest
    from jrnn.interop.flax.linen._adopted import as_cell as as_cell
    from jrnn.interop.flax.linen._cells import RNNCell as RNNCell
    from jrnn.interop.flax.linen._combined import Bidirectional as Bidirectional
    from jrnn.interop.flax.linen._combined import Stack as Stack
    from jrnn.interop.flax.linen._modules import RNN as RNN

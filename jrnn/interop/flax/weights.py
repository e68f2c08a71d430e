r"""Converts Flax' `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` and `GRUCell`.

Flax multiplies row vectors, with the equations and the order of gates of jrnn, i f g o
and r z n. The differences:

    linen       a matrix for each gate, "ii/kernel" .. "ho/kernel", also in
                `OptimizedLSTMCell`; jrnn puts them side by side
    nnx         as linen in `LSTMCell`, with "if_" for "if"; elsewhere "dense_i" for x_t
                and "dense_h" for h_{t-1}
    LSTM        the bias is with h_{t-1} there; always one
    GRU         b with x_t, and in linen "hn/bias", b_h here. nnx has no such bias: b_h
                is 0, and a cell with another one is refused
    SimpleCell  "i/bias", always one; the activation is `activation_fn`

`MGUCell` and `ConvLSTMCell` have no equal in jrnn. `nn.RNN`, `nnx.RNN` and
`Bidirectional` are read with the cells inside; only in form they differ:

    batch first     unless time_major=True: pass time_axis=1 to `jrnn.unroll`
    seq_lengths     `lengths`; there outputs past a length are what the cell computes
    reverse         `jrnn.unroll(..., reverse=True)`, whose outputs stay in the order of
                    the inputs, as with keep_order=True
    carry           (c, h) of an LSTM, `LSTMState(h, c)` here

Source: https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html,
and flax.linen/layers.html#recurrent.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jrnn.core.arguments import check_switch, tell
from jrnn.core.cell import Cell, Params
from jrnn.core.check import check_cell, check_params
from jrnn.interop._cells import ACTIVATIONS, Layer, levels_of
from jrnn.interop._single import flat, from_single, input_size_of, nested, to_single
from jrnn.interop.flax._layouts import (
    ENDS,
    FLAX,
    MADE,
    activation_of,
    check_direction,
    kind_of,
    linen_layout,
    nnx_layout,
)
from jrnn.wrappers import bidirectional, concat_merge
from jrnn.wrappers.merges import Merge

__all__ = ["from_linen", "from_nnx", "to_linen", "to_nnx"]

if TYPE_CHECKING:
    from flax import linen, nnx


def from_linen(
    module: "linen.Module", params: Mapping[str, Any], *, reverse: bool = False
) -> tuple[Cell, Params]:
    """Converts a recurrent module of Flax' linen to a cell and its parameters.

    Args:
      module: A `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` or `GRUCell`; an `RNN`
        around one; or a `Bidirectional` of two such `RNN`.
      params: What `module.init` returned, or its "params"; also inside `jax.jit` or
        `jax.grad`, where gradients flow back to them.
      reverse: Must be True for an `RNN` with `reverse=True`, as a cell does not hold
        its direction: pass it to `jrnn.unroll` too.

    Returns:
      A cell and its parameters, in the dtype of `params`.

    Raises:
      TypeError: `module` is something else, or `params` is no dictionary.
      ValueError: A parameter is missing, unexpected or of another shape; the module has
        activations, or connections, that jrnn's cell does not have; or `reverse` is not
        the module's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen
      >>> from jrnn.interop.flax.weights import from_linen
      >>> module, xs = linen.RNN(linen.GRUCell(4)), jnp.ones((2, 7, 3))
      >>> from_linen(module, module.init(jax.random.key(0), xs))[0]
      gru(input_size=3, hidden_size=4, reset_after=True, bias=True)
    """
    from flax import linen

    check_switch("reverse", reverse)
    if not isinstance(params, Mapping):
        raise TypeError(
            f"Expected params to be a dictionary of parameters, got {tell(params)}."
        )
    tree = params.get("params", params)
    if isinstance(module, linen.Bidirectional):
        check_direction(False, reverse)
        both = [_one_linen(getattr(module, n).cell, tree, (n, "cell")) for n in ENDS]
        return _pair(_merge_of(module), *both)
    check_direction(bool(getattr(module, "reverse", False)), reverse)
    if isinstance(module, linen.RNN):
        return _one_linen(module.cell, tree, ("cell",))
    return _one_linen(module, tree, ())


def to_linen(cell: Cell, params: Params) -> tuple["linen.Module", dict[str, Any]]:
    """Converts a cell and its parameters to a module of Flax' linen.

    Args:
      cell: An `elman` with tanh, relu, sigmoid or linear, an `lstm` without peepholes
        and projection, a `gru` with `reset_after=True`, or a `bidirectional` of two
        such. One without biases gets zeros.
      params: Its parameters.

    Returns:
      A `SimpleCell`, `OptimizedLSTMCell` or `GRUCell`, or a `Bidirectional`, and the
      variables for its `apply`. `from_linen` gives the parameters back, bit for bit.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: Flax has no such module, or `params` do not fit the cell.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.flax.weights import to_linen
      >>> cell = jrnn.elman(3, 4)
      >>> module, variables = to_linen(cell, cell.init(jax.random.key(0)))
      >>> variables["params"]["i"]["kernel"].shape
      (3, 4)
    """
    from flax import linen

    def make(layer: Layer) -> linen.RNNCellBase:
        options = {"features": layer.hidden_size, "param_dtype": dtype}
        if layer.kind == "elman":
            options["activation_fn"] = ACTIVATIONS[layer.activation]
        return getattr(linen, MADE[layer.kind])(**options)

    found = [to_single(*one, FLAX, linen_layout) for one in _directions(cell, params)]
    dtype = jax.tree.leaves(params)[0].dtype
    modules = [make(layer) for layer, _ in found]
    trees = [nested(_to_jax(arrays)) for _, arrays in found]
    if len(modules) == 1:
        return modules[0], {"params": trees[0]}
    below = {name: {"cell": tree} for name, tree in zip(ENDS, trees, strict=True)}
    forward, backward = map(linen.RNN, modules)
    merge = levels_of(cell, FLAX)[0].merge
    return linen.Bidirectional(forward, backward, merge_fn=merge), {"params": below}


def from_nnx(module: "nnx.Module", *, reverse: bool = False) -> tuple[Cell, Params]:
    """Converts a recurrent module of Flax' nnx to a cell and its parameters.

    Args:
      module: A `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` or `GRUCell`; an `RNN`
        around one; or a `Bidirectional` of two such `RNN`; also inside `nnx.grad`,
        where gradients flow back to its parameters.
      reverse: As in `from_linen`.

    Returns:
      A cell and its parameters, in the dtype of the module's.

    Raises:
      TypeError: `module` is something else.
      ValueError: As in `from_linen`.

    Example:
      >>> from flax import nnx
      >>> from jrnn.interop.flax.weights import from_nnx
      >>> from_nnx(nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0))))[1].W_x.shape
      (3, 16)
    """
    from flax import nnx

    check_switch("reverse", reverse)
    if isinstance(module, nnx.Bidirectional):
        check_direction(False, reverse)
        both = [_one_nnx(getattr(module, name).cell) for name in ENDS]
        return _pair(_merge_of(module), *both)
    check_direction(bool(getattr(module, "reverse", False)), reverse)
    return _one_nnx(module.cell if isinstance(module, nnx.RNN) else module)


def to_nnx(cell: Cell, params: Params) -> "nnx.Module":
    """Converts a cell and its parameters to a module of Flax' nnx.

    Args:
      cell: As in `to_linen`; the b_h of a `gru` must be 0, as nnx has none.
      params: Its parameters.

    Returns:
      A `SimpleCell`, `OptimizedLSTMCell` or `GRUCell`, or a `Bidirectional`. `from_nnx`
      gives the parameters back, bit for bit.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: Flax has no such module, or `params` do not fit the cell.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.flax.weights import to_nnx
      >>> cell = jrnn.lstm(3, 4)
      >>> to_nnx(cell, cell.init(jax.random.key(0))).dense_i.kernel.shape
      (3, 16)
    """
    from flax import nnx

    found = [to_single(*one, FLAX, nnx_layout) for one in _directions(cell, params)]
    modules = [_made_nnx(nnx, layer, arrays) for layer, arrays in found]
    if len(modules) == 1:
        return modules[0]
    forward, backward = map(nnx.RNN, modules)
    merge = levels_of(cell, FLAX)[0].merge
    return nnx.Bidirectional(forward, backward, merge_fn=merge)


def _one_linen(module: Any, tree: Any, path: tuple[str, ...]) -> tuple[Cell, Params]:
    kind = kind_of(module)
    name = f"a {type(module).__name__} of linen"
    for step in path:
        if step not in tree:
            raise ValueError(
                f"Expected params of {name} under {'/'.join(path)!r}, got {list(tree)}."
            )
        tree = tree[step]
    layout = linen_layout(Layer(kind, 1, 1))
    arrays = flat(tree)
    k = input_size_of(layout, arrays, module.features)
    layer = Layer(kind, k, module.features, activation=activation_of(module, kind))
    return from_single(layer, layout, arrays, name)


def _one_nnx(module: Any) -> tuple[Cell, Params]:
    kind = kind_of(module)
    layer = Layer(
        kind,
        module.in_features,
        module.hidden_features,
        activation=activation_of(module, kind),
    )
    layout = nnx_layout(layer, split=type(module).__name__ == "LSTMCell")
    named = {one.name: _param(module, one.name) for one in layout.stored}
    return from_single(layer, layout, named, f"a {type(module).__name__} of nnx")


def _param(module: Any, path: str) -> Any:
    for step in path.split("/"):
        module = getattr(module, step)
    return module[...]


def _made_nnx(nnx: Any, layer: Layer, arrays: dict[str, Any]) -> Any:
    # The weights are replaced; the default draws none in bfloat16.
    zeros = jax.nn.initializers.zeros
    options: dict[str, Any] = {"rngs": nnx.Rngs(0), "recurrent_kernel_init": zeros}
    options["param_dtype"] = next(iter(arrays.values())).dtype
    if layer.kind == "elman":
        options["activation_fn"] = ACTIVATIONS[layer.activation]
        options["dtype"] = options["param_dtype"]
    sizes = layer.input_size, layer.hidden_size
    module = getattr(nnx, MADE[layer.kind])(*sizes, **options)
    for path, array in _to_jax(arrays).items():
        above, name = path.split("/")
        setattr(getattr(module, above), name, nnx.Param(array))
    return module


def _to_jax(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def _merge_of(module: Any) -> Merge:
    """Returns the merge of a Bidirectional, `concat_merge` where it concatenates."""
    with jax.ensure_compile_time_eval():
        pair = jnp.array([1.0, 2.0]), jnp.array([4.0, 8.0])
        merged = np.asarray(module.merge_fn(*pair))
    return concat_merge if merged.tolist() == [1.0, 2.0, 4.0, 8.0] else module.merge_fn


def _pair(merge: Merge, *both: tuple[Cell, Params]) -> tuple[Cell, Params]:
    (forward, own_f), (backward, own_b) = both
    return bidirectional(forward, backward, merge), (own_f, own_b)


def _directions(cell: Cell, params: Params) -> list[tuple[Cell, Params]]:
    """Returns the cells of one or two directions, with their parameters."""
    check_cell(cell)
    level = levels_of(cell, FLAX)[0]
    if cell.spec.name == "stack" or level.rate:
        reason = "it is more than one module; convert its cells one by one"
        raise FLAX.refuse(cell, reason)
    check_params(cell, params)
    both = params if len(level.cells) == 2 else (params,)
    return list(zip(level.cells, both, strict=True))

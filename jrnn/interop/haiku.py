r"""Converts Haiku's `VanillaRNN`, `LSTM` and `GRU`, in both directions.

Haiku multiplies row vectors, as jrnn does. The differences:

    VanillaRNN  the activation is relu; with double_bias=True, the default, there are
                two biases, b = linear/b + linear_1/b
    LSTM        one matrix for x_t and h_{t-1}, side by side: w = (W_x; W_h); the order
                of the gates is i g f o, for i f g o; and the code adds 1 to the
                argument of f: b_f = b[f] + 1
    GRU         resets before the product, `jrnn.gru(..., reset_after=False)`; the order
                is z r a, for r z n; z multiplies the candidate, and 1 - z the past,
                h_t = (1 - z_t) * h_{t-1} + z_t * a_t
                As sigmoid(-a) = 1 - sigmoid(a), the columns of z change their sign.

Back to Haiku, `linear_1/b` is -0. Parameters of jrnn come back bit for bit, but for an
LSTM's b_f outside of [0.5, 2], as b_f - 1 is rounded there, by half a unit in the last
place of b_f - 1.

Haiku names parameters by the path of their module, {"lstm/linear": {"w": ..., "b":
...}}; inside a larger model the path has more before it. Time is the first axis in
`hk.dynamic_unroll`, as here; an LSTM's state is `LSTMState(hidden, cell)`, (h, c) here.

Nothing here imports Haiku: its parameters are plain dictionaries.

Source: https://dm-haiku.readthedocs.io/en/latest/api.html#recurrent, and the equations
in https://github.com/google-deepmind/dm-haiku/blob/main/haiku/_src/recurrent.py.
"""

from typing import Any

from jrnn.core.arguments import check_kind, tell
from jrnn.core.cell import Cell, Params
from jrnn.interop._cells import Layer, Library
from jrnn.interop._layout import Layout, Stored
from jrnn.interop._single import (
    flat,
    from_single,
    hidden_size_of,
    input_size_of,
    to_single,
)

__all__ = ["from_haiku", "to_haiku"]

HAIKU = Library(
    "Haiku",
    "elman with relu, lstm, gru with reset_after=False",
    activations=("relu",),
    resets=(False,),
)
CORES = {"VanillaRNN": "elman", "LSTM": "lstm", "GRU": "gru"}
NAMES = {"elman": "vanilla_rnn", "lstm": "lstm", "gru": "gru"}


def from_haiku(core: type, params: Any, name: str | None = None) -> tuple[Cell, Params]:
    """Converts the parameters of a recurrent core of Haiku.

    Args:
      core: The class `hk.VanillaRNN`, `hk.LSTM` or `hk.GRU`.
      params: What `init` of a transformed function returned.
      name: The path of the core in it, such as "net/~/lstm"; None: that of a core
        alone, "vanilla_rnn", "lstm" or "gru". Parameters of other modules are ignored.

    Returns:
      A cell and its parameters, in the dtype of `params`.

    Raises:
      TypeError: `core` is not such a class, or `params` is no dictionary.
      ValueError: A parameter is missing, unexpected or of another shape; or they are
        float64 and JAX would convert them to float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.interop.haiku import from_haiku
      >>> class GRU: "Stands for hk.GRU."
      >>> own = {"w_i": jnp.ones((3, 12)), "w_h": jnp.ones((4, 12)), "b": jnp.ones(12)}
      >>> from_haiku(GRU, {"gru": own})[0]
      gru(input_size=3, hidden_size=4, reset_after=False, bias=True)
    """
    kind = CORES.get(getattr(core, "__name__", ""))
    if kind is None:
        raise TypeError(
            f"Expected core to be hk.VanillaRNN, hk.LSTM or hk.GRU, got {tell(core)}; "
            "pass the class itself."
        )
    path: str = check_kind("name", NAMES[kind] if name is None else name, str)
    own = _below(params, path)
    layout = _layout(kind, "linear_1/b" in own)
    n = hidden_size_of(layout, own)
    layer = _layer(kind, input_size_of(layout, own, n), n)
    of = f"an hk.{core.__name__} at {path!r}, with {layer.input_size} features and {n} "
    of += f"units, as {layout.stored[-1].name} has"
    return from_single(layer, layout, own, of)


def to_haiku(
    cell: Cell, params: Params, name: str | None = None
) -> dict[str, dict[str, Any]]:
    """Converts a cell and its parameters to those of a core of Haiku.

    Args:
      cell: An `elman` with relu, an `lstm` without peepholes and projection, or a `gru`
        with `reset_after=False`. One without biases gets zeros.
      params: Its parameters.
      name: The path of the core; None: "vanilla_rnn", "lstm" or "gru".

    Returns:
      Parameters for `apply`, of an `hk.VanillaRNN` with `double_bias=True`, an
      `hk.LSTM` or an `hk.GRU`.

    Raises:
      TypeError: `cell` is not a cell.
      ValueError: Haiku has no such core, or `params` do not fit the cell.

    Example:
      >>> import jax, jrnn
      >>> from jrnn.interop.haiku import to_haiku
      >>> cell = jrnn.lstm(3, 4)
      >>> to_haiku(cell, cell.init(jax.random.key(0)))["lstm/linear"]["w"].shape
      (7, 16)
    """
    check_kind("name", name, str | None)
    layer, arrays = to_single(cell, params, HAIKU, lambda one: _layout(one.kind, True))
    path = NAMES[layer.kind] if name is None else name
    found: dict[str, dict[str, Any]] = {}
    for own, array in arrays.items():
        module, _, last = f"{path}/{own}".rpartition("/")
        found.setdefault(module, {})[last] = array
    return found


def _layer(kind: str, k: int, n: int) -> Layer:
    if kind == "gru":
        return Layer(kind, k, n, reset_after=False)
    return Layer(kind, k, n, activation="relu" if kind == "elman" else "tanh")


def _layout(kind: str, double_bias: bool) -> Layout:
    if kind == "lstm":
        w = Stored("linear/w", ("W_x", "W_h"), "i g f o")
        b = Stored("linear/b", ("b",), "i g f o")
        return Layout("lstm", (w, b), added="f")
    if kind == "gru":
        names = {"w_i": "W_x", "w_h": "W_h", "b": "b"}
        stored = [Stored(name, (part,), "z r n") for name, part in names.items()]
        return Layout("gru reset before", tuple(stored), negated="z")
    names = {"linear/w": "W_x", "linear/b": "b", "linear_1/w": "W_h"}
    names |= {"linear_1/b": "b_h"} if double_bias else {}
    stored = [Stored(name, (part,), "h") for name, part in names.items()]
    return Layout("elman", tuple(stored))


def _below(params: Any, name: str) -> dict[str, Any]:
    """Returns the parameters of the module at a path, by their names below it."""
    own = {
        path.removeprefix(f"{name}/"): array
        for path, array in flat(params).items()
        if path.startswith(f"{name}/")
    }
    if not own:
        known = list(params) if hasattr(params, "keys") else tell(params)
        raise ValueError(
            f"Expected params to have modules at {name!r}, got {known}; pass the path "
            "of the core as name."
        )
    return own

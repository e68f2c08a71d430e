"""What recurrent layers of other libraries compute, as functions of their arrays.

Each case has a layer's arrays by name, and two functions of them: the library's own
outputs, and jrnn's, through the conversion. Both can be differentiated, so that
gradients are compared by the library's own names. `tests/golden/make_weights.py` saves
what the libraries compute.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import jrnn
from jrnn.interop._single import nested
from jrnn.interop.equinox.weights import from_equinox
from jrnn.interop.flax.weights import from_linen, from_nnx
from jrnn.interop.haiku import from_haiku
from jrnn.interop.keras import KerasSpec
from jrnn.interop.keras import from_arrays as keras_from_arrays

B, T, K, N = 3, 6, 3, 4
LENGTHS = (6, 2, 4)

Arrays = dict[str, Any]


class Case(NamedTuple):
    """A layer of a library.

    Attributes:
      shapes: Of its arrays, by name.
      ys: (arrays, xs, lengths) -> the library's outputs, all batch first; lengths are
        None where the library has none.
      convert: arrays -> (cell, params).
      lengths: Whether the library takes them.
    """

    shapes: dict[str, tuple[int, ...]]
    ys: Callable[[Arrays, Any, Any], Any]
    convert: Callable[[Arrays], Any]
    lengths: bool = False


def jrnn_ys(case, arrays, xs, lengths):
    """Returns the outputs of the converted cell, batch first."""
    cell, params = case.convert(arrays)
    own = None if lengths is None else jnp.asarray(lengths)
    ys = jrnn.unroll(cell, params, jnp.swapaxes(xs, 0, 1), lengths=own)[1]
    return jnp.swapaxes(ys, 0, 1)


def draw(name, case, dtype):
    """Returns random arrays and inputs of a case, the same for every dtype."""
    rng = np.random.default_rng(sum(map(ord, name)))
    normal = lambda shape: jnp.asarray(0.5 * rng.normal(size=shape), dtype)
    return {n: normal(s) for n, s in case.shapes.items()}, normal((B, T, K))


def compute(case, ys_of, arrays, xs):
    """Returns outputs and the gradients of a random linear loss, up to the lengths."""
    lengths = LENGTHS if case.lengths else None
    active = np.arange(T) < np.reshape(lengths or (T,) * B, (B, 1))

    def loss(arrays, xs):
        ys = ys_of(arrays, xs, lengths)
        weights = np.random.default_rng(5).normal(size=ys.shape) * active[..., None]
        ys = jnp.where(active[..., None], ys, jnp.zeros_like(ys))
        return (jnp.asarray(weights, ys.dtype) * ys).sum(), ys

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (darrays, dxs), ys = gradient(arrays, xs)
    return {"ys": ys, "dxs": dxs} | {f"grad/{n}": g for n, g in darrays.items()}


# Keras.


def _keras(spec):
    gates = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[spec.layer]
    two = spec.layer == "GRU" and spec.reset_after
    own = {"kernel": (K, gates * N), "recurrent_kernel": (N, gates * N)}
    if spec.use_bias:
        own["bias"] = (2, gates * N) if two else (gates * N,)
    ends = ("forward/", "backward/") if spec.bidirectional else ("",)
    shapes = {end + name: shape for end in ends for name, shape in own.items()}

    def ys(arrays, xs, lengths):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        options = {"use_bias": spec.use_bias, "return_sequences": True}
        if spec.layer == "GRU":
            options["reset_after"] = spec.reset_after
        if spec.layer == "SimpleRNN":
            options["activation"] = spec.activation
        layer = getattr(keras.layers, spec.layer)(N, **options)
        layer = keras.layers.Bidirectional(layer) if spec.bidirectional else layer
        layer.build((B, T, K))
        mask = None
        if lengths is not None:
            mask = np.arange(T) < np.reshape(lengths, (B, 1))
        state = [v.value for v in layer.non_trainable_variables]
        given = [arrays[name] for name in shapes]
        return layer.stateless_call(given, state, xs, mask=mask)[0]

    return Case(shapes, ys, lambda arrays: keras_from_arrays(spec, arrays), True)


# Flax.


def _zeros(module, dtype):
    """Returns the state in which Flax starts, which it has in float32 alone."""
    if hasattr(module, "forward_rnn"):
        return tuple(
            _zeros(one, dtype) for one in (module.forward_rnn, module.backward_rnn)
        )
    h = jnp.zeros((B, N), dtype)
    return (h, h) if "LSTM" in type(module.cell).__name__ else h


def _linen(module, shapes):
    def ys(arrays, xs, lengths):
        variables = {"params": nested(arrays)}
        own = None if lengths is None else jnp.asarray(lengths)
        carry = _zeros(module, xs.dtype)
        return module.apply(variables, xs, seq_lengths=own, initial_carry=carry)

    return Case(shapes, ys, lambda arrays: from_linen(module, nested(arrays)), True)


def _gates(gates, biased, more=(), end="cell/"):
    shapes = {}
    for gate in gates:
        shapes |= {f"{end}i{gate}/kernel": (K, N), f"{end}h{gate}/kernel": (N, N)}
        shapes[f"{end}{biased}{gate}/bias"] = (N,)
    return shapes | {f"{end}{name}/bias": (N,) for name in more}


def _nnx(make, shapes, around=nnx.RNN):
    def module_of(arrays):
        module = around(make()) if around is nnx.RNN else around(make)
        for path, array in arrays.items():
            *above, name = path.split("/")
            inner = module
            for step in above:
                inner = getattr(inner, step)
            setattr(inner, name, nnx.Param(array))
        return module

    def ys(arrays, xs, lengths):
        own = None if lengths is None else jnp.asarray(lengths)
        module = module_of(arrays)
        carry = _zeros(module, xs.dtype)
        return module(xs, seq_lengths=own, initial_carry=carry)

    return Case(shapes, ys, lambda arrays: from_nnx(module_of(arrays)), True)


def _dense(gates, side, end="cell/"):
    return {
        f"{end}dense_i/kernel": (K, gates * N),
        f"{end}dense_h/kernel": (N, gates * N),
        f"{end}dense_{side}/bias": (gates * N,),
    }


def _of(kind):
    return lambda: getattr(nnx, kind)(K, N, rngs=nnx.Rngs(0))


def _simple():
    return nnx.SimpleCell(K, N, dtype=None, rngs=nnx.Rngs(0))


def _both(make):
    return nnx.Bidirectional(nnx.RNN(make()), nnx.RNN(make()))


def _two(shapes):
    ends = ("forward_rnn/", "backward_rnn/")
    return {end + name: shape for end in ends for name, shape in shapes.items()}


# Haiku.


def _core(name):
    """Stands for a class of Haiku, of which only the name is read."""
    return type(name, (), {})


def _haiku(names, shapes):
    def tree(arrays):
        found: dict[str, Any] = {}
        for path, array in arrays.items():
            module, _, name = path.rpartition("/")
            found.setdefault(module, {})[name] = array
        return found

    def ys(arrays, xs, lengths):
        import haiku as hk

        assert lengths is None

        def run(xs):
            cores = [getattr(hk, kind)(N) for kind in names.values()]
            core = hk.DeepRNN(cores) if len(cores) > 1 else cores[0]
            return hk.dynamic_unroll(core, xs, core.initial_state(B), time_major=False)

        f = hk.without_apply_rng(hk.transform(run))
        return f.apply(tree(arrays), xs)[0]

    def convert(arrays):
        made = [from_haiku(_core(k), tree(arrays), n) for n, k in names.items()]
        cells, params = zip(*made, strict=True)
        return (jrnn.stack(*cells), params) if len(made) > 1 else made[0]

    return Case(shapes, ys, convert)


def _haiku_lstm(path, k):
    return {f"{path}/linear/w": (k + N, 4 * N), f"{path}/linear/b": (4 * N,)}


HAIKU_GRU = {"gru/w_i": (K, 3 * N), "gru/w_h": (N, 3 * N), "gru/b": (3 * N,)}
HAIKU_RNN = {
    "vanilla_rnn/linear/w": (K, N),
    "vanilla_rnn/linear/b": (N,),
    "vanilla_rnn/linear_1/w": (N, N),
    "vanilla_rnn/linear_1/b": (N,),
}


# Equinox.


def stand_in(kind, arrays, k):
    """Returns an object with the fields that a cell of Equinox has."""
    made = type(kind, (), {"__module__": "equinox.nn._rnn"})()
    made.input_size, made.hidden_size, made.use_bias = k, N, "bias" in arrays
    for name in ("weight_ih", "weight_hh", "bias", "bias_n"):
        setattr(made, name, arrays.get(name))
    return made


def _equinox(kinds, bias=True):
    shapes, sizes = {}, [K] + [N] * (len(kinds) - 1)
    for i, (kind, k) in enumerate(zip(kinds, sizes, strict=True)):
        gates = 3 if kind == "GRUCell" else 4
        own = {"weight_ih": (gates * N, k), "weight_hh": (gates * N, N)}
        own |= {"bias": (gates * N,)} if bias else {}
        own |= {"bias_n": (N,)} if bias and kind == "GRUCell" else {}
        shapes |= {f"{i}/{name}": shape for name, shape in own.items()}

    def parts(arrays):
        each = [{n[2:]: a for n, a in arrays.items() if n[0] == str(i)} for i in (0, 1)]
        return list(zip(kinds, each, sizes, strict=False))

    def ys(arrays, xs, lengths):
        import equinox as eqx

        assert lengths is None
        for kind, own, k in parts(arrays):
            cell = getattr(eqx.nn, kind)(k, N, use_bias=bias, key=jax.random.key(0))
            held = lambda tree, own=own: [getattr(tree, name) for name in own]
            cell = eqx.tree_at(held, cell, list(own.values()))
            xs = jax.vmap(lambda xs, cell=cell, kind=kind: _scan(cell, kind, xs))(xs)
        return xs

    def convert(arrays):
        made = [from_equinox(stand_in(*part)) for part in parts(arrays)]
        cells, params = zip(*made, strict=True)
        return (jrnn.stack(*cells), params) if len(made) > 1 else made[0]

    return Case(shapes, ys, convert)


def _scan(cell, kind, xs):
    zero = jnp.zeros(N, xs.dtype)
    lstm = kind == "LSTMCell"

    def step(state, x):
        state = cell(x, state)
        return state, state[0] if lstm else state

    return jax.lax.scan(step, (zero, zero) if lstm else zero, xs)[1]


CASES = {
    "keras simple_rnn": _keras(KerasSpec("SimpleRNN", K, N, activation="relu")),
    "keras lstm": _keras(KerasSpec("LSTM", K, N)),
    "keras gru": _keras(KerasSpec("GRU", K, N)),
    "keras gru before": _keras(KerasSpec("GRU", K, N, reset_after=False)),
    "keras gru no bias": _keras(KerasSpec("GRU", K, N, use_bias=False)),
    "keras bidirectional": _keras(KerasSpec("GRU", K, N, bidirectional=True)),
    "linen simple": _linen(
        linen.RNN(linen.SimpleCell(N)),
        {"cell/i/kernel": (K, N), "cell/h/kernel": (N, N), "cell/i/bias": (N,)},
    ),
    "linen lstm": _linen(linen.RNN(linen.LSTMCell(N)), _gates("ifgo", "h")),
    "linen optimized": _linen(
        linen.RNN(linen.OptimizedLSTMCell(N)), _gates("ifgo", "h")
    ),
    "linen gru": _linen(linen.RNN(linen.GRUCell(N)), _gates("rzn", "i", ["hn"])),
    "linen bidirectional": _linen(
        linen.Bidirectional(linen.RNN(linen.GRUCell(N)), linen.RNN(linen.GRUCell(N))),
        _two(_gates("rzn", "i", ["hn"])),
    ),
    "nnx simple": _nnx(_simple, _dense(1, "i")),
    "nnx lstm": _nnx(
        _of("LSTMCell"),
        {n.replace("if/", "if_/"): s for n, s in _gates("ifgo", "h").items()},
    ),
    "nnx optimized": _nnx(_of("OptimizedLSTMCell"), _dense(4, "h")),
    "nnx gru": _nnx(_of("GRUCell"), _dense(3, "i")),
    "nnx bidirectional": _nnx(_of("GRUCell"), _two(_dense(3, "i")), _both),
    "haiku vanilla": _haiku({"vanilla_rnn": "VanillaRNN"}, HAIKU_RNN),
    "haiku lstm": _haiku({"lstm": "LSTM"}, _haiku_lstm("lstm", K)),
    "haiku gru": _haiku({"gru": "GRU"}, HAIKU_GRU),
    "haiku deep": _haiku(
        {"lstm": "LSTM", "lstm_1": "LSTM"},
        _haiku_lstm("lstm", K) | _haiku_lstm("lstm_1", N),
    ),
    "equinox lstm": _equinox(["LSTMCell"]),
    "equinox gru": _equinox(["GRUCell"]),
    "equinox no bias": _equinox(["GRUCell"], bias=False),
    "equinox deep": _equinox(["LSTMCell", "GRUCell"]),
}

"""jrnn and the JAX libraries it is compared with, each used as its own manual says.

Every function takes a `Problem` and returns how the library runs it. Libraries are
imported when they are asked for, so that the others run without them.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jrnn
from experiments.benchmarks.peers.problems import Problem, Weights


class JaxPeer(NamedTuple):
    """A library's way to run one problem.

    Attributes:
      forward: (params, xs) -> ys, of the library's own layout.
      convert: Weights of jnp arrays -> params; affine, so that gradients come back
        through it.
      batch_first: Whether the library's default layout has the batch in front.
      step: (params, state, x) -> (state, y), one step of streaming; None: no such call.
      state: The state a stream begins with, for a batch of B.
      place: (params, xs) -> the same, on the devices that run them.
    """

    forward: Callable[[Any, Any], Any]
    convert: Callable[[Weights], Any]
    batch_first: bool = False
    step: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None
    state: Any = None
    place: Callable[[Any, Any], tuple[Any, Any]] = lambda params, xs: (params, xs)


def arguments_of(problem: Problem, peer: JaxPeer) -> tuple[Any, jax.Array]:
    """Returns params and xs as the library takes them, when they are there."""
    params = peer.convert(Weights(*map(jnp.asarray, problem.weights)))
    xs = problem.xs.swapaxes(0, 1) if peer.batch_first else problem.xs
    return jax.block_until_ready(peer.place(params, jnp.asarray(xs)))


def jrnn_default(problem: Problem) -> JaxPeer:
    """Jrnn with nothing chosen: the default method, chunk and unroll."""
    return jrnn_peer(problem)


def jrnn_scan(problem: Problem) -> JaxPeer:
    """Jrnn's cell in a plain `lax.scan` that JAX differentiates."""
    return jrnn_peer(problem, jrnn.scan())


def jrnn_fused(problem: Problem) -> JaxPeer:
    """Jrnn's cell in one call for the whole sequence: C, generated from the cell."""
    return jrnn_peer(problem, jrnn.fused())


def jrnn_reset_before(problem: Problem) -> JaxPeer:
    """The GRU whose reset comes before the product, which is Haiku's."""
    return jrnn_peer(problem, reset_after=False)


def jrnn_devices(problem: Problem) -> JaxPeer:
    """Jrnn with the batch split over all devices, of which a CPU has what it is told.

    No product of one part waits for another part's; gradients of parameters are summed
    over devices once, at the end.
    """
    whole = jrnn_peer(problem)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    split = P(None, "batch")
    forward = jax.shard_map(
        whole.forward, mesh=mesh, in_specs=(P(), split), out_specs=split
    )

    def place(params: Any, xs: Any) -> tuple[Any, Any]:
        on = lambda spec: NamedSharding(mesh, spec)
        return jax.device_put(params, on(P())), jax.device_put(xs, on(split))

    return JaxPeer(forward, whole.convert, place=place)


def jrnn_peer(
    problem: Problem, method: jrnn.Method | None = None, **options: Any
) -> JaxPeer:
    """Jrnn's cell, made with `options`, by a method; None: by that of `unroll`."""
    shape = problem.shape
    cell = getattr(jrnn.cells, problem.cell)(shape.I, shape.H, **options)
    like = jax.block_until_ready(cell.init(jax.random.key(0)))  # not beside a compiler

    def convert(weights: Weights) -> Any:
        params = like._replace(**weights._asdict())
        if problem.cell == "gru" and params.b_h is not None:
            params = params._replace(b_h=jnp.zeros(shape.H, jnp.float32))
        return params

    return JaxPeer(
        forward=lambda params, xs: jrnn.unroll(cell, params, xs, method=method)[1],
        convert=convert,
        step=cell.step,
        state=cell.init_state(like, (1,)),
    )


def flax_linen(problem: Problem) -> JaxPeer:
    """`flax.linen.RNN` around a cell; of the two LSTM cells the optimised one."""
    import flax.linen as nn

    H = problem.shape.H
    cell = {"elman": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[
        problem.cell
    ](features=H)
    rnn = nn.RNN(cell)
    names = {"elman": ("",), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}

    def convert(weights: Weights) -> Any:
        found: dict[str, Any] = {}
        for gate, W_x, W_h, b in _gates(weights, names[problem.cell]):
            if problem.cell == "lstm":  # the bias stands beside h
                found["i" + gate] = {"kernel": W_x}
                found["h" + gate] = {"kernel": W_h, "bias": b}
            else:
                found["i" + gate] = {"kernel": W_x, "bias": b}
                found["h" + gate] = {"kernel": W_h}
            if gate == "n":
                found["hn"]["bias"] = jnp.zeros(H, jnp.float32)
        return {"params": {"cell": found}}

    inner = lambda params: {"params": params["params"]["cell"]}
    return JaxPeer(
        forward=rnn.apply,
        convert=convert,
        batch_first=True,
        step=lambda params, state, x: cell.apply(inner(params), state, x),
        state=cell.initialize_carry(jax.random.key(0), (1, problem.shape.I)),
    )


def flax_nnx(problem: Problem) -> JaxPeer:
    """`flax.nnx.RNN`, split into graph and state for `jax.jit`; zero carry given."""
    from flax import nnx

    T, B, I, H = problem.shape
    del T
    make = {"elman": nnx.SimpleCell, "gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}[
        problem.cell
    ]
    cell = make(I, H, rngs=nnx.Rngs(0))
    graph, like = nnx.split(nnx.RNN(cell, rngs=False))
    cell_graph, _ = nnx.split(cell)
    zeros = lambda batch: _like_carry(problem.cell, jnp.zeros((batch, H), jnp.float32))

    def convert(weights: Weights) -> Any:
        W_x, W_h, b = weights
        beside = "dense_h" if problem.cell == "lstm" else "dense_i"
        params = nnx.to_pure_dict(like)
        params["cell"]["dense_i"]["kernel"] = W_x
        params["cell"]["dense_h"]["kernel"] = W_h
        params["cell"][beside]["bias"] = b
        return params

    def forward(params: Any, xs: Any) -> Any:
        rnn = nnx.merge(graph, nnx.State(params))
        return rnn(xs, initial_carry=zeros(B))

    def step(params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        return nnx.merge(cell_graph, nnx.State(params["cell"]))(state, x)

    return JaxPeer(forward, convert, True, step, zeros(1))


def haiku(problem: Problem) -> JaxPeer:
    """`haiku.dynamic_unroll`; its GRU resets before the product; its Elman is ReLU."""
    import haiku as hk  # pyright: ignore[reportMissingImports] optional

    H = problem.shape.H
    make = {"gru": hk.GRU, "lstm": hk.LSTM}[problem.cell]

    def run(xs: Any) -> Any:
        core = make(H, name="core")
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    def move(state: Any, x: Any) -> Any:
        y, state = make(H, name="core")(x, state)
        return state, y

    unrolled = hk.without_apply_rng(hk.transform(run))
    once = hk.without_apply_rng(hk.transform(move))

    def convert(weights: Weights) -> Any:
        W_x, W_h, b = weights
        if problem.cell == "gru":  # z r n, and z multiplies the candidate
            order = lambda a: jnp.concatenate([-a[1], a[0], a[2]], -1)
            mix = lambda a: order(jnp.split(a, 3, -1))
            return {"core": {"w_i": mix(W_x), "w_h": mix(W_h), "b": mix(b)}}
        # i g f o, and 1 is added to the forget gate whenever the cell is applied
        parts = lambda a: jnp.split(a, 4, -1)
        order = lambda i, f, g, o: jnp.concatenate([i, g, f, o], -1)
        i, f, g, o = parts(b)
        w = jnp.concatenate([order(*parts(W_x)), order(*parts(W_h))])
        return {"core/linear": {"w": w, "b": order(i, f - 1, g, o)}}

    zero = jnp.zeros((1, H), jnp.float32)
    state = zero if problem.cell == "gru" else hk.LSTMState(zero, zero)
    return JaxPeer(unrolled.apply, convert, False, once.apply, state)


def equinox(problem: Problem) -> JaxPeer:
    """An Equinox cell in `lax.scan`, `vmap` over the batch, as its manual has it."""
    import equinox as eqx  # pyright: ignore[reportMissingImports] optional

    I, H = problem.shape.I, problem.shape.H
    make = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[problem.cell]
    like = make(I, H, key=jax.random.key(0))
    zeros = lambda: _like_carry(problem.cell, jnp.zeros(H, jnp.float32))

    def convert(weights: Weights) -> Any:
        where = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias)
        cell = eqx.tree_at(where, like, (weights.W_x.T, weights.W_h.T, weights.b))
        if problem.cell == "gru":
            zero = jnp.zeros(H, jnp.float32)
            cell = eqx.tree_at(lambda cell: cell.bias_n, cell, zero)
        return cell

    def one(cell: Any, xs: Any) -> Any:
        def step(state: Any, x: Any) -> tuple[Any, Any]:
            state = cell(x, state)
            return state, jax.tree.leaves(state)[0]

        return jax.lax.scan(step, zeros(), xs)[1]

    def stream(cell: Any, state: Any, x: Any) -> tuple[Any, Any]:
        state = jax.vmap(lambda s, x: cell(x, s))(state, x)
        return state, jax.tree.leaves(state)[0]

    begin = jax.tree.map(lambda leaf: leaf[None], zeros())
    return JaxPeer(jax.vmap(one, in_axes=(None, 0)), convert, True, stream, begin)


def keras(problem: Problem) -> JaxPeer:
    """Keras 3 on JAX: a layer's `stateless_call`."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras as keras_  # pyright: ignore[reportMissingImports] optional

    T, B, I, H = problem.shape
    make = {
        "elman": keras_.layers.SimpleRNN,
        "gru": keras_.layers.GRU,
        "lstm": keras_.layers.LSTM,
    }[problem.cell]
    layer = make(H, return_sequences=True)
    layer.build((B, T, I))
    fixed = [v.value for v in layer.non_trainable_variables]

    def convert(weights: Weights) -> Any:
        if problem.cell != "gru":
            return list(weights)
        mix = lambda a: jnp.concatenate([a[1], a[0], a[2]], -1)  # z r n
        W_x, W_h, b = (mix(jnp.split(a, 3, -1)) for a in weights)
        return [W_x, W_h, jnp.stack([b, jnp.zeros_like(b)])]

    def forward(params: Any, xs: Any) -> Any:
        return layer.stateless_call(params, fixed, xs)[0]

    def step(params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        cell = layer.cell
        kept = [v.value for v in cell.non_trainable_variables]
        (y, state), _ = cell.stateless_call(params, kept, x, state)
        return state, y

    states = 2 if problem.cell == "lstm" else 1
    begin = [np.zeros((1, H), np.float32)] * states
    return JaxPeer(forward, convert, True, step, begin)


def _like_carry(cell: str, zeros: Any) -> Any:
    return (zeros, zeros) if cell == "lstm" else zeros


def _gates(weights: Weights, names: tuple[str, ...]) -> Any:
    cut = lambda array: jnp.split(array, len(names), axis=-1)
    return zip(names, *map(cut, weights), strict=True)


# The names of the table, and which cells of theirs compute the same function.
EVERY = ("elman", "gru", "lstm")
OURS, RESET_BEFORE, HAIKU = "jrnn", "jrnn, reset before", "haiku"
DEVICES, FUSED = "jrnn, all devices", "jrnn, fused"
JAX_PEERS: dict[str, tuple[Callable[[Problem], JaxPeer], tuple[str, ...]]] = {
    OURS: (jrnn_default, EVERY),
    "jrnn, scan": (jrnn_scan, EVERY),
    FUSED: (jrnn_fused, EVERY),
    RESET_BEFORE: (jrnn_reset_before, ("gru",)),
    DEVICES: (jrnn_devices, EVERY),
    "flax.linen": (flax_linen, EVERY),
    "flax.nnx": (flax_nnx, EVERY),
    HAIKU: (haiku, ("gru", "lstm")),
    "equinox": (equinox, ("gru", "lstm")),
    "keras": (keras, EVERY),
}
# The modules of those that jrnn does not bring along.
PEER_MODULES = {HAIKU: "haiku", "equinox": "equinox", "keras": "keras"}

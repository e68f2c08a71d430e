"""The gradient matrix: every feature with every method, against a loop of `step`.

A combination is one value of each axis below. Axes that shape the compiled function
(cell, method, direction, structure, checkpoints) are separate from axes that are only
data (the loss, the initial state, lengths, resets, masks): one compilation serves all
data.
"""

import functools
import itertools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from jrnn.core.tree import reads_ahead
from tests.helpers import (
    CELLS,
    forwards_in_time,
    paired,
    random_like,
    shapes_of,
    state_shapes,
)

T, B, K, H = 6, 2, 3, 4
ON_A_CPU = "fused on a CPU"
METHODS = {
    "scan": {False: jrnn.scan(), True: jrnn.scan()},
    "bptt": {False: jrnn.bptt(chunk=4), True: jrnn.bptt(chunk=2, remat=1)},
    "associative": {
        False: jrnn.associative(chunk=4),
        True: jrnn.associative(chunk=2),
    },
    "newton": {False: jrnn.newton(), True: jrnn.newton(chunk=4)},
    "fused": {
        False: jrnn.fused(platform="cuda", interpret=True),
        True: jrnn.fused(platform="tpu", interpret=True),
    },
    ON_A_CPU: dict.fromkeys((False, True), jrnn.fused(platform="cpu")),
}

# They differ from another cell only in the projection of inputs, or in the output.
VARIANTS = {
    "min_gru positive",
    "rg_lru without projection",
    "sru highway",
    "antisymmetric_rnn gated",
    "co_rnn implicit",
}

REGISTRY = {case.name: case.make for case in CELLS if case.name not in VARIANTS}
REGISTRY |= {
    "residual lstm": lambda k, h: jrnn.residual(jrnn.lstm(k, k)),
    "zoneout lstm": lambda k, h: jrnn.wrappers.zoneout(jrnn.lstm(k, h), (0.3, 0.4)),
    "zoneout gru before": lambda k, h: jrnn.wrappers.zoneout(
        jrnn.gru(k, h, reset_after=False), 0.3
    ),
    "variational lstm": lambda k, h: jrnn.wrappers.variational_dropout(
        jrnn.lstm(k, h), 0.4
    ),
    "variational gru": lambda k, h: jrnn.wrappers.variational_dropout(
        jrnn.gru(k, h), 0.4
    ),
    "variational lstm projection": lambda k, h: jrnn.wrappers.variational_dropout(
        jrnn.lstm(k, h, projection_size=2), 0.4
    ),
    "learnable gru": lambda k, h: jrnn.wrappers.learned_initial_state(jrnn.gru(k, h)),
    "learnable lstm peepholes": lambda k, h: jrnn.wrappers.learned_initial_state(
        jrnn.lstm(k, h, peepholes=True)
    ),
    "zoneout min_gru": lambda k, h: jrnn.wrappers.zoneout(
        jrnn.cells.min_gru(k, h), 0.3
    ),
    "learnable lru": lambda k, h: jrnn.wrappers.learned_initial_state(
        jrnn.cells.lru(k, h)
    ),
    "orthogonal elman identity": lambda k, h: jrnn.wrappers.orthogonal(
        jrnn.elman(k, h, activation=jrnn.activations.linear)
    ),
    "bidirectional product": lambda k, h: jrnn.bidirectional(
        jrnn.gru(k, h), jrnn.elman(k, h), merge=jrnn.wrappers.product_merge
    ),
    "skip connections": lambda k, h: jrnn.wrappers.skip_connections(
        jrnn.gru(k, h), jrnn.elman(k + h, h)
    ),
}
# The cells that a method does not run, with any feature; it runs all others.
LINEAR = {
    "elman identity",
    "min_gru",
    "min_lstm",
    "lru",
    "rg_lru",
    "rg_lru unscaled start",
    "s5",
    "s5 irregular",
    "sru",
    "zoneout min_gru",
    "learnable lru",
    "orthogonal elman identity",
    "feedforward",
}
GATED = {
    "elman",
    "elman relu",
    "elman sigmoid",
    "elman identity",
    "elman sin",
    "lstm",
    "lstm no bias",
    "gru",
    "gru no bias",
    "antisymmetric_rnn",
    "residual lstm",
    "learnable gru",
    "orthogonal elman identity",
    "bidirectional product",
    "feedforward",
    "skip connections",
}
COMPLEX = {"lru", "s5", "s5 irregular", "learnable lru"}
REFUSED = {("associative", name) for name in REGISTRY if name not in LINEAR}
REFUSED |= {("newton", name) for name in COMPLEX}
REFUSED |= {
    (method, name)
    for method in ("fused", ON_A_CPU)
    for name in REGISTRY
    if name not in GATED
}


AXES = {
    "cell": tuple(REGISTRY),
    "method": tuple(METHODS),
    "direction": ("forward", "reverse", "bidirectional"),
    "structure": ("plain", "stacked", "dropout"),
    "checkpoints": (False, True),
    "loss": ("outputs", "final", "both"),
    "state": ("zeros", "given"),
    "data": ("none", "lengths", "resets", "mask", "lengths and resets"),
}
SHAPING = ("cell", "method", "direction", "structure", "checkpoints")


class Data(NamedTuple):
    """The arguments of a compiled function, the same for all combinations."""

    params: Any
    state: Any
    xs: jax.Array
    lengths: jax.Array
    resets: jax.Array
    mask: jax.Array
    dys: jax.Array
    dstate: Any
    key: Any


def covering(strength: int, axes: dict[str, tuple]) -> list[dict]:
    """Returns combinations in which every `strength` axes take every joint value.

    It first covers the axes that shape the compiled function, then adds the others to
    these shapes, so that few functions are compiled.
    """
    shaping = {name: values for name, values in axes.items() if name in SHAPING}
    shapes = _cover(strength, shaping, [{}])
    return _cover(strength, axes, shapes)


def _cover(strength: int, axes: dict[str, tuple], pool: list[dict]) -> list[dict]:
    """Covers greedily; every row extends one of the pool."""
    rng = np.random.default_rng(0)
    groups = list(itertools.combinations(axes, strength))
    joint = [
        tuple(zip(group, values, strict=True))
        for group in groups
        for values in itertools.product(*(axes[name] for name in group))
    ]
    missing = {values: None for values in joint if accepted(dict(values))}
    rows = []
    while missing:
        wanted = dict(next(iter(missing)))
        fitting = [
            base
            for base in pool
            if all(base.get(name, value) == value for name, value in wanted.items())
            and accepted({**base, **wanted})
        ]
        row = {**fitting[rng.integers(len(fitting))], **wanted}
        for name, values in axes.items():
            if name not in row:
                values = [v for v in values if accepted({**row, name: v})]
                gains = [
                    _gain({**row, name: value}, name, groups, missing)
                    for value in values
                ]
                best = np.flatnonzero(np.array(gains) == max(gains))
                row[name] = values[rng.choice(best)]
        for group in groups:
            missing.pop(tuple((name, row[name]) for name in group), None)
        rows.append({name: row[name] for name in axes})
    return rows


def accepted(row: dict) -> bool:
    """Returns whether the method of a row runs its cell; True if one is missing."""
    return (row.get("method"), row.get("cell")) not in REFUSED


def _gain(row: dict, name: str, groups: list, missing: dict) -> int:
    """Returns the number of missing combinations that the value of `name` adds."""
    return sum(
        tuple((n, row[n]) for n in group) in missing
        for group in groups
        if name in group and all(n in row for n in group)
    )


def build(name: str, structure: str, direction: str) -> jrnn.Cell:
    """Returns the cell of a combination, stacked, wrapped or in both directions."""
    make = REGISTRY[name]

    def one() -> jrnn.Cell:
        cell = make(K, H)
        if structure == "stacked":
            # A layer does not pass elapsed time to the one above it.
            above = REGISTRY["s5"] if cell.elapsed is not None else make
            return jrnn.stack(cell, above(cell.spec.output_size, H))
        return jrnn.dropout(cell, 0.4) if structure == "dropout" else cell

    return jrnn.bidirectional(one(), one()) if direction == "bidirectional" else one()


def draw_params(cell: jrnn.Cell, name: str) -> Any:
    """Returns non-symmetric weights and non-zero biases, the same on every run."""
    return random_like(zlib.crc32(name.encode()), shapes_of(cell.init), 0.5)


def data_of(combination: dict) -> tuple[jrnn.Cell, Data]:
    """Returns the cell and the data of a combination."""
    names = [combination[axis] for axis in ("cell", "structure", "direction")]
    cell = build(*names)
    params = draw_params(cell, " ".join(names))
    state = random_like(2, state_shapes(cell, params, (B,)))
    rng = np.random.default_rng(3)
    lengths, resets = np.full(B, T), np.zeros((T, B), bool)
    mask = np.ones((T, B), bool)
    if "lengths" in combination["data"]:
        lengths = np.array([4, 6])
    if "resets" in combination["data"]:
        resets = rng.random((T, B)) < 0.4
        resets[:, 0] |= np.arange(T) == 2
    if combination["data"] == "mask":
        mask = rng.random((T, B)) < 0.6
    zero = jax.tree.map(jnp.zeros_like, state)
    xs = random_like(6, jax.ShapeDtypeStruct((T, B, K), "float64"))
    dys = random_like(4, jax.ShapeDtypeStruct((T, B, cell.spec.output_size), "float64"))
    dstate = random_like(5, state)
    return cell, Data(
        params=params,
        state=zero if combination["state"] == "zeros" else state,
        xs=forwards_in_time(cell, xs),
        lengths=jnp.asarray(lengths),
        resets=jnp.asarray(resets),
        mask=jnp.asarray(mask),
        dys=jnp.zeros_like(dys) if combination["loss"] == "final" else dys,
        dstate=zero if combination["loss"] == "outputs" else dstate,
        key=jax.random.key(7),
    )


def weigh(last: Any, ys: jax.Array, data: Data) -> jax.Array:
    """Returns the loss: outputs and final state times the weights in the data."""
    return (ys * data.dys).sum() + paired(last, data.dstate)


def differentiated(run: Any) -> Any:
    """Returns data -> ((final state, outputs), gradients of params, state and xs)."""

    def loss(leaves: tuple, data: Data) -> Any:
        params, state, xs = leaves
        last, ys = run(data._replace(params=params, state=state, xs=xs))
        return weigh(last, ys, data), (last, ys)

    def both(data: Data) -> Any:
        leaves = data.params, data.state, data.xs
        (_, shown), gradients = jax.value_and_grad(loss, has_aux=True)(leaves, data)
        return shown, gradients

    return both


@functools.cache
def by_method(cell: jrnn.Cell, method: str, direction: str, checkpoints: bool) -> Any:
    """Returns the compiled function of a combination, using the library."""

    def run(data: Data) -> Any:
        return jrnn.unroll(
            cell,
            data.params,
            data.xs,
            data.state,
            lengths=data.lengths,
            resets=data.resets,
            mask=data.mask,
            reverse=direction == "reverse",
            key=jax.random.clone(data.key),  # read again by the loop
            method=METHODS[method][checkpoints],
        )

    outside = checkpoints and method != "bptt"
    return jax.jit(differentiated(jax.checkpoint(run) if outside else run))


def by_loop(cell: jrnn.Cell, direction: str) -> Any:
    """Returns the same function as a Python loop of `step`; compiles only the step."""

    def run(data: Data) -> Any:
        key = jax.random.clone(data.key)
        noise = None if cell.noise is None else cell.noise(key, T, (B,))
        reverse = direction == "reverse"
        return whole(cell, data.params, data.state, data, noise, reverse)

    return differentiated(run)


def whole(
    cell: jrnn.Cell, params: Any, state: Any, data: Data, noise: Any, reverse: bool
) -> Any:
    """Runs a cell; the cells inside one that reads both ways one after another."""
    children = cell.children
    if not reads_ahead(cell):
        return loop(cell, params, state, data, noise, reverse)
    if not children.nested:  # dropout of what is read
        if noise is not None:
            xs, noise = children.inputs(data.xs, noise)
            data = data._replace(xs=xs)
        return whole(children.cells[0], params, state, data, noise, reverse)
    lasts, ys = [], []
    for i, child in enumerate(children.cells):
        drawn = None if noise is None else noise[i]
        turned = reverse ^ (children.parallel and i == 1)
        last, y = whole(child, params[i], state[i], data, drawn, turned)
        lasts.append(last)
        ys.append(y)
        data = data if children.parallel else data._replace(xs=y)
    if not children.parallel:
        return tuple(lasts), ys[-1]
    product = dict(cell.spec.arguments)["merge"] is jrnn.wrappers.product_merge
    return tuple(lasts), ys[0] * ys[1] if product else jnp.concatenate(ys, axis=-1)


@functools.cache
def stepper(cell: jrnn.Cell) -> Any:
    """Returns the cell's step, compiled."""
    return jax.jit(cell.step)


def loop(
    cell: jrnn.Cell, params: Any, state: Any, data: Data, noise: Any, reverse: bool
) -> Any:
    """Runs a cell in one direction, with the semantics written out step by step."""
    initial, ys, step = cell.init_state(params, (B,)), [None] * T, stepper(cell)

    def where(flags: jax.Array, new: Any, old: Any) -> Any:
        over = lambda leaf: flags.reshape(flags.shape + (1,) * (leaf.ndim - 1))
        return jax.tree.map(lambda a, b: jnp.where(over(a), a, b), new, old)

    for t in reversed(range(T)) if reverse else range(T):
        # In reverse, the segment that begins at t + 1 has just ended.
        marked = t + 1 if reverse else t
        if marked < T:
            starts = data.resets[marked] & (marked < data.lengths)
            state = where(starts, initial, state)
        drawn = None if noise is None else jax.tree.map(lambda a, t=t: a[t], noise)
        new, y = step(params, state, data.xs[t], drawn)
        active = (t < data.lengths) & data.mask[t]
        state = where(active, new, state)
        ys[t] = where(active, y, jnp.zeros_like(y))
    return state, jnp.stack(ys)


FEATURES = (
    "lengths",
    "resets",
    "mask",
    "reverse",
    "bidirectional",
    "stack",
    "dropout",
    "checkpoints",
    "starting state",
    "final state",
)


def table() -> str:
    """Returns the committed table, docs/support.md: which methods run which cell."""
    head = [
        "# Which methods run which cell",
        "",
        "The table is that of `tests/matrix.py`, tested by the gradient matrix:",
        "outputs and all gradients equal a Python loop of `step`, in float64, to 1e-9.",
        "A method that runs a cell runs it with every feature:",
        f"{', '.join(FEATURES[:-1])}",
        f"and {FEATURES[-1]}. A method that is not listed for a cell",
        "raises an error that names the methods to use instead.",
        "",
        "`scan` and `bptt` run everything; `associative` every cell that is linear in",
        "its state; `newton` every cell with a real state; `fused` every cell whose",
        "gates are elementwise in one product with its state. Of `fused` the kernel",
        "for CPUs runs here, and JAX interprets those for GPUs and TPUs, which run in",
        "float32 or bfloat16 ([kernels.md](kernels.md)). Checkpoints are",
        "`bptt(remat=...)` for `bptt`, and `jax.checkpoint` around the other methods.",
        "",
        "| cell | methods |",
        "|---|---|",
    ]
    told = [method for method in METHODS if method != ON_A_CPU]  # as fused is
    runs = lambda name: ", ".join(m for m in told if (m, name) not in REFUSED)
    return "\n".join([*head, *(f"| {name} | {runs(name)} |" for name in REGISTRY), ""])

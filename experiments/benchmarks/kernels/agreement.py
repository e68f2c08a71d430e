"""Does every method give the numbers of a scan, on this machine?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from experiments.benchmarks.kernels.systems import Rows, failure
from experiments.lab.errors import normwise
from jrnn.core.seams import packed_product

# TF32 and bfloat16 keep 10 and 7 bits: this tells another function, not rounding.
AGREE = 0.1
# Outputs and gradients of a scan in float32, with products at full precision.
EXACT = 1e-4

METHODS = {
    "bptt": jrnn.bptt(precision="highest"),
    "bptt remat": jrnn.bptt(chunk=16, remat=1, precision="highest"),
    "newton": jrnn.newton(),
    "associative": jrnn.associative(),
    "associative kernel": jrnn.associative(kernel="cuda"),
    "fused": jrnn.fused(precision="highest"),
    "fused in TF32": jrnn.fused(precision="tensorfloat32"),
}


class Compared(NamedTuple):
    """A cell that every method runs; `mapped`: by `vmap` over three batches."""

    name: str
    size: int
    B: int
    dtype: str = "float32"
    mapped: bool = False


# A matrix that stays in one program; that several share, for one block of rows and for
# blocks at the same time and in turn; with 64 columns each and 32; read at each step.
COMPARED = (
    Compared("elman", 40, 3),
    Compared("gru", 40, 3),
    Compared("lstm", 40, 3),
    Compared("elman", 256, 3),
    Compared("gru", 200, 17),
    Compared("gru", 200, 3, mapped=True),
    Compared("lstm", 256, 300),
    Compared("lstm", 512, 200),
    Compared("lstm", 768, 32),
    Compared("lstm", 768, 16, "bfloat16"),
    Compared("lstm", 1024, 16),
    Compared("lru", 64, 3),
    Compared("min_gru", 64, 3),
)


def agree(case: Compared) -> Rows:
    """How far every method is from a scan, outputs and gradients, on this machine.

    With lengths, resets, a mask and a state to begin with.
    """
    T, B = 60, case.B
    cell = getattr(jrnn.cells, case.name)(5, case.size)
    params = cell.init(jax.random.key(0), case.dtype)
    batches = (3,) if case.mapped else ()
    xs = jax.random.normal(jax.random.key(1), (*batches, T, B, 5), case.dtype)
    state = jax.tree.map(lambda leaf: leaf + 0.1, cell.init_state(params, (B,)))
    flags: dict[str, Any] = {
        "lengths": jnp.arange(B) * T // B + 1,
        "resets": jax.random.bernoulli(jax.random.key(2), 0.05, (T, B)),
        "mask": jax.random.bernoulli(jax.random.key(3), 0.9, (T, B)),
    }

    def result(method: jrnn.Method) -> list[np.ndarray]:
        def loss(params: Any, xs: Any, state: Any) -> Any:
            run = lambda xs: jrnn.unroll(
                cell, params, xs, state, method=method, **flags
            )[1].astype(jnp.float32)
            ys = (jax.vmap(run) if case.mapped else run)(xs)
            return (ys * jnp.sin(jnp.arange(ys.shape[-1]))).sum(), ys

        run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
        with jax.default_matmul_precision("highest"):
            (_, ys), slopes = run(params, xs, state)
        found = (
            np.asarray(leaf, np.complex128) for leaf in jax.tree.leaves((ys, slopes))
        )
        return [np.stack([leaf.real, leaf.imag]) for leaf in found]

    what = f"{case.name} {case.size}, {B} sequences, {case.dtype}"
    what += ", by vmap" if case.mapped else ""
    expected, rows = result(jrnn.scan(precision="highest")), []
    for name, method in METHODS.items():
        linear = "associative" in name
        packed = cell.gated and packed_product(cell.gated, params, state)
        takes = cell.linear if linear else packed
        if not takes and (linear or "fused" in name):
            continue
        if name == "newton" and case.size > 64:
            continue  # its Jacobians are T B H^2 numbers
        try:
            found = result(method)
        except Exception as error:  # whatever it is, the others are compared
            rows.append(failure(what, name, error))
            continue
        off = max(map(normwise, found, expected))
        row = {"what": what, "pass": "agreement", "system": name}
        rows.append({**row, "difference": off})
        narrow = case.dtype != "float32" or "TF32" in name
        if not off <= (AGREE if narrow else EXACT):
            message = f"{off} off, outputs and gradients of a scan"
            rows.append(failure(what, name, ValueError(message)))
    return rows

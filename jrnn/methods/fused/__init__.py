"""One call for a whole sequence, for cells with one product: on CPUs and accelerators.

    u = project(params, xs)
    v_t = h_{t-1} W + b,  s_t = pointwise(s_{t-1}, u_t, v_t)          one call
    y = output(params, s_t, xs)

The backward pass is one call too, made of the cell's own pullback. The calls trace
`pointwise` and `pullback` of `Gated`, and get W and b; they contain no code for any
particular cell.

The module `cpu` has the rules for CPUs, where the call is C that is generated from the
cell, and `accelerators` those for GPUs and TPUs, where it is a Pallas kernel.
"""

import jax

from jrnn.core.cell import Cell, Params, State
from jrnn.core.countable import check_countable, check_fixed
from jrnn.core.memoize import memoize
from jrnn.core.method import Method, Sequence, Shown, Wanted, all_at_once
from jrnn.core.products import Precision, check_precision, products_at
from jrnn.core.seams import packed_product
from jrnn.kernels._pallas import check_target, find_target
from jrnn.methods.bptt import bptt
from jrnn.methods.fused import accelerators, cpu

PLATFORMS = ("cpu", "cuda", "tpu")


@memoize
def fused(
    *,
    platform: str | None = None,
    interpret: bool = False,
    precision: Precision = None,
) -> Method:
    """Makes the method that runs a gated cell in one call for a whole sequence.

    For cells whose gates are elementwise in one product with the first field of their
    state (`Gated.product`). `vmap` works.

    On a CPU the call is C that is generated from the cell and compiled once for the
    machine, in float32 or float64. It has derivatives like `jrnn.bptt`: reverse mode,
    reverse over reverse, Hessians. Without a C compiler, or for gates with an operation
    that it cannot write in C, it warns, and runs the cell with `jrnn.bptt`. Programs
    that contain it cannot be exported, as the call exists on this machine alone.

    On a GPU or TPU it is a Pallas kernel, in float32, or with bfloat16 parameters and a
    float32 state; unmeasured on any accelerator. First derivatives, in reverse mode.

    Args:
      platform: "cpu", "cuda" or "tpu"; None: the default backend at tracing, so name it
        when you export for another machine.
      interpret: Whether JAX itself runs the kernels for accelerators step by step, on
        any machine and also in float64: for tests, and slow.
      precision: Of the matrix products, as `jax.default_matmul_precision` takes it;
        None: JAX's default. On a CPU the kernel's own products have the full precision
        of their type.

    Returns:
      A method for `jrnn.unroll` and `jrnn.trajectory`. They raise ValueError for a cell
      without such a product, for types without a kernel, and if the matrix does not fit
      a TPU's memory; `jrnn.bptt` has none of these limits.

    Raises:
      ValueError: `platform` or `precision` is not one of the allowed values, or
        `interpret` is True for a CPU.

    Example:
      >>> import jax, jrnn
      >>> cell = jrnn.gru(3, 4)
      >>> params, xs = cell.init(jax.random.key(0)), jax.numpy.ones((5, 2, 3))
      >>> jrnn.unroll(cell, params, xs, method=jrnn.fused(interpret=True))[1].shape
      (5, 2, 4)
    """
    check_target(platform, interpret, "jrnn.fused()", known=PLATFORMS)
    check_precision(precision)
    if platform == "cpu" and interpret:
        raise ValueError(
            'Expected interpret=False for platform="cpu", whose kernel JAX cannot run, '
            "got True; take jrnn.bptt() to compare with."
        )
    options = (("platform", platform), ("interpret", interpret))
    return Method(_run, (*options, ("precision", precision)))


def _run(
    cell: Cell,
    wanted: Wanted,
    params: Params,
    state: State,
    sequence: Sequence,
    *,
    platform: str | None,
    interpret: bool,
    precision: Precision,
) -> tuple[State, Shown]:
    if not jax.tree.leaves(state):
        return all_at_once(cell, wanted, params, state, sequence, precision)
    packed = cell.gated and packed_product(cell.gated, params, state)
    if cell.gated is None or packed is None:
        raise ValueError(
            "Expected a cell whose gates are elementwise in one product with its "
            f"state, such as jrnn.lstm, for jrnn.fused(), got {cell}; run it with "
            "jrnn.bptt()."
        )
    check_fixed(jax.tree.leaves(sequence.xs)[0].shape, "jrnn.fused()")
    check_countable(sequence.steps, "jrnn.fused()", wide=False)
    target = find_target(platform, interpret)
    with products_at(precision):
        if target.platform == "cpu":
            if cpu.serves(cell, state, packed):
                return cpu.run(cell, wanted, params, state, sequence, packed)
            method = bptt(precision=precision)
            return method.run(
                cell, wanted, params, state, sequence, **dict(method.options)
            )
        return accelerators.run(
            cell, wanted, params, state, sequence, packed, target, precision
        )

"""The time that a step's matrix products take when nothing stands between them.

Forwards: x_t W_x of all steps in one product, and h W_h once for each step, one after
the other, as the recurrence demands. Backwards: dv_t W_h^T once for each step, and one
product each for the gradients of W_x, W_h and the inputs. A guide and not a bound:
inside a whole program a compiler may lay the same products better, or overlap them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.problems import GATES, TRAINING, Problem


def products_alone(problem: Problem, which: str) -> Callable[[], Any]:
    """Returns a compiled, warm run of the products of one pass."""
    H, gates = problem.shape.H, GATES[problem.cell]
    W_x, W_h, xs = map(jnp.asarray, (*problem.weights[:2], problem.xs))

    def forward(W_x: Any, W_h: Any, xs: Any) -> tuple[Any, Any]:
        us = xs @ W_x

        def step(h: Any, u: Any) -> tuple[Any, Any]:
            v = h @ W_h
            # Something of every step must enter the next, and be kept, lest the
            # compiler drop it; a slice is the least.
            return v[:, :H] + u[:, :H], v[:, :H]

        start = jnp.zeros((xs.shape[1], H), xs.dtype)
        return jax.lax.scan(step, start, us)

    def both(W_x: Any, W_h: Any, xs: Any) -> Any:
        h, hs = forward(W_x, W_h, xs)
        dvs = jnp.concatenate([hs] * gates, axis=-1)

        def back(dh: Any, dv: Any) -> tuple[Any, None]:
            return (dv + dh[:, :1]) @ W_h.T, None

        dh, _ = jax.lax.scan(back, h, dvs, reverse=True)
        steps = ((0, 1), (0, 1))
        dW_h, dW_x = (jnp.tensordot(a, dvs, axes=steps) for a in (hs, xs))
        return dh, dW_h, dW_x, dvs @ W_x.T

    run = jax.jit(both if which == TRAINING else forward)
    call = lambda: jax.block_until_ready(run(W_x, W_h, xs))
    call()
    return call

"""Runs `jrnn.fused()` on a pool of so many threads: `NPROC=4 python drive_teams.py`.

Eight callers run each problem at once, with fewer threads than tasks. Prints the number
of the pool's threads and, for each problem, a hash of its bits and the largest error.
"""

import concurrent.futures
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jrnn

# Cell, T, B, k, n. The third is split in rows alone, the others in units too, on a pool
# of four; the last two have one row, and so are split in units alone.
PROBLEMS = (
    (jrnn.lstm, 20, 8, 16, 512),
    (jrnn.gru, 70, 3, 40, 300),
    (jrnn.elman, 40, 13, 5, 33),
    (jrnn.elman, 40, 2, 5, 700),
    (jrnn.gru, 150, 1, 7, 270),
    (jrnn.lstm, 9, 1, 64, 384),
)


def gradients(cell, method):
    """The gradients of a loss on every output and on the final state, compiled."""

    def loss(params, xs, resets):
        state, ys = jrnn.unroll(cell, params, xs, resets=resets, method=method)
        return (ys**2).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(state))

    return jax.jit(jax.grad(loss, (0, 1)))


def answer(number):
    """The hash of a problem's bits, and its largest error beside the scan's."""
    factory, T, B, k, n = PROBLEMS[number]
    cell, keys = factory(k, n), jax.random.split(jax.random.key(number), 3)
    params = cell.init(keys[0])
    xs = jax.random.normal(keys[1], (T, B, k))
    given = params, xs, jax.random.bernoulli(keys[2], 0.1, (T, B))
    expected = gradients(cell, jrnn.scan())(*given)
    run = gradients(cell, jrnn.fused())
    run(*given)  # compiled once
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: run(*given), range(16)))
    bits = lambda tree: b"".join(np.asarray(leaf).tobytes() for leaf in tree)
    hashes = {hashlib.sha256(bits(jax.tree.leaves(one))).hexdigest() for one in found}
    if len(hashes) > 1:
        raise SystemExit(f"{len(hashes)} different results of problem {number}")
    scale = lambda a: jnp.max(jnp.abs(a)) + 1e-30
    error = jax.tree.map(lambda a, b: scale(a - b) / scale(b), found[0], expected)
    return hashes.pop(), float(jnp.max(jnp.stack(jax.tree.leaves(error))))  # or NaN


if __name__ == "__main__":
    jax.block_until_ready(jnp.zeros(3) + 1)  # the pool is there
    names = [p.read_text() for p in Path("/proc/self/task").glob("*/comm")]
    threads = sum(name.startswith("tf_XLAEigen") for name in names)
    print(json.dumps([threads, *map(answer, range(len(PROBLEMS)))]))

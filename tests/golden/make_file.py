"""Made file_1_*.safetensors, by the first version of `jrnn.save`.

    python -m tests.golden.make_file FOLDER

The files are kept as they are: newer versions must load them.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jrnn
from jrnn import heads, initializers, wrappers

MADE = {
    "cell": jrnn.stack(
        jrnn.bidirectional(
            jrnn.elman(3, 4, activation=jax.nn.relu),
            wrappers.zoneout(jrnn.lstm(3, 2, peepholes=True), (0.1, 0.2)),
        ),
        jrnn.dropout(jrnn.residual(jrnn.gru(6, 6, reset_after=False)), 0.5),
        wrappers.learned_initial_state(
            jrnn.cells.lru(6, 2, input_init=initializers.normal(0.1))
        ),
    ),
    "model": jrnn.sequence_model(
        jrnn.cells.s5(4, 3, blocks=3),
        heads.mixture(2, heads.discretised_logistic(0.0, 0.5, 7), 2, missing=True),
    ),
    "labels": jrnn.supervised_model(
        jrnn.elman(2, 3, activation=jnp.sin),
        jrnn.categorical(2),
        jrnn.models.mean_pool,
    ),
}


def params_of(made, dtype=np.float32):
    """Parameters that are the same everywhere: small integers over 8."""
    like = jax.eval_shape(lambda: made.init(jax.random.key(0)))
    leaves, structure = jax.tree.flatten(like)
    arrays = [
        (((np.arange(leaf.size) + i) % 17 - 8) / 8).reshape(leaf.shape).astype(dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, arrays)


if __name__ == "__main__":
    for name, made in MADE.items():
        path = Path(sys.argv[1]) / f"file_1_{name}.safetensors"
        jrnn.save(path, made, params_of(made), {"name": name})
        print(path, path.stat().st_size)

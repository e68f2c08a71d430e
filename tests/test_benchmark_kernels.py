"""The benchmark of kernels, as far as it can be checked without a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jrnn
from experiments.benchmarks import kernels
from experiments.benchmarks.peers.problems import Shape, Weights, make_problem
from experiments.benchmarks.peers.running import jax_runner
from tests.test_peers import plain

SMALL = Shape(5, 2, 3, 4)
__all__ = ["plain"]  # a fixture


def test_without_a_gpu_it_says_so_and_fails(tmp_path):
    with pytest.raises(
        SystemExit, match="Expected a GPU, got the backend 'cpu'"
    ) as end:
        kernels.main(["--linear-steps", "8", "--out", str(tmp_path / "kernels.json")])
    assert end.value.code != 0
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain")
def test_weights_are_packed_as_cudnn_has_them():
    weights = make_problem("lstm", SMALL).weights
    flat = kernels.cudnn_peer(SMALL).convert(Weights(*map(jnp.asarray, weights)))
    unpacked = rnn.unpack_lstm_weights(flat, SMALL.I, SMALL.H, 1, False)
    W_x, W_h, b, b_h = (np.asarray(each[0]) for each in unpacked)
    assert (weights.W_x == W_x.T).all()
    assert (weights.W_h == W_h.T).all()
    assert (weights.b == b).all()
    assert not b_h.any()


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_another_function_is_noticed_and_another_type_is_not():
    problem = make_problem("lstm", SMALL)
    run = lambda method, dtype: jax_runner(
        problem, kernels.jrnn_peer(SMALL, method, dtype)
    )
    kernel = jrnn.fused(interpret=True)
    found = {"bptt": run(jrnn.bptt(), "float32"), "fused": run(kernel, "bfloat16")}
    off = kernels.check(found)
    assert off["bptt"] == 0 < off["fused"]
    swapped = jax.tree.map(lambda leaf: leaf[::-1], problem.weights.W_h)
    wrong = problem._replace(weights=problem.weights._replace(W_h=swapped))
    peer = kernels.jrnn_peer(SMALL, jrnn.bptt(), "float32")
    with pytest.raises(ValueError, match="not the same function"):
        kernels.check({**found, "wrong": jax_runner(wrong, peer)})

"""ONNX by jax2onnx, run in onnxruntime: equal outputs in both directions.

Run in another process, because jax2onnx replaces functions of JAX while it converts.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = [n for n in ("jax2onnx", "onnxruntime") if not importlib.util.find_spec(n)]
CODE = """
import sys
import jax, jax.numpy as jnp, jrnn, numpy as np, onnxruntime
from jax2onnx import to_onnx

onnxruntime.set_default_logger_severity(4)
path, fixed = sys.argv[1], sys.argv[2:] == ["fixed"]
each = {
    "elman": (jrnn.elman(3, 4), False),
    "reversed lstm": (jrnn.lstm(3, 4), True),
    "both": (jrnn.bidirectional(jrnn.gru(3, 4), jrnn.lstm(3, 4)), False),
    "stack": (jrnn.stack(jrnn.gru(3, 4), jrnn.residual(jrnn.gru(4, 4))), False),
}
for name, (cell, reverse) in each.items():
    method = jrnn.bptt() if fixed else jrnn.scan()
    params = cell.init(jax.random.key(0))
    run = lambda xs: jrnn.unroll(cell, params, xs, reverse=reverse, method=method)[1]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(t, 2, 3)).astype("f4") for t in ((7,) if fixed else (7, 19))]
    truths = [np.asarray(run(xs)) for xs in inputs]
    jax.clear_caches()
    shape = (7 if fixed else "t", 2, 3)
    to_onnx(run, inputs=[shape], return_mode="file", output_path=path)
    jax.clear_caches()
    session = onnxruntime.InferenceSession(path)
    for xs, truth in zip(inputs, truths, strict=True):
        (found,) = session.run(None, {session.get_inputs()[0].name: xs})
        error = np.abs(found - truth).max() / np.abs(truth).max()
        assert error < 2e-6, (name, xs.shape, error)
"""  # noqa: E501 one line


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.parametrize("sizes", [["any"], ["fixed"]], ids=str)
def test_onnxruntime_gives_the_same_outputs(sizes, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "it.onnx"), *sizes],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]

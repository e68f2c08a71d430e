"""Exported programs: equal results in a process that has jax and flatbuffers alone."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import heads
from jrnn.interop.export.functions import Flat
from jrnn.interop.export.signature import readme
from jrnn.interop.files import FileError
from jrnn.interop.files.tensors import named
from tests.helpers import assert_close, random_like

KEY = jax.random.key(0)
ALONE = """
import sys

class Refuse:
    blocked = "chex flax jaxtyping jrnn optax orbax safetensors".split()

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Refuse())
"""
# Calls a function, differentiates it by its parameters and state, and saves all.
CALLED = """
given = np.load("given.npz")
state = {name: jnp.asarray(given["state " + name]) for name in state}
xs, lengths = jnp.asarray(given["xs"]), jnp.asarray(given["lengths"])
loss = lambda params, state: (unroll(params, state, xs, lengths)[1] ** 2).sum()
after, ys = unroll(params, state, xs, lengths)
of_params, of_state = jax.grad(loss, (0, 1))(params, state)
found = {"ys": ys} | {"after " + n: a for n, a in after.items()}
found |= {"params " + n: a for n, a in of_params.items()}
found |= {"state " + n: a for n, a in of_state.items()}
start = jax.export.deserialize(bytearray(open("it/start.jax", "rb").read())).call

def whole(params):
    state = {name: jnp.stack([one] * 2) for name, one in start(params).items()}
    return loss(params, state)

found |= {"whole " + n: a for n, a in jax.grad(whole)(params).items()}
np.savez("found.npz", **found)
"""


def params_of(made, dtype=jnp.float64, seed=0):
    like = jax.eval_shape(lambda: made.init(jax.random.clone(KEY), dtype))
    return random_like(seed, like, 0.5)


def run_alone(code, folder):
    run = subprocess.run(
        [sys.executable, "-c", ALONE + code],
        cwd=folder,
        env={n: v for n, v in os.environ.items() if n != "JAX_ENABLE_X64"},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def code_in(text):
    """The program that ends a README.txt."""
    return textwrap.dedent(text.split("flatbuffers:\n")[1])


@pytest.mark.longer
def test_a_process_without_jrnn_runs_and_trains_it(tmp_path):
    cell = jrnn.wrappers.learned_initial_state(jrnn.gru(3, 2))
    params = params_of(cell)
    exported = jrnn.export(cell, params, tmp_path / "it", vjp_order=1)
    assert (tmp_path / "it" / "README.txt").read_text("utf-8") == repr(exported)
    state = cell.init_state(params, (2,))
    state = random_like(1, state)
    xs, lengths = random_like(2, jnp.ones((7, 2, 3))), jnp.array([7, 3], jnp.int32)
    given = {f"state {n}": a for n, a in named(state).items()}
    np.savez(tmp_path / "given.npz", xs=xs, lengths=lengths, **given)
    run_alone(code_in(exported.text) + CALLED, tmp_path)
    found = np.load(tmp_path / "found.npz")

    def run(params, state):
        return jrnn.unroll(cell, params, xs, state, lengths=lengths)

    after, ys = run(params, state)
    loss = lambda params, state: (run(params, state)[1] ** 2).sum()
    of_params, of_state = jax.grad(loss, (0, 1))(params, state)
    expected = {"ys": ys} | {f"after {n}": a for n, a in named(after).items()}
    expected |= {f"params {n}": a for n, a in named(of_params).items()}
    expected |= {f"state {n}": a for n, a in named(of_state).items()}
    of_whole = jax.grad(lambda params: loss(params, None))(params)
    assert np.abs(jax.tree.leaves(of_whole.state)[0]).max() > 1e-3
    expected |= {f"whole {n}": a for n, a in named(of_whole).items()}
    assert set(found.files) == set(expected)
    for name, array in expected.items():
        assert_close(jnp.asarray(found[name]), array, 1e-12)


def loaded(folder, name):
    raw = (folder / f"{name}.jax").read_bytes()
    return jax.export.deserialize(bytearray(raw))


def arrays_in(folder, name):
    found = np.load(folder / f"{name}.npz")
    return {n: jnp.asarray(found[n]) for n in found.files}


@pytest.mark.longer
@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)]
)
def test_step_of_a_cell(dtype, tmp_path):
    cell = jrnn.cells.rg_lru(3, 4)  # whose state does not start at 0
    params = params_of(cell, dtype)
    jrnn.export(cell, params, tmp_path / "it", platforms=["cpu"])
    step = loaded(tmp_path / "it", "step")
    assert step.platforms == ("cpu",)
    like = jax.tree.unflatten(step.in_tree, step.in_avals)[0]
    flat = arrays_in(tmp_path / "it", "params")
    flat = {n: a.astype(like[0][n].dtype) for n, a in flat.items()}
    assert_close(flat, Flat(params).flatten(params), 0)
    start = arrays_in(tmp_path / "it", "state")
    state = {n: jnp.stack([a] * 3) for n, a in start.items()}
    x = random_like(1, jnp.ones((3, 3), jnp.float32))
    truth = cell.step(params, cell.init_state(params, (3,)), x)
    after, y = step.call(flat, state, x)
    assert_close((after, y), (named(truth[0]), truth[1]), 1e-6)


@pytest.mark.slow
def test_what_cannot_step_has_no_step(tmp_path):
    cell = jrnn.bidirectional(jrnn.elman(3, 2), jrnn.elman(3, 2))
    told = jrnn.export(cell, params_of(cell), tmp_path, platforms=["cpu"])
    others = ["README.txt", "params.npz", "signature.json", "start.jax", "state.npz"]
    assert sorted(os.listdir(tmp_path)) == [*others, "unroll.jax"]
    assert "step(" not in told.text


def test_the_signature(tmp_path):
    cell = jrnn.elman(3, 4)
    params = params_of(cell, jnp.float32)
    options = {"platforms": ("cpu", "tpu"), "steps": 5, "vjp_order": 0, "tokens": True}
    told = jrnn.export(cell, params, tmp_path / "it", **options)
    content = json.loads((tmp_path / "it" / "signature.json").read_text("utf-8"))
    assert content["platforms"] == ["cpu", "tpu"]
    arguments = content["functions"]["unroll"]["arguments"]
    assert list(arguments) == ["params", "state", "xs", "lengths"]
    assert arguments["params"]["W_x"] == {"dtype": "float32", "shape": [3, 4]}
    assert arguments["xs"] == {"dtype": "int32", "shape": [5, "b"]}
    results = content["functions"]["unroll"]["results"]
    assert results["ys"] == {"dtype": "float32", "shape": [5, "b", 4]}
    assert "  t  " not in told.text
    code = code_in(readme('my "model"', content))
    assert "'my \"model\"/'" in code
    compile(code, "README.txt", "exec")
    assert "  b              number of sequences" in told.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "size", "known"),
    [
        (jrnn.categorical(4), 4, 0),
        (heads.mixture(2, heads.gaussian_kernel, 2, missing=True), 4, 2),
        (jrnn.gaussian(), 1, 0),
    ],
)
def test_a_sequence_model(head, size, known, tmp_path):
    model = jrnn.sequence_model(jrnn.gru(size + known, 3), head, inputs=known)
    params = params_of(model)
    told = jrnn.export(model, params, tmp_path / "it").text
    assert "number of steps, 2 or more; for one step call step" in told
    run = lambda name, *given: loaded(tmp_path / "it", name).call(*given)
    flat = arrays_in(tmp_path / "it", "params")
    start = arrays_in(tmp_path / "it", "state")
    state = {n: jnp.stack([a] * 2) for n, a in start.items()}
    rng = np.random.default_rng(0)
    tokens = head.family.values == "ids"
    xs = rng.integers(0, 4, (5, 2)) if tokens else rng.normal(size=(5, 2))
    if head.event_shape:
        xs = rng.normal(size=(5, 2, *head.event_shape))
    xs = jnp.asarray(xs, jnp.int32 if tokens else None)
    mask = [jnp.asarray(rng.random(xs.shape) < 0.7)] if head.missing else []
    lengths = jnp.array([5, 3], jnp.int32)
    inputs = [jnp.asarray(rng.normal(size=(5, 2, known)))] if known else []
    now = [z[0] for z in inputs]
    options = {"mask": mask[0]} if mask else {}
    options |= {"inputs": inputs[0]} if known else {}
    here = {"inputs": now[0]} if known else {}
    after, log_probs = model.log_prob(params, xs, lengths=lengths, **options)
    moved, found = run("log_prob", flat, state, xs, lengths, *mask, *inputs)
    assert_close((moved, found), (named(after), log_probs), 1e-12)
    first = {"mask": mask[0][0]} if mask else {}
    stepped = model.step(params, after, xs[0], **first, **here)
    found = run("step", flat, moved, xs[0], *(m[0] for m in mask), *now)
    assert_close(found, (named(stepped[0]), stepped[1]), 1e-12)
    predicted = model.predict(params, after, **here)
    told = Flat(predicted.parameters, "log_probs").flatten(predicted.parameters)
    assert_close(run("predict", flat, moved, *now), told, 1e-12)
    assert_close(run("start", flat), start, 1e-12)
    key = jax.random.key(3)
    drawn = predicted.sample(key, jnp.ones(2, jnp.float32))
    given = jax.random.key_data(key), jnp.ones(2, jnp.float32), *now
    next_, x = run("sample", flat, moved, *given)
    assert_close(x, drawn, 1e-12)
    assert_close(next_, named(model.step(params, after, drawn, **here)[0]), 1e-12)


MODEL = jrnn.sequence_model(jrnn.elman(3, 2), jrnn.categorical(3))


@pytest.mark.slow
def test_a_sequence_model_of_fixed_steps(tmp_path):
    params = params_of(MODEL)
    jrnn.export(MODEL, params, tmp_path / "it", platforms=["cpu"], steps=4)
    flat, start = (arrays_in(tmp_path / "it", name) for name in ("params", "state"))
    state = {n: jnp.stack([a] * 3) for n, a in start.items()}
    xs = jnp.array([[0, 1, 2], [2, 1, 0], [1, 1, 2], [0, 0, 1]], jnp.int32)
    lengths = jnp.array([4, 2, 3], jnp.int32)
    log_prob = loaded(tmp_path / "it", "log_prob")
    after, log_probs = MODEL.log_prob(params, xs, lengths=lengths)
    found = log_prob.call(flat, state, xs, lengths)
    assert_close(found, (named(after), log_probs), 1e-12)


@pytest.mark.slow
def test_a_supervised_model(tmp_path):
    cell = jrnn.bidirectional(jrnn.gru(3, 2), jrnn.gru(3, 2))
    model = jrnn.supervised_model(cell, jrnn.categorical(2), jrnn.models.mean_pool)
    params = params_of(model)
    jrnn.export(model, params, tmp_path / "it", method=jrnn.scan())
    xs, lengths = random_like(2, jnp.ones((6, 3, 3))), jnp.array([6, 1, 4], jnp.int32)
    flat = arrays_in(tmp_path / "it", "params")
    found = loaded(tmp_path / "it", "predict").call(flat, xs, lengths)
    truth = model.predict(params, xs, lengths=lengths).parameters
    assert_close(found["log_probs"], truth, 1e-12)


class TestRefused:
    CELL = jrnn.elman(2, 3)
    PARAMS = params_of(jrnn.elman(2, 3), jnp.float32)

    def test_what_is_not_exported(self, tmp_path):
        chain = jrnn.markov_chain(2, 1)
        given = {"chain": (chain, chain.fit(np.array([0, 1, 1])))}
        head = jrnn.categorical(2)
        given["head"] = head, head.init(jax.random.clone(KEY), 3)
        for made, params in given.values():
            with pytest.raises(TypeError, match="whose functions are not exported"):
                jrnn.export(made, params, tmp_path / "it")
        assert os.listdir(tmp_path) == []

    def test_one_step_of_a_log_prob(self, tmp_path):
        with pytest.raises(ValueError, match="steps to be at least 2 .*call its step"):
            jrnn.export(MODEL, params_of(MODEL), tmp_path / "it", steps=1)

    def test_64_bits_that_jax_would_narrow(self, tmp_path):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, float), self.PARAMS)
        jax.config.update("jax_enable_x64", False)
        try:
            with pytest.raises(FileError, match="Expected 64-bit types to be on for"):
                jrnn.export(self.CELL, params, tmp_path / "it", platforms=["cpu"])
        finally:
            jax.config.update("jax_enable_x64", True)
        assert os.listdir(tmp_path) == []

    def test_methods_that_need_fixed_sizes(self, tmp_path):
        method = jrnn.newton()
        with pytest.raises(ValueError, match="got the symbol t; take jrnn.bptt"):
            jrnn.export(self.CELL, self.PARAMS, tmp_path / "it", method=method)
        assert os.listdir(tmp_path) == []

    def test_folders_of_others(self, tmp_path):
        (tmp_path / "it").mkdir()
        (tmp_path / "file").write_text("a", encoding="utf-8")
        for name in ("a", "signature.json"):
            (tmp_path / "it" / name).write_text("{}", encoding="utf-8")
        for name in ("it", "file"):
            with pytest.raises(FileError, match="a folder of jrnn.export to replace"):
                self.export(tmp_path / name)
        assert sorted(os.listdir(tmp_path / "it")) == ["a", "signature.json"]
        assert sorted(os.listdir(tmp_path)) == ["file", "it"]

    def export(self, path):
        return jrnn.export(self.CELL, self.PARAMS, path, platforms=["cpu"], steps=2)

    def test_a_folder_of_ours_is_replaced(self, tmp_path):
        self.export(tmp_path / "new" / "it")
        (tmp_path / "new" / "it" / "old").touch()
        self.export(tmp_path / "new" / "it")
        assert os.listdir(tmp_path / "new") == ["it"]
        assert "old" not in os.listdir(tmp_path / "new" / "it")

    def test_without_flatbuffers(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "flatbuffers", None)
        with pytest.raises(ModuleNotFoundError, match="Run: pip install flatbuffers"):
            self.export(tmp_path / "it")

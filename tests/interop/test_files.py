"""Files of cells, heads and models: everything comes back, in every type."""

import inspect
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jrnn
from jrnn import heads, initializers
from jrnn.interop import files
from jrnn.interop.files import FileError, names
from tests.contracts.test_pickling import MADE, leaky, own
from tests.head_registry import HEADS
from tests.helpers import RELATIVES

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(0)
GRU = jrnn.residual(jrnn.gru(4, 4))
# A kernel is a part of a head, without parameters.
KNOWN = {name: made for name, made in MADE.items() if name != "kernel"}
KNOWN |= {f"head {case.name}": case.make() for case in HEADS}
KNOWN |= {f"head {case.name} missing": case.make(missing=True) for case in HEADS[:3]}
KNOWN |= {
    "initialisers without a default": jrnn.lstm(
        3,
        4,
        input_init=initializers.normal(0.1),
        recurrent_init=initializers.spectral_radius(0.9, initializers.orthogonal),
        bias_init=jax.nn.initializers.ones,
    ),
    "stack of stacks": jrnn.stack(
        jrnn.bidirectional(jrnn.stack(jrnn.gru(3, 4), GRU), jrnn.cells.lru(3, 2)),
        jrnn.cells.s5(7, 4, blocks=2),
    ),
    "supervised per step": jrnn.supervised_model(jrnn.gru(2, 3), jrnn.gaussian(2)),
    "numbers": jrnn.sequence_model(
        jrnn.gru(4, 3), heads.mixture(2, heads.logistic_kernel, 2, missing=True)
    ),
    "autoregression": jrnn.models.linear_gaussian_markov(2, 3),
}
LAYER = jrnn.cells.stateless(3, jnp.tanh)  # which has no parameters
KNOWN |= {
    "stateless": LAYER,
    "stateless residual": jrnn.residual(LAYER),
    "stateless in both directions": jrnn.bidirectional(LAYER, jrnn.residual(LAYER)),
    "stack of stateless": jrnn.stack(LAYER, jrnn.dropout(jrnn.residual(LAYER), 0.5)),
}
MERGES = "add hypot logaddexp maximum minimum multiply subtract"
KNOWN |= {
    f"merge {name}": jrnn.bidirectional(
        jrnn.elman(2, 3), jrnn.elman(2, 3), getattr(jnp, name)
    )
    for name in MERGES.split()
}
SAVED = sorted(name for name in KNOWN if not name.startswith("generic"))


def params_of(made, dtype=np.float32, seed=0):
    """Parameters with values of every sign, without compiling anything."""
    if isinstance(made, jrnn.models.MarkovChain):
        return made.fit(np.array([0, 1, 2, 0, 2, 1, 1, 4, 3, 0, 1, 2]))
    if isinstance(made, jrnn.models.LinearGaussianMarkov):
        size = dict(made.spec.arguments)["size"]
        shape = (60,) if size is None else (60, size)
        return made.fit(np.random.default_rng(0).normal(size=shape))
    sizes = (5,) if isinstance(made, heads.Head) else ()
    like = jax.eval_shape(lambda: made.init(jax.random.clone(KEY), *sizes))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: np.asarray(rng.normal(size=leaf.shape), dtype)
    return jax.tree.map(draw, like)


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def slowly(name):
    """Variants of what the quick suite runs are slow."""
    slow = {f"head {case.name}" for case in HEADS if case.slow} | RELATIVES
    rare = name in slow or name.endswith(" missing") or name == "markov_chain"
    return pytest.param(name, marks=[pytest.mark.slow] if rare else [])


@pytest.mark.parametrize("name", [slowly(name) for name in SAVED])
def test_what_was_saved_comes_back(name, tmp_path):
    made = KNOWN[name]
    params = params_of(made)
    jrnn.save(tmp_path / "it", made, params)
    again, got = jrnn.load(tmp_path / "it")
    assert again is made
    assert_same(got, params)
    assert os.listdir(tmp_path) == ["it"]


def test_another_process_loads_it(tmp_path):
    cell = jrnn.stack(jrnn.gru(3, 4), jrnn.dropout(jrnn.cells.lru(4, 2), 0.5))
    params = params_of(cell)
    jrnn.save(tmp_path / "it", cell, params)
    code = (
        "import sys, numpy as np, jrnn; cell, params = jrnn.load(sys.argv[1]);"
        "np.save(sys.argv[2], params[1].B_re); print(cell)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "it"), str(tmp_path / "B.npy")],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(cell)
    np.testing.assert_array_equal(np.load(tmp_path / "B.npy"), params[1].B_re)


def test_other_programs_read_the_arrays(tmp_path):
    model = jrnn.sequence_model(
        jrnn.stack(jrnn.gru(5, 4), jrnn.lstm(4, 3, bias=False)), jrnn.categorical(5)
    )
    params = params_of(model)
    jrnn.save(tmp_path / "it", model, params)
    arrays = safetensors.numpy.load_file(tmp_path / "it")
    of_gru = {"cell.0.W_x", "cell.0.W_h", "cell.0.b", "cell.0.b_h"}
    of_lstm = {"cell.1.W_x", "cell.1.W_h"}
    assert set(arrays) == of_gru | of_lstm | {"head.W_y", "head.b_y", "start"}
    np.testing.assert_array_equal(arrays["cell.1.W_h"], params.cell[1].W_h)


@pytest.mark.parametrize("name", files.tensors.FLOATS)
def test_every_type_comes_back_bit_for_bit(name, tmp_path):
    cell = jrnn.gru(3, 4)
    params = params_of(cell, getattr(jnp, name))
    params.W_x.flat[:4] = [np.nan, -0.0, 0.0, 448.0]
    jrnn.save(tmp_path / "it", cell, params)
    assert_same(jrnn.load(tmp_path / "it")[1], params)


def test_a_type_of_each_array_its_own_and_no_contiguous_ones(tmp_path):
    cell, params = jrnn.gru(3, 4), params_of(jrnn.gru(3, 4))
    params = params._replace(
        W_x=np.asfortranarray(params.W_x),
        W_h=jnp.asarray(params.W_h, jnp.bfloat16),
        b=params.b.repeat(2)[::2],
    )
    jrnn.save(tmp_path / "it", cell, params)
    assert_same(jrnn.load(tmp_path / "it")[1], jax.tree.map(jnp.asarray, params))


def told_by(call):
    """The words of the FileError that a call raises; "" if it raises none."""
    try:
        call()
    except FileError as error:
        return str(error)
    return ""


def test_64_bits_are_never_narrowed(tmp_path):
    cell = jrnn.gru(3, 4)
    for name, dtype in (("narrow", np.float32), ("wide", np.float64)):
        jrnn.save(tmp_path / name, cell, params_of(cell, dtype))
    jax.config.update("jax_enable_x64", False)
    try:
        assert jrnn.load(tmp_path / "narrow")[1].b.dtype == np.float32
        told = told_by(lambda: jrnn.load(tmp_path / "wide"))
        assert "Expected 64-bit types to be on for W_x" in told
        assert 'jax.config.update("jax_enable_x64", True)' in told
        jrnn.save(tmp_path / "again", cell, params_of(cell, np.float64))
    finally:
        jax.config.update("jax_enable_x64", True)
    assert_same(jrnn.load(tmp_path / "again")[1], params_of(cell, np.float64))


def test_nothing_is_written_that_load_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(files.calls, "UNSIZED", ())
    with pytest.raises(FileError, match="input_size of jrnn.cells.stateless"):
        jrnn.save(tmp_path / "it", LAYER, params_of(LAYER))
    assert os.listdir(tmp_path) == []


def test_empty_arrays(tmp_path):
    model = jrnn.models.linear_gaussian_markov(0)  # A is (1, 0, 1, 1)
    jrnn.save(tmp_path / "it", model, params_of(model))
    assert jrnn.load(tmp_path / "it")[1].A.shape == (1, 0, 1, 1)
    chain = jrnn.markov_chain(2, 3)  # longer strings than the text
    params = chain.fit(np.array([0, 1]))
    jrnn.save(tmp_path / "it", chain, params)
    assert_same(jrnn.load(tmp_path / "it")[1], params)


def test_metadata(tmp_path):
    cell, path = jrnn.gru(3, 4), tmp_path / "it"
    for given in ({"mean": [0.5, 1e300], "units": "mg/dl \u00b5"}, {}, None):
        jrnn.save(path, cell, params_of(cell), given)
        assert files.read_metadata(path) == (given or {})
    jrnn.save(path, cell, params_of(cell), {"shape": (1, 2)})
    assert files.read_metadata(path) == {"shape": [1, 2]}
    for wrong in (3, "text", {"a": jnp.ones(2)}, {"a": float("nan")}, {(1,): 2}):
        with pytest.raises(TypeError, match="metadata that JSON can hold"):
            jrnn.save(path, cell, params_of(cell), wrong)
    assert files.read_metadata(path) == {"shape": [1, 2]}


class TestRefused:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: jrnn.gru(3, 4)._replace(gated=None), "one of its fields was"),
            (lambda: own(3, 3), "no code of yours; save the parameters alone"),
            (lambda: jrnn.elman(3, 4, activation=leaky), "activation to be a number"),
            (lambda: jrnn.elman(3, 4, activation=lambda a: a), "activation to be"),
            (
                lambda: jrnn.elman(3, 4, input_init=jax.nn.initializers.he_normal()),
                r"input_init to be.*initializers.normal\(.*the same cell without it",
            ),
            (
                lambda: jrnn.bidirectional(
                    jrnn.elman(3, 4), jrnn.elman(3, 4), lambda a, b: a - b
                ),
                "merge to be.*, such as jnp.maximum, got",
            ),
            (
                lambda: jrnn.stack(jrnn.gru(3, 3), own(3, 3)),
                "a factory of jrnn's own .*test_pickling:own",
            ),
        ],
    )
    def test_what_is_no_call_of_jrnn(self, make, words, tmp_path):
        made = make()
        with pytest.raises(TypeError, match=words):
            jrnn.save(tmp_path / "it", made, params_of(made))
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        "made", [None, 3, "lstm", jrnn.lstm, np.ones(3), heads.gaussian_kernel, {}]
    )
    def test_what_is_no_cell(self, made, tmp_path):
        with pytest.raises(TypeError, match="cell_or_model to be a cell, head or"):
            jrnn.save(tmp_path / "it", made, {})

    @pytest.mark.longer
    def test_parameters_of_another(self, tmp_path):
        cell, path = jrnn.gru(3, 4), tmp_path / "it"
        for params in (params_of(jrnn.gru(3, 5)), params_of(jrnn.lstm(3, 4)), None):
            with pytest.raises(ValueError, match="Expected params"):
                jrnn.save(path, cell, params)
        good = params_of(cell)
        for leaf in (good.b.astype(int), good.b * 1j, good.b > 0, "b"):
            with pytest.raises(TypeError, match="Expected .*params"):
                jrnn.save(path, cell, good._replace(b=leaf))
        odd = np.ma.masked_array(good.b, good.b > 0)
        with pytest.raises(TypeError, match="MaskedArray of type float32 at b"):
            jrnn.save(path, cell, good._replace(b=odd))
        narrow = good._replace(b=good.b.astype(jnp.float8_e5m2fnuz))
        with pytest.raises(TypeError, match="float8_e5m2fnuz at b; cast it"):
            jrnn.save(path, cell, narrow)
        chain = jrnn.markov_chain(5, 2)
        with pytest.raises(ValueError, match="3 levels"):
            jrnn.save(path, chain, params_of(chain)[:2])
        assert os.listdir(tmp_path) == []

    def test_what_has_no_values(self, tmp_path):
        cell, path = jrnn.elman(3, 4), tmp_path / "it"
        params = jax.tree.map(jnp.asarray, params_of(cell))
        params.b.delete()
        with pytest.raises(ValueError, match="an array at b that was deleted"):
            jrnn.save(path, cell, params)
        like = jax.eval_shape(cell.init, jax.random.clone(KEY))
        with pytest.raises(TypeError, match="which has none; save outside of jit"):
            jrnn.save(path, cell, like)


class TestPaths:
    CELL = jrnn.elman(2, 3)

    def save(self, path, seed=0):
        jrnn.save(path, self.CELL, params_of(self.CELL, seed=seed))

    def test_a_file_of_ours_and_an_empty_one_are_replaced(self, tmp_path):
        path = tmp_path / "new" / "folder" / "it.safetensors"
        self.save(str(path))
        self.save(path, seed=1)
        assert_same(jrnn.load(str(path))[1], params_of(self.CELL, seed=1))
        (tmp_path / "empty").touch()
        self.save(tmp_path / "empty")
        assert jrnn.load(tmp_path / "empty")[0] is self.CELL

    def test_nothing_else_is_replaced(self, tmp_path):
        others = {"text": b"a,b\n1,2\n", "short": b"1", "large": b"\xff" * 100}
        others["object"] = (2).to_bytes(8, "little") + b"{}"
        others["list"] = (2).to_bytes(8, "little") + b"[]"
        arrays = {"W_x": np.ones(3)}
        others["weights"] = safetensors.numpy.save(arrays, {"format": "pt"})
        for name, raw in others.items():
            (tmp_path / name).write_bytes(raw)
            with pytest.raises(FileError, match="a new path or a file of jrnn.save"):
                self.save(tmp_path / name)
            assert (tmp_path / name).read_bytes() == raw
        (tmp_path / "folder").mkdir()
        with pytest.raises(FileError, match="which is something else; choose"):
            self.save(tmp_path / "folder")
        assert sorted(os.listdir(tmp_path)) == sorted([*others, "folder"])

    def test_paths_that_are_none(self, tmp_path):
        for path in (3, None, b"it", ["it"]):
            for call in (self.save, jrnn.load, files.read_metadata):
                with pytest.raises(TypeError, match="path to be a string or a"):
                    call(path)
        for path in ("", "..", "/", tmp_path / ".."):
            with pytest.raises(FileError, match="ends in the name of a file"):
                self.save(path)
        with pytest.raises(FileNotFoundError):
            jrnn.load(tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            jrnn.load(tmp_path)

    @pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
    def test_links_and_permissions(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "it").symlink_to(tmp_path / "disk" / "there")
        before = os.umask(0o027)
        try:
            self.save(tmp_path / "it")
        finally:
            os.umask(before)
        assert (tmp_path / "it").is_symlink()
        assert os.listdir(tmp_path / "disk") == ["there"]
        assert stat.S_IMODE((tmp_path / "disk" / "there").stat().st_mode) == 0o640

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
    def test_a_full_disk_is_an_os_error_and_keeps_the_older_file(self, tmp_path):
        import resource

        self.save(tmp_path / "it")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                self.save(tmp_path / "it", seed=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert_same(jrnn.load(tmp_path / "it")[1], params_of(self.CELL))
        assert os.listdir(tmp_path) == ["it"]

    def test_many_writers_at_once_leave_one_whole_file(self, tmp_path):
        each = [params_of(self.CELL, seed=seed) for seed in range(8)]
        write = lambda params: jrnn.save(tmp_path / "it", self.CELL, params)
        threads = [threading.Thread(target=write, args=[p]) for p in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = np.asarray(jrnn.load(tmp_path / "it")[1].W_x)
        assert any((got == params.W_x).all() for params in each)
        assert os.listdir(tmp_path) == ["it"]


def test_without_the_library_the_error_has_the_command(tmp_path, monkeypatch):
    cell = jrnn.elman(2, 3)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "it").write_bytes(b"{}")
    calls = [
        lambda: jrnn.save(tmp_path / "new", cell, params_of(cell)),
        lambda: jrnn.load(tmp_path / "it"),
    ]
    for call in calls:
        with pytest.raises(ModuleNotFoundError, match="Run: pip install safetensors$"):
            call()


# The table of names.


def factories():
    """Every public function that makes the identical object for equal arguments."""
    for home in names.FACTORIES:
        module = sys.modules[home]
        shown = getattr(module, "__all__", None) or vars(module)
        for name in shown:
            thing = getattr(module, name)
            if inspect.isfunction(inspect.unwrap(thing)) and hasattr(
                thing, "__wrapped__"
            ):
                yield f"{home}.{name}", thing


def test_every_public_factory_can_be_in_a_file():
    ours = {n for n, thing in factories() if name_of_factory(thing)}
    assert len(ours) > 40
    assert ours - names.factories().keys() == set()


def name_of_factory(thing):
    return "memoize.<locals>" in thing.__code__.co_qualname


def test_every_activation_that_jrnn_knows_can_be_in_a_file():
    from jrnn.activations import RANGE, SLOPE, STEEPEST

    unknown = [f for f in (*RANGE, *SLOPE, *STEEPEST) if names.name_of(f) is None]
    assert unknown == []
    assert len(names.functions()) > 35


def test_every_name_in_the_table_exists():
    """Except what this version of JAX lacks."""
    for table in (names.FACTORIES, names.FUNCTIONS):
        for home, shown in table.items():
            for name in shown.split():
                assert home.startswith("jax") or hasattr(sys.modules[home], name)


def test_a_renamed_factory_still_loads(tmp_path, monkeypatch):
    cell = jrnn.gru(3, 4)
    jrnn.save(tmp_path / "it", cell, params_of(cell))
    raw = (tmp_path / "it").read_bytes()
    with monkeypatch.context() as patched:
        old = lambda f: "jrnn.cells.unit" if f is jrnn.gru else names.name_of(f)
        patched.setattr(files.calls, "name_of", old)
        patched.setitem(names.RENAMED, "jrnn.cells.unit", "jrnn.cells.gru")
        jrnn.save(tmp_path / "old", cell, params_of(cell))
    assert (tmp_path / "old").read_bytes() != raw
    with pytest.raises(FileError, match=r"got 'jrnn.cells.unit'.*newer version"):
        jrnn.load(tmp_path / "old")
    monkeypatch.setitem(names.RENAMED, "jrnn.cells.unit", "jrnn.cells.gru")
    assert jrnn.load(tmp_path / "old")[0] is cell

"""Checkpoints: exact, verified before they are read, and atomic."""

import json
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn.train.checkpoint as checkpoint
from jrnn.train import (
    CheckpointError,
    has_checkpoint,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from jrnn.train.checkpoint import folder as folders


class Pair(NamedTuple):
    a: jax.Array
    b: tuple


def tree():
    return Pair(
        jnp.linspace(0, 1, 7, dtype=jnp.float32),
        (
            jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
            jnp.array(3, jnp.int32),
            jax.random.key(5),
            {"x": jnp.array([1.5, np.nan, np.inf])},
            None,
        ),
    )


def blank():
    zero = lambda leaf: jnp.zeros_like(leaf)
    keyed = tree()
    arrays = jax.tree.map(zero, (keyed.a, keyed.b[0], keyed.b[1], keyed.b[3]))
    return Pair(arrays[0], (arrays[1], arrays[2], jax.random.key(0), arrays[3], None))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "last"
    save_checkpoint(path, tree(), {"position": 7, "text": "ä"})
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "last")


def files(path):
    return sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)


def test_round_trip_to_the_bit(saved):
    loaded, metadata = load_checkpoint(saved, blank())
    assert metadata == {"position": 7, "text": "ä"} == read_metadata(saved)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree())
    for got, expected in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(tree()), strict=True
    ):
        assert got.dtype == expected.dtype
        if jnp.issubdtype(got.dtype, jax.dtypes.prng_key):
            got, expected = jax.random.key_data(got), jax.random.key_data(expected)
        assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


def test_one_flipped_bit_anywhere_is_noticed(copy):
    rng = np.random.default_rng(0)
    for file in files(copy):
        whole = file.read_bytes()
        for _ in range(4):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            with pytest.raises(CheckpointError, match="Expected"):
                load_checkpoint(copy, blank())
        file.write_bytes(whole)
    load_checkpoint(copy, blank())


def test_one_flipped_bit_in_each_byte_of_the_manifest_is_noticed(copy, monkeypatch):
    rng = np.random.default_rng(2)
    found = folders.digests(copy)
    monkeypatch.setattr(folders, "digests", lambda _: found)
    manifest = copy / folders.MANIFEST
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        manifest.unlink()  # writing over it would wait for the disk
        manifest.write_bytes(data)
        with pytest.raises(CheckpointError, match="Expected"):
            folders.check_manifest(copy)


def test_without_the_manifest_some_flips_would_pass(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    path, weights = tmp_path / "last", jnp.asarray(rng.normal(size=(64, 64)))
    save_checkpoint(path, {"W": weights})
    largest = max(files(path / folders.ARRAYS), key=lambda p: p.stat().st_size)
    whole, flips = largest.read_bytes(), []
    for _ in range(20):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        flips.append(bytes(data))
    for data in flips:
        largest.write_bytes(data)
        with pytest.raises(CheckpointError, match="the file was damaged"):
            load_checkpoint(path, {"W": weights})
    monkeypatch.setattr(folders, "check_manifest", lambda _: None)
    wrong = 0
    for data in flips:
        largest.write_bytes(data)
        try:
            loaded, _ = load_checkpoint(path, {"W": weights})
            wrong += bool((loaded["W"] != weights).any())
        except Exception:
            continue
    assert wrong > 0


def test_missing_and_added_files(copy):
    (copy / "extra").write_text("x")
    with pytest.raises(CheckpointError, match="not listed: .'extra'"):
        load_checkpoint(copy, blank())
    (copy / "extra").unlink()
    (copy / folders.CONTENTS).unlink()
    with pytest.raises(CheckpointError, match="missing: .'contents.json'"):
        load_checkpoint(copy, blank())


def test_truncated_manifest(copy):
    manifest = copy / folders.MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="Expected JSON in .*MANIFEST"):
        load_checkpoint(copy, blank())


def test_a_path_without_a_name(tmp_path):
    for path in ("/", "..", tmp_path / ".."):
        for use in (has_checkpoint, read_metadata, lambda p: save_checkpoint(p, {})):
            with pytest.raises(CheckpointError, match="name a folder in it"):
                use(path)


def test_foreign_folder(tmp_path):
    with pytest.raises(CheckpointError, match="Expected a checkpoint in .*nowhere"):
        load_checkpoint(tmp_path / "nowhere", blank())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="choose another path"):
        save_checkpoint(tmp_path / "mine", tree())
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (lambda: blank()._replace(a=jnp.zeros(8, jnp.float32)), r"'shape': \[8\]"),
        (lambda: blank()._replace(a=jnp.zeros(7, jnp.float16)), "'dtype': 'float16'"),
        (lambda: (blank().a,), r"Expected .'path': '\[0\]'"),
        (lambda: Pair(blank().a, ()), "Expected 1 arrays in .*, got 5"),
    ],
)
def test_another_structure(saved, like, words):
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved, like())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "jrnn checkpoint 9"}, "got 'jrnn checkpoint 9' with .'format', "),
        ({"format": None}, "got None with .'leaves', 'metadata'"),
        ({"leaves": None}, "got 'jrnn checkpoint 2' with .'format', 'metadata'"),
        ({"metadata": None}, "got 'jrnn checkpoint 2' with .'format', 'leaves'"),
    ],
)
def test_another_format(copy, changes, words):
    contents = json.loads((copy / folders.CONTENTS).read_text(encoding="utf-8"))
    contents = {k: v for k, v in {**contents, **changes}.items() if v is not None}
    text = json.dumps(contents)
    (copy / folders.CONTENTS).write_text(text, encoding="utf-8")
    manifest = json.dumps(folders.digests(copy))
    (copy / folders.MANIFEST).write_text(manifest, encoding="utf-8")
    for read in (read_metadata, lambda path: load_checkpoint(path, blank())):
        with pytest.raises(CheckpointError, match=words):
            read(copy)


def test_whether_there_is_a_checkpoint(copy):
    assert has_checkpoint(copy)
    assert not has_checkpoint(copy.parent / "first")


class Crash(BaseException):
    """Stands for the machine going down: nothing catches it."""


@pytest.mark.parametrize(
    ("module", "where"),
    [(checkpoint, "write_arrays"), (folders, "digests"), (folders, "write_json")],
)
def test_a_crash_while_writing_leaves_the_old_one(copy, monkeypatch, module, where):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(module, where, crash)
        with pytest.raises(Crash):
            save_checkpoint(copy, blank(), {"position": 8})
    assert read_metadata(copy)["position"] == 7
    assert [p.name for p in copy.parent.iterdir()] == ["last"]


def test_a_crash_between_the_moves_leaves_the_old_one(copy, monkeypatch):
    moves = []

    def replace(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise Crash
        shutil.move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "replace", replace)
        with pytest.raises(Crash):
            save_checkpoint(copy, blank(), {"position": 8})
    assert not copy.exists()
    assert has_checkpoint(copy)
    assert read_metadata(copy)["position"] == 7
    save_checkpoint(copy, blank(), {"position": 9})
    assert read_metadata(copy)["position"] == 9
    assert [p.name for p in copy.parent.iterdir()] == ["last"]


def test_leftovers_of_a_crash_are_removed(copy):
    leftover = copy.parent / ".last.partial-abc"
    leftover.mkdir()
    save_checkpoint(copy, blank())
    assert not leftover.exists()


def test_an_unwritable_place_and_metadata_that_is_no_json(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        save_checkpoint(tmp_path / "file" / "last", tree())
    with pytest.raises(TypeError, match="JSON"):
        save_checkpoint(tmp_path / "last", tree(), {"position": object()})
    assert not (tmp_path / "last").exists()


def test_the_manifest_lists_every_file(saved):
    listed = json.loads((saved / folders.MANIFEST).read_text(encoding="utf-8"))
    present = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert set(listed) == present - {folders.MANIFEST}

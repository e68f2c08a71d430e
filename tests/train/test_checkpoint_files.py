"""Checkpoints on disk: altered, damaged, locked, several processes, full disks."""

import copy
import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import warnings

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
from jrnn.train.checkpoint import arrays, folder, lock, reading

TREE = {"W": np.arange(6.0).reshape(2, 3), "key": jax.random.key(1), "n": 5}
# Arrays that end long after another has failed report to an event loop that is closed.
stragglers = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
METADATA = {"position": 7, "settings": {"names": ["a", "b"], "rate": 0.5}}
ODD = [None, True, -1, 0, 1.5, 10**30, "", "../../x", "/etc/passwd", "a\0b", "\ud800"]
ODD += [[], {}, [[1]], {"a": 1}, float("nan"), float("inf"), [TREE["n"]] * 3]
RAW = {
    "empty": b"",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "deep and closed": b"[" * 900 + b"]" * 900,
    "many digits": b'{"a": ' + b"1" * 6000 + b"}",
    "large float": b'{"a": 1e999}',
    "zeros": bytes(100),
    "null": b"null",
    "number": b"5",
    "text": b'"x"',
    "list": b"[1, 2]",
    "object": b"{}",
    "mark": b"\xef\xbb\xbf{}",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "last"
    save_checkpoint(path, TREE, METADATA)
    return path


@pytest.fixture
def place(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "last")


def put(file, data):
    """Writes a new file. Writing over one waits for the disk on some systems."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def reseal(place):
    """Makes the manifest fit what was altered."""
    put(place / folder.MANIFEST, json.dumps(folder.digests(place)).encode())


def is_loaded(place):
    """Loads the whole; False for a CheckpointError, and anything else is raised."""
    try:
        read_metadata(place)
        got, _ = load_checkpoint(place, TREE)
    except CheckpointError as error:
        return check_message(str(error))
    assert got["n"] == 5
    assert np.array_equal(got["W"], TREE["W"])
    assert got["key"] == TREE["key"]
    return True


def check_message(text):
    assert text.startswith("Expected")
    assert len(text) < 2500
    return False


def places(content, path=()):
    yield path
    if isinstance(content, dict | list):
        keys = content if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield from places(content[key], (*path, key))


def altered(content, path, value):
    """A copy with another value at a path; without it, if the value is a function."""
    content = copy.deepcopy(content)
    if not path:
        return value
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    if callable(value):
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return content


def mutations(content):
    for path in places(content):
        for value in ODD:
            yield path, altered(content, path, value)
        if path:
            yield path, altered(content, path, len)
    for name in ("more", "../x", "arrays/d/../d"):
        yield ("added",), {**content, name: {"bytes": 0, "sha256": "0" * 64}}


def test_contents_that_were_altered_under_a_right_manifest(place):
    file = place / folder.CONTENTS
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = 0
    for path, mutation in mutations(content):
        put(file, json.dumps(mutation).encode())
        reseal(place)
        if path[:1] == ("metadata",) and isinstance(mutation.get("metadata"), dict):
            assert repr(read_metadata(place)) == repr(mutation["metadata"])  # NaN too
            kept += 1
        else:
            assert is_loaded(place) == (mutation == content or path == ("added",)), path
    assert kept > 50


@pytest.mark.parametrize("name", [folder.CONTENTS, folder.MANIFEST])
def test_files_that_hold_something_else(place, name):
    for raw in RAW.values():
        put(place / name, raw)
        if name == folder.CONTENTS:
            reseal(place)
        assert not is_loaded(place)


def test_manifests_that_were_altered(place, monkeypatch):
    found = folder.digests(place)
    monkeypatch.setattr(folder, "digests", lambda _: found)
    file = place / folder.MANIFEST
    content = json.loads(file.read_text(encoding="utf-8"))
    for _, mutation in mutations(content):
        put(file, json.dumps(mutation).encode())
        if mutation != content:
            with pytest.raises(CheckpointError) as caught:
                read_metadata(place)
            check_message(str(caught.value))


def files_of_orbax(place):
    names = sorted(folder.digests(place))
    return [place / name for name in names if name.startswith(folder.ARRAYS + "/")]


def sweep_files_of_orbax(place, monkeypatch, count):
    """Alters each of orbax's files in some of many ways, under a right manifest."""
    monkeypatch.setattr(arrays, "LINGER", 0)
    rng = random.Random(0)
    files = files_of_orbax(place)
    assert len(files) > 5
    outcomes = []
    for file in files:
        raw = file.read_bytes()
        ways = [*RAW.values(), raw[: len(raw) // 2], raw + raw, None]
        for _ in range(len(ways)):
            flipped = bytearray(raw)
            flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            ways.append(bytes(flipped))
        if file.name.endswith("METADATA"):
            content = json.loads(raw)
            ways += [json.dumps(m).encode() for _, m in mutations(content)]
        for way in rng.sample(ways, min(count, len(ways))):
            file.unlink() if way is None else put(file, way)
            reseal(place)
            try:
                load_checkpoint(place, TREE)
                outcomes.append("loaded")
            except CheckpointError:
                outcomes.append("refused")
            put(file, raw)
    assert {"loaded", "refused"} == set(outcomes)


@stragglers
def test_files_of_orbax_under_a_right_manifest(place, monkeypatch):
    sweep_files_of_orbax(place, monkeypatch, 3)


@stragglers
@pytest.mark.slow
def test_many_files_of_orbax_under_a_right_manifest(place, monkeypatch):
    sweep_files_of_orbax(place, monkeypatch, 60)


@pytest.mark.parametrize(
    "array", [np.ones((2, 3), np.float32), np.ones((3, 2)), np.float64(1), None]
)
def test_arrays_that_are_not_as_described(place, array):
    shutil.rmtree(place / folder.ARRAYS)
    if array is not None:
        others = {"1": np.zeros(2, np.uint32), "2": np.asarray(5)}
        arrays.write_arrays(place / folder.ARRAYS, {"0": np.asarray(array), **others})
    reseal(place)
    assert not is_loaded(place)


def test_one_file_in_place_of_the_arrays(place):
    shutil.rmtree(place / folder.ARRAYS)
    (place / folder.ARRAYS).write_text("x", encoding="utf-8")
    reseal(place)
    assert not is_loaded(place)


def two(saved, place, damage):
    """A sound older checkpoint beside a newer one, which is then damaged."""
    shutil.copytree(saved, folder.older(place))
    contents = json.loads((place / folder.CONTENTS).read_text(encoding="utf-8"))
    contents["metadata"] = {"position": 8}
    folder.write_json(place / folder.CONTENTS, contents)
    reseal(place)
    damage(place)


DAMAGE = {
    "manifest lost": lambda p: (p / folder.MANIFEST).unlink(),
    "manifest cut": lambda p: (p / folder.MANIFEST).write_bytes(b'{"contents.json": '),
    "contents lost": lambda p: (p / folder.CONTENTS).unlink(),
    "contents emptied": lambda p: (p / folder.CONTENTS).write_bytes(b""),
    "an array emptied": lambda p: files_of_orbax(p)[-1].write_bytes(b""),
    "an array lost": lambda p: files_of_orbax(p)[0].unlink(),
    "arrays lost": lambda p: shutil.rmtree(p / folder.ARRAYS),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(saved, place, damage):
    two(saved, place, DAMAGE[damage])
    with pytest.warns(UserWarning, match=r"Expected.*The checkpoint before it.*\.old"):
        got, metadata = load_checkpoint(place, TREE)
    assert metadata == METADATA
    assert got["n"] == 5
    with pytest.warns(UserWarning, match="The checkpoint before it") as caught:
        assert read_metadata(place) == METADATA
    assert caught[0].filename == __file__
    assert has_checkpoint(place)


@pytest.mark.parametrize("damage", [n for n in DAMAGE if n != "manifest lost"])
def test_saving_over_a_damaged_checkpoint_keeps_the_one_before(
    saved, place, monkeypatch, damage
):
    two(saved, place, DAMAGE[damage])

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_arrays", crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(place, TREE, {"position": 9})
    assert read_metadata(place) == METADATA
    save_checkpoint(place, TREE, {"position": 9})
    assert read_metadata(place) == {"position": 9}
    assert os.listdir(place.parent) == ["last"]


def test_two_damaged_checkpoints(saved, place):
    two(saved, place, DAMAGE["an array emptied"])
    DAMAGE["contents lost"](folder.older(place))
    with pytest.raises(CheckpointError, match="the file was damaged"):
        read_metadata(place)


def test_a_sound_checkpoint_is_taken_before_the_older(saved, place):
    two(saved, place, lambda _: None)
    assert read_metadata(place) == {"position": 8}
    save_checkpoint(place, TREE, {"position": 9})
    assert os.listdir(place.parent) == ["last"]


def test_another_structure_or_format_is_no_damage(saved, place):
    two(saved, place, lambda _: None)
    with pytest.raises(CheckpointError, match="Expected 0 arrays"):
        load_checkpoint(place, {})
    (place / folder.CONTENTS).write_text("{}", encoding="utf-8")
    reseal(place)
    with pytest.raises(CheckpointError, match="got None with"):
        read_metadata(place)


def test_an_empty_folder_is_a_free_place(tmp_path):
    place = tmp_path / "last"
    place.mkdir()
    assert not has_checkpoint(place)
    with pytest.raises(CheckpointError, match=r"found no MANIFEST\.json"):
        read_metadata(place)
    save_checkpoint(place, TREE, METADATA)
    assert is_loaded(place)
    place.rename(folder.older(place))
    place.mkdir()
    assert has_checkpoint(place)
    assert is_loaded(place)
    save_checkpoint(place, TREE, {"position": 8})
    assert read_metadata(place) == {"position": 8}
    assert os.listdir(tmp_path) == ["last"]


def test_manifests_of_others_are_no_checkpoint(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="choose another path"):
        save_checkpoint(tmp_path / "site", TREE)


def test_names_that_are_patterns(tmp_path):
    mine = tmp_path / ".run[1].partial-a"
    others = tmp_path / ".run1.partial-a"
    mine.mkdir()
    others.mkdir()
    save_checkpoint(tmp_path / "run[1]", {})
    assert sorted(os.listdir(tmp_path)) == [others.name, "run[1]"]


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_saving_through_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "last").symlink_to(tmp_path / "disk" / "run")
    for position in range(2):
        save_checkpoint(tmp_path / "last", {}, {"position": position})
        assert read_metadata(tmp_path / "last") == {"position": position}
    assert (tmp_path / "last").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["run"]


class Gate:
    """A writer that waits, once it is writing, until it may go on."""

    def __init__(self, monkeypatch):
        self.entered, self.may_go = threading.Event(), threading.Event()
        self.errors = []
        monkeypatch.setattr(checkpoint, "write_arrays", self.write)

    def write(self, *arguments):
        if threading.current_thread() is not threading.main_thread():
            self.entered.set()
            assert self.may_go.wait(60)
        arrays.write_arrays(*arguments)

    def save(self, path):
        try:
            save_checkpoint(path, TREE, {"position": 1})
        except Exception as error:
            self.errors.append(error)


def test_a_second_thread_is_told_that_one_is_saving(tmp_path, monkeypatch):
    gate, place = Gate(monkeypatch), tmp_path / "last"
    thread = threading.Thread(target=gate.save, args=[place])
    thread.start()
    assert gate.entered.wait(60)
    try:
        for path in (place, tmp_path / "x" / ".." / "last"):
            (tmp_path / "x").mkdir(exist_ok=True)
            with pytest.raises(CheckpointError, match="Expected one writer of .*last"):
                save_checkpoint(path, TREE)
        save_checkpoint(tmp_path / "other", {})
    finally:
        gate.may_go.set()
        thread.join()
    assert gate.errors == []
    assert read_metadata(place) == {"position": 1}
    save_checkpoint(place, TREE)
    assert sorted(os.listdir(tmp_path)) == ["last", "other", "x"]


# Holds the lock until it is killed; without jrnn, for jax takes seconds to import.
HOLDER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.exclusive(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_second_process_is_told_until_the_first_is_killed(tmp_path):
    place = tmp_path / "last"
    save_checkpoint(place, {}, {"position": 1})
    command = [sys.executable, "-c", HOLDER, lock.__file__, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another .* is saving"):
            save_checkpoint(place, {})
        assert read_metadata(place) == {"position": 1}
        process.kill()
    assert ".last.lock" in os.listdir(tmp_path)
    save_checkpoint(place, {}, {"position": 2})
    assert read_metadata(place) == {"position": 2}
    assert os.listdir(tmp_path) == ["last"]


def test_the_lock_is_given_back_after_failures(place, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_arrays", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                save_checkpoint(place, TREE)
    save_checkpoint(place, {}, {"position": 2})
    assert os.listdir(place.parent) == ["last"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has locks everywhere")
def test_threads_are_told_apart_where_a_file_system_has_no_locks(tmp_path, monkeypatch):
    codes = []

    def flock(*_):
        raise OSError(codes[-1], "no locks here")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    for code in lock.WITHOUT_LOCKS:
        codes.append(code)
        with lock.exclusive(tmp_path / "last"):
            with pytest.raises(lock.Busy), lock.exclusive(tmp_path / "last"):
                pass
    codes.append(errno.EIO)
    with pytest.raises(OSError, match="no locks"), lock.exclusive(tmp_path / "last"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed on Windows")
def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path, monkeypatch):
    file, opened = tmp_path / ".last.lock", []
    is_at = lock._is_at

    def removed_once(path, descriptor):
        opened.append(descriptor)
        if len(opened) == 1:  # as its holder does when it ends
            path.unlink()
        return is_at(path, descriptor)

    monkeypatch.setattr(lock, "_is_at", removed_once)
    with lock.exclusive(tmp_path / "last"):
        assert len(opened) == 2
        assert file.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_the_modes_are_those_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "new" / "last", TREE)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(path.stat().st_mode & 0o777) == oct(expected), path


def check_failed(place, caught, capfd):
    """Nothing was lost, left behind or printed."""
    assert caught.value.__cause__ is None  # of a hundred lines
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert read_metadata(place) == METADATA
    assert os.listdir(place.parent) == ["last"]
    output = capfd.readouterr()
    assert output.out + output.err == ""


@stragglers
def test_files_that_grow_too_large(place, capfd):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    rng = np.random.default_rng(0)
    tree = [rng.normal(size=n) for n in (1, 50_000, 50_000, 50_000)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for written, metadata in ((tree, {}), ((), {"text": "x" * 300_000})):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                save_checkpoint(place, written, metadata)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        check_failed(place, caught, capfd)


@pytest.mark.skipif(os.name == "nt", reason="the numbers of Windows are its own")
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']", 28),
        ("RESOURCE_EXHAUSTED: ... [OS error 28: No space left on device]", 28),
        ("... Disk quota exceeded [os_error_code='122']", 122),
        ("UNKNOWN: something else\n" + "a line\n" * 100, errno.EIO),
    ],
)
def test_a_full_disk_is_an_os_error(place, monkeypatch, capfd, message, code):
    def fail(*_):
        raise ValueError(message)

    monkeypatch.setattr(arrays.ocp.PyTreeCheckpointer, "save", fail)
    words = os.strerror(code) if code != errno.EIO else "UNKNOWN: something else"
    with pytest.raises(OSError, match=words) as caught:
        save_checkpoint(place, TREE)
    assert caught.value.errno == code
    assert len(str(caught.value).splitlines()) == 1
    check_failed(place, caught, capfd)


def settings_of_the_process():
    loggers = [logging.getLogger(), logging.getLogger("absl"), logging.getLogger("jax")]
    return (
        [(x.level, list(x.filters), list(x.handlers), x.disabled) for x in loggers],
        logging.root.manager.disable,
        list(warnings.filters),
        id(warnings.filters),
        warnings.showwarning,
        sys.unraisablehook,
        sys.excepthook,
        threading.excepthook,
        signal.getsignal(signal.SIGINT),
        jax.config.values.copy() if hasattr(jax.config, "values") else None,
        sorted(thread.name for thread in threading.enumerate()),
    )


def test_nothing_of_the_process_stays_changed(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "first", TREE)  # what is made once, when first used
    before = settings_of_the_process()
    gate = Gate(monkeypatch)
    threads = [
        threading.Thread(target=gate.save, args=[tmp_path / str(i)]) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    gate.may_go.set()
    for thread in threads:
        thread.join()
    assert gate.errors == []
    for i in range(3):
        assert is_loaded(tmp_path / str(i)) or read_metadata(tmp_path / str(i))
    (tmp_path / "0" / folder.CONTENTS).unlink()
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "0", TREE)
    assert settings_of_the_process() == before


def test_orbax_is_quiet_and_others_are_not(tmp_path, monkeypatch, caplog):
    write = arrays.ocp.PyTreeCheckpointer.save

    def save(self, *arguments):
        logging.getLogger("absl").warning("mine")
        write(self, *arguments)

    monkeypatch.setattr(arrays.ocp.PyTreeCheckpointer, "save", save)
    with caplog.at_level(logging.DEBUG, logger="absl"):
        save_checkpoint(tmp_path / "last", TREE)
        load_checkpoint(tmp_path / "last", TREE)
    assert [record.message for record in caplog.records] == ["mine"]


def test_saving_where_an_event_loop_is_running(tmp_path):
    import asyncio

    async def cell_of_a_notebook():
        save_checkpoint(tmp_path / "last", TREE)
        return load_checkpoint(tmp_path / "last", TREE)[0]["n"]

    assert asyncio.run(cell_of_a_notebook()) == 5
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        save_checkpoint(tmp_path / "last", TREE)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_checkpoint_that_is_replaced_while_it_is_read(place, monkeypatch):
    check, replaced = folder.check_manifest, []

    def replace_first(where):
        if not replaced:
            replaced.append(where)
            save_checkpoint(place, TREE, {"position": 8})
            raise CheckpointError("Expected files that were moved away.")
        check(where)

    monkeypatch.setattr(folder, "check_manifest", replace_first)
    assert read_metadata(place) == {"position": 8}


def test_no_contents_of_one_checkpoint_with_arrays_of_another(tmp_path, monkeypatch):
    place, read = tmp_path / "last", arrays.read_arrays
    save = lambda n: save_checkpoint(place, np.full(3, n), {"position": n})
    later = iter([2, 3])

    def replaced(*arguments):
        for n in later:
            save(n)
            break
        return read(*arguments)

    save(1)
    monkeypatch.setattr(reading, "read_arrays", replaced)
    got, metadata = load_checkpoint(place, np.zeros(3, int))
    assert (metadata["position"], got.tolist()) == (3, [3, 3, 3])
    later = iter(range(100))
    with pytest.raises(CheckpointError, match="not replaced while it is read, got 10"):
        load_checkpoint(place, np.zeros(3, int))


@pytest.mark.slow
def test_reading_beside_a_writer(tmp_path):
    place, ended = tmp_path / "last", threading.Event()
    save_checkpoint(place, jnp.zeros(9), {"position": 0})

    def write():
        for position in range(1, 40):
            save_checkpoint(place, jnp.full(9, position, float), {"position": position})
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not ended.is_set():
            got, metadata = load_checkpoint(place, jnp.zeros(9))
            assert (got == metadata["position"]).all()
    finally:
        writer.join()


def test_unreadable_metadata_is_told_before_anything_is_written(tmp_path):
    circular = {}
    circular["a"] = circular
    deep = []
    for _ in range(100_000):
        deep = [deep]
    bad = [{"a": object()}, {"a": np.ones(2)}, {"a": float("nan")}, circular, [1, 2]]
    bad += [{"a": {1, 2}}, {"a": 10**5000}, {"a": b"x"}, {("a", 1): 2}, {"a": deep}, 5]
    for metadata in bad:
        with pytest.raises(TypeError, match="Expected metadata that JSON can hold"):
            save_checkpoint(tmp_path / "last", {}, metadata)
    assert list(tmp_path.iterdir()) == []


def test_values_that_cannot_be_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert folder.shown(deep) == "a list"
    assert folder.shown(10**5000) == "a int"
    assert folder.shown("x" * 1000) == "'" + "x" * (folder.SHOWN - 1) + "..."


def test_formats_that_are_read():
    assert reading.FORMATS == ("jrnn checkpoint 1", "jrnn checkpoint 2")

"""The cache of compiled kernels: only whole files that this user wrote are loaded."""

import atexit
import ctypes
import errno
import json
import os
import stat
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jrnn.kernels.cpu import compilers, store, targets, trust
from jrnn.kernels.cpu.compilers import find_compiler
from jrnn.kernels.cpu.errors import UnsafeCache
from jrnn.kernels.cpu.fingerprint import fingerprint
from jrnn.kernels.cpu.toolchain import build_flags
from tests.cpu_kernel import compiled, counting, double, forget, needs_cc

KEY = "0123456789abcdef0123"
ABOUT = {"label": "lstm in float32"}
posix = pytest.mark.skipif(os.name != "posix", reason="needs owners and permissions")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where the cache will be; `store._temporary` makes its own again."""
    monkeypatch.setenv("JRNN_CACHE_DIR", str(tmp_path / "one" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda task: None)
    store._temporary.clear()
    yield tmp_path / "one" / "cache"
    store._temporary.clear()


def modes(path):
    return stat.S_IMODE(path.lstat().st_mode)


@posix
def test_what_is_kept_is_found_and_is_the_users_alone(folder, monkeypatch):
    before = os.umask(0)
    try:
        entry = store.keep(KEY, b"code", ABOUT)
    finally:
        os.umask(before)
    assert store.find(KEY) == entry.path
    assert entry.path.read_bytes() == b"code"
    assert modes(folder) == modes(folder.parent) == 0o700
    assert {modes(path) for path in folder.iterdir()} == {0o600}
    assert sorted(p.name[:20] for p in folder.iterdir()) == [KEY, KEY]
    assert [found.about["label"] for found in store.entries()] == ["lstm in float32"]
    assert store.find(KEY[::-1]) is None
    monkeypatch.setenv("JRNN_CACHE_DIR", str(folder / "empty"))
    assert store.find(KEY) is None
    assert store.entries() == []


ALTERED = {
    "library": lambda code, record: code.write_bytes(b"evil"),
    "library, cut": lambda code, record: code.write_bytes(b""),
    "library, removed": lambda code, record: code.unlink(),
    "record, of another library": lambda code, record: record.write_text(
        json.dumps({"sha256": "0" * 64})
    ),
    "record, no hash": lambda code, record: record.write_text('{"sha256": "../x"}'),
    "record, no object": lambda code, record: record.write_text("[1]"),
    "record, cut": lambda code, record: record.write_text('{"sha'),
    "record, no text": lambda code, record: record.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_was_altered_is_not_found(folder, what):
    code = store.keep(KEY, b"code", ABOUT).path
    ALTERED[what](code, folder / f"{KEY}.json")
    assert store.find(KEY) is None
    assert all(entry.path == code for entry in store.entries())
    again = store.keep(KEY, b"code", ABOUT).path
    assert store.find(KEY) == again
    assert again.read_bytes() == b"code"


@needs_cc
@pytest.mark.usefixtures("folder")
def test_what_was_altered_is_compiled_anew_and_never_loaded(monkeypatch, tmp_path):
    compiler = counting(tmp_path / "cc")
    monkeypatch.setenv("JRNN_CC", str(compiler))
    forget(monkeypatch)
    source, loaded = double(), []
    key = fingerprint(source, find_compiler(), build_flags(find_compiler()))
    store.keep(key, b"", ABOUT).path.write_bytes(b"evil")
    load = ctypes.CDLL
    monkeypatch.setattr(
        ctypes,
        "CDLL",
        lambda path: loaded.append(Path(path).read_bytes()) or load(path),
    )
    names = targets.targets(source, ("Double",))
    assert names["Double"].endswith(key)
    assert compiled(compiler) == 2
    assert store.find(key).read_bytes() == loaded[0]
    assert b"evil" not in loaded
    compilers._find.cache_clear()


def replaced(path, make):
    old = path.rename(path.with_name("old"))
    make(old)


UNSAFE = {
    "library, of others": lambda d, code, record: code.chmod(0o602),
    "library, of the group": lambda d, code, record: code.chmod(0o620),
    "record, of others": lambda d, code, record: record.chmod(0o606),
    "folder, of others": lambda d, code, record: d.chmod(0o707),
    "folder, of the group": lambda d, code, record: d.chmod(0o770),
    "library, a link": lambda d, code, record: replaced(code, code.symlink_to),
    "record, a link": lambda d, code, record: replaced(record, record.symlink_to),
    "folder, a link": lambda d, code, record: replaced(d, d.symlink_to),
    "folder, a file": lambda d, code, record: replaced(d, lambda old: d.write_text("")),
    "library, a folder": lambda d, code, record: replaced(
        code, lambda old: code.mkdir()
    ),
}


@posix
@pytest.mark.parametrize("what", UNSAFE)
def test_what_others_may_have_written_is_refused(folder, what):
    code = store.keep(KEY, b"code", ABOUT).path
    UNSAFE[what](folder, code, folder / f"{KEY}.json")
    faults = {"link": "is a symbolic link", "file": "is not a folder"}
    faults |= {"folder": "is not a file"}
    fault = faults.get(what.split()[-1], r"others may write to \(its mode is \d{3}\)")
    found = f"which {fault}; remove it, or set JRNN_CACHE_DIR to a f"
    with pytest.raises(UnsafeCache, match=f"got {folder}.*, {found}"):
        store.find(KEY)
    if what.startswith("folder"):
        for use in (store.entries, store.clear, store.writable_folder):
            with pytest.raises(UnsafeCache):
                use()


@posix
@pytest.mark.parametrize("foreign", ["folder", "record", "library"])
def test_what_belongs_to_another_user_is_refused(folder, monkeypatch, foreign):
    code = store.keep(KEY, b"code", ABOUT).path
    path = {"folder": folder, "record": folder / f"{KEY}.json", "library": code}[
        foreign
    ]
    look = os.lstat

    def lstat(asked):
        found = list(look(asked))
        found[stat.ST_UID] += Path(asked) == path
        return os.stat_result(found)

    monkeypatch.setattr(trust.os, "lstat", lstat)
    me = os.geteuid()
    with pytest.raises(UnsafeCache, match=f"to the user {me + 1}, and you are {me};"):
        store.find(KEY)


@needs_cc
def test_an_unsafe_cache_stops_a_kernel(folder, monkeypatch):
    forget(monkeypatch)
    trust.make_folder(folder)
    folder.chmod(0o777)
    with pytest.raises(UnsafeCache, match="its mode is 777"):
        targets.targets(double(), ("Double",))
    compilers._find.cache_clear()


# Where nothing can be kept.


def test_a_folder_that_cannot_be_written_is_replaced_until_exit(
    folder, monkeypatch, tmp_path
):
    tasks = []
    monkeypatch.setattr(atexit, "register", tasks.append)
    folder.parent.mkdir()
    folder.parent.joinpath("cache").write_text("")
    monkeypatch.setenv("JRNN_CACHE_DIR", str(folder / "below a file"))
    assert not store.is_writable()
    path = store.keep(KEY, b"code", ABOUT).path
    assert path.read_bytes() == b"code"
    assert store.is_temporary(path)
    assert not store.is_temporary(tmp_path)
    assert modes(path.parent) == 0o700
    assert store.find(KEY) is None
    (remove,) = tasks
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # a forked process exits
        remove()
    assert path.exists()
    remove()
    assert not path.parent.exists()


@pytest.mark.parametrize("fails", ["access", "mkdir", "replace"])
def test_a_disk_that_is_read_only_or_full_is_got_by_with(folder, monkeypatch, fails):
    write = os.replace

    def replace(old, new):
        if folder in Path(new).parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(old, new)

    def mkdir(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    if fails == "access":
        trust.make_folder(folder)
        monkeypatch.setattr(store.os, "access", lambda path, mode: False)
    elif fails == "mkdir":
        monkeypatch.setattr(Path, "mkdir", mkdir)
    else:
        monkeypatch.setattr(store.os, "replace", replace)
    path = store.keep(KEY, b"code", ABOUT).path
    assert path.read_bytes() == b"code"
    assert store.is_temporary(path)
    assert store.find(KEY) is None
    assert not folder.exists() or not list(folder.iterdir())


def test_without_a_home_there_is_no_cache(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("JRNN_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store.Path, "home", home)
    assert store.cache_folder() is None
    assert store.find(KEY) is None
    assert store.entries() == []
    assert store.clear() == 0
    assert not store.is_writable()


def test_each_system_has_its_place(monkeypatch, tmp_path):
    for name in ("JRNN_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store.Path, "home", lambda: tmp_path)
    places = {
        "linux": ".cache/jrnn",
        "darwin": "Library/Caches/jrnn",
        "win32": "AppData/Local/jrnn",
    }
    for platform, place in places.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert store.cache_folder() == tmp_path / place
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert store.cache_folder() == tmp_path / "local" / "jrnn"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_folder() == tmp_path / "xdg" / "jrnn"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert store.cache_folder() == tmp_path / ".cache" / "jrnn"
    monkeypatch.setenv("JRNN_CACHE_DIR", "~/own")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / "own"


def test_writers_at_once_leave_one_that_is_whole(folder):
    def write(n):
        store.keep(KEY, bytes([n]) * 1000, ABOUT)
        found = store.find(KEY)  # None where a record was replaced as it was read
        return found is None or len(set(found.read_bytes())) == 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(40)))
    assert store.find(KEY) is not None
    assert not [path for path in folder.iterdir() if path.name.startswith(".new")]


def test_only_what_jrnn_wrote_is_cleared(folder, tmp_path):
    store.keep(KEY, b"code", ABOUT)
    (folder / "zig" / "o").mkdir(parents=True)
    (folder / "zig" / "o" / "object").write_bytes(b"12345")
    (folder / "my notes.json").write_text("{}")
    (folder / "0123.so").write_text("")
    assert store.clear() > len(b"code") + 5
    kept = {"my notes.json", "0123.so"}
    assert {path.name for path in folder.iterdir()} == kept
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("")
    (folder / "zig").symlink_to(tmp_path / "elsewhere")
    store.clear()
    assert {path.name for path in folder.iterdir()} == kept
    assert (tmp_path / "elsewhere" / "file").exists()

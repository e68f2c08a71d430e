"""A crash at any moment of saving leaves a checkpoint that can be loaded."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import jrnn.train.checkpoint as checkpoint
from jrnn.train import load_checkpoint, read_metadata, save_checkpoint
from jrnn.train.checkpoint import folder

TREE = {"W": np.arange(6.0)}
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class Crash(BaseException):
    """Stands for the machine going down: nothing catches it."""


class Machine:
    """Goes down before a given one of the operations on files below a folder.

    From then on every operation fails, clean-up included: the process is dead. An audit
    hook cannot be taken away again, so that one serves all tests.
    """

    def __init__(self):
        self.root, self.left = None, 0
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.root is None or event not in EVENTS:
            return
        if not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.fspath(arguments[0]).startswith(self.root):
            return
        self.left -= 1
        if self.left < 0:
            raise Crash(event)

    @contextlib.contextmanager
    def down_after(self, count, root):
        self.root, self.left = str(root), count
        try:
            yield
        finally:
            self.root = None


@pytest.fixture(scope="module")
def machine():
    return Machine()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "last"
    save_checkpoint(path, TREE, {"position": 1})
    return path


def both(place):
    """As after a crash between the second move and the removal of the old one."""
    shutil.copytree(place, folder.older(place))


def moved(place):
    """As after a crash between the two moves."""
    place.rename(folder.older(place))


def damaged(place):
    """A damaged one beside a sound one."""
    both(place)
    (place / folder.CONTENTS).write_bytes(b"{")


def emptied(place):
    """An empty folder beside a sound one."""
    moved(place)
    place.mkdir()


STATES = {"one": lambda place: None, "both": both, "moved": moved}
STATES |= {"damaged": damaged, "emptied": emptied}
QUICK = ("one", "damaged")


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in STATES
    ],
)
@pytest.mark.filterwarnings("ignore:.*The checkpoint before it:UserWarning")
def test_a_crash_before_any_operation(saved, tmp_path, monkeypatch, machine, state):
    # What orbax writes goes to a folder that nothing reads before it is complete.
    arrays = saved / folder.ARRAYS
    write = lambda target, _: shutil.copytree(arrays, target)
    monkeypatch.setattr(checkpoint, "write_arrays", write)
    monkeypatch.setattr(folder, "_sync", lambda _: None)  # for speed
    seen, crashes = set(), 0
    for count in range(1000):
        place = tmp_path / str(count) / "last"
        shutil.copytree(saved, place)
        STATES[state](place)
        try:
            with machine.down_after(count, tmp_path):
                save_checkpoint(place, TREE, {"position": 2})
            ended = True
        except Crash:
            ended, crashes = False, crashes + 1
        seen.add(read_metadata(place)["position"])
        if crashes % 8 == 0:
            assert load_checkpoint(place, TREE)[0]["W"].tolist() == list(range(6))
        save_checkpoint(place, TREE, {"position": 3})  # what was left is no obstacle
        assert read_metadata(place) == {"position": 3}
        assert os.listdir(place.parent) == ["last"]
        if ended:
            break
    assert crashes > 20
    assert seen == {1, 2}


JOB = """
import sys
import jax, numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jrnn.train import load_checkpoint, save_checkpoint
jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
if jax.process_index() == 0:
    save_checkpoint(sys.argv[3], [np.arange(4.0), 5])
    print("saved alone")
else:
    try:
        save_checkpoint(sys.argv[3] + "-other", [])
    except ValueError as error:
        print(error)
sync_global_devices("saved")
if jax.process_index() == 1:
    print(load_checkpoint(sys.argv[3], [np.zeros(4), 0])[0])
sync_global_devices("loaded")
"""


@pytest.mark.slow
def test_one_process_of_a_job_saves_and_any_loads(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", JOB, port]
    job = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "last")],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in job]
    assert "saved alone" in said[0]
    assert "Expected process 0 of the job to save, got process 1" in said[1]
    assert "[array([0., 1., 2., 3.]), 5]" in said[1]
    assert os.listdir(tmp_path) == ["last"]


WRITER = """
import sys
import jax.numpy as jnp
from jrnn.train import save_checkpoint
for position in range(int(sys.argv[2]), 10**9):
    save_checkpoint(sys.argv[1], [jnp.full(n, position) for n in (3, 1000)],
                    {"position": position})
    print(position, flush=True)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*The checkpoint before it:UserWarning")
def test_processes_that_are_killed(tmp_path):
    rng, place, last = random.Random(0), tmp_path / "last", 0
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(place), str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            told = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])
        like = [np.zeros(3, np.int32), np.zeros(1000, np.int32)]
        got, metadata = load_checkpoint(place, like)
        last = metadata["position"]
        assert last in (told, told + 1)
        assert all((array == last).all() for array in got)

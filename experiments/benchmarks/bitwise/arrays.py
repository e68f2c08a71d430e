"""How far two results lie apart, in units in the last place."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
# What differs from run to run, or says where and by which code something was run.
PASSING = ("seconds", "time", "environment", "commit", "path", "load", "out", "speed")
PASSING += ("settings", "version", "per_second")


class Difference(NamedTuple):
    """An array that differs.

    Attributes:
      name: Its name.
      ulps: The largest difference; infinite where it is no number.
      why: In words, where the difference is no number.
    """

    name: str
    ulps: float
    why: str = ""


def ordered(values: np.ndarray) -> np.ndarray:
    """Returns unsigned integers in the order of floats; neighbours differ by one.

    -0.0 comes just before 0.0.
    """
    word = WORDS[values.dtype.itemsize]
    bits = np.ascontiguousarray(values).view(word)
    sign = word(1 << (8 * values.dtype.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def ulps(old: np.ndarray, new: np.ndarray) -> float:
    """Returns the largest distance between two arrays of one type and shape.

    Two NaN are equal, a NaN is infinitely far from a number; so are two values of a
    type that is not of floats, unless they are equal.
    """
    if old.dtype.kind == "c":
        parts = ((old.real, new.real), (old.imag, new.imag))
        return max(ulps(a, b) for a, b in parts)
    if old.dtype.kind != "f":
        return 0.0 if np.array_equal(old, new) else math.inf
    if not (np.isnan(old) == np.isnan(new)).all():
        return math.inf
    a, b = (ordered(values[~np.isnan(values)]) for values in (old, new))
    return float(np.where(a > b, a - b, b - a).max(initial=0))


def difference(name: str, old: np.ndarray, new: np.ndarray) -> Difference | None:
    """Returns how two arrays differ, None if they do not."""
    for said in ("dtype", "shape"):
        a, b = getattr(old, said), getattr(new, said)
        if a != b and old.dtype.kind != "U":
            return Difference(name, math.inf, f"{said} {a}, now {b}")
    if old.dtype.kind == "U":
        same = str(old) == str(new)
        return None if same else Difference(name, math.inf, f"{old}, now {new}")
    apart = ulps(old, new)
    return Difference(name, apart) if apart else None


def numbers_of(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the name and value of each leaf of a JSON value that no clock has set."""
    if isinstance(content, dict):
        for key, value in content.items():
            if not any(word in key.lower().split("_") for word in PASSING):
                yield from numbers_of(value, f"{name}/{key}")
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from numbers_of(value, f"{name}/{number}")
    else:
        yield name, content


def as_array(value: Any) -> np.ndarray:
    """Returns a leaf of JSON as an array: of float32 where that holds it exactly."""
    if not isinstance(value, float):
        return np.asarray(str(value))
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    return np.asarray(narrow if float(narrow) == value else value)


def losses(old: Any, new: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a number of either side, in one type of float if both are floats."""
    pair = as_array(old), as_array(new)
    if {array.dtype.kind for array in pair} != {"f"}:
        return np.asarray(str(old)), np.asarray(str(new))
    if pair[0].dtype != pair[1].dtype:
        return np.asarray(float(old)), np.asarray(float(new))
    return pair


def arrays_of(path: Path) -> dict[str, Any]:
    """Returns what a file of results holds, by name."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    return dict(numbers_of(json.loads(path.read_text(encoding="utf-8"))))


def compare(old: Path, new: Path, name: str) -> tuple[int, list[Difference]]:
    """Returns how many arrays two files share, and all differences between them."""
    sides = [arrays_of(path) for path in (old, new)]
    found, shared = [], 0
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        full = f"{name}/{key.strip('/')}"
        if not all(key in side for side in sides):
            only = "old" if key in sides[0] else "new"
            found.append(Difference(full, math.inf, f"only in the {only} commit"))
            continue
        shared += 1
        pair = sides[0][key], sides[1][key]
        found.append(
            difference(full, *(losses(*pair) if old.suffix != ".npz" else pair))
        )
    return shared, [one for one in found if one]


def compare_folders(
    old: Path, new: Path, names: list[str]
) -> tuple[int, list[Difference]]:
    """Returns how many arrays two folders share, and all differences of some files.

    Args:
      old: A folder of results.
      new: Another.
      names: The files' names within either.
    """
    found, shared = [], 0
    for name in names:
        there = [(folder / name).exists() for folder in (old, new)]
        if all(there):
            count, more = compare(old / name, new / name, name.rsplit(".", 1)[0])
            shared += count
            found += more
        else:
            only = "old" if there[0] else "new" if there[1] else "neither"
            found.append(Difference(name, math.inf, f"only in the {only} commit"))
    return shared, found

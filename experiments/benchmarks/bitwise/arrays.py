"""How far two results lie apart, in units in the last place."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
# Words in keys of JSON: set by a clock or a machine, or telling of settings and files.
PASSING = set("seconds time load speed environment commit path out settings".split())
FAILED = "failed"  # ends the name under which an error is kept that was not foreseen


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
        return max(ulps(part(old), part(new)) for part in (np.real, np.imag))
    if old.dtype.kind != "f":
        return 0.0 if np.array_equal(old, new) else math.inf
    if not (np.isnan(old) == np.isnan(new)).all():
        return math.inf
    a, b = (ordered(values[~np.isnan(values)]) for values in (old, new))
    return float(np.where(a > b, a - b, b - a).max(initial=0))


def difference(name: str, old: np.ndarray, new: np.ndarray) -> Difference | None:
    """Returns how two arrays differ, None if they do not."""
    if {old.dtype.kind, new.dtype.kind} & {"U"}:  # a refusal, or words
        same = np.array_equal(old, new)
        return None if same else Difference(name, math.inf, f"{old}, now {new}")
    for said in ("dtype", "shape"):
        a, b = getattr(old, said), getattr(new, said)
        if a != b:
            return Difference(name, math.inf, f"{said} {a}, now {b}")
    apart = ulps(old, new)
    return Difference(name, apart) if apart else None


def missing(name: str, old: bool, new: bool) -> Difference:
    """Returns the difference of what not both commits have."""
    side = "old" if old else "new"
    why = f"in the {side} commit alone" if old or new else "in neither commit"
    return Difference(name, math.inf, why)


def leaves_of(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the name and value of each leaf of a JSON value that no clock has set."""
    if isinstance(content, dict):
        for key, value in content.items():
            if not PASSING & set(key.lower().split("_")):
                yield from leaves_of(value, f"{name}/{key}".strip("/"))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from leaves_of(value, f"{name}/{number}".strip("/"))
    else:
        yield name, content


def as_array(value: Any) -> np.ndarray:
    """Returns a leaf of JSON as an array: a float as itself, else what is written."""
    return np.asarray(value if isinstance(value, float) else str(value))


def narrowed(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two numbers in float32 where that holds both exactly."""
    pair = old, new
    if any(array.dtype != np.float64 for array in pair):
        return pair
    with np.errstate(over="ignore"):
        narrow = old.astype(np.float32), new.astype(np.float32)
    same = all(np.array_equal(a, b) for a, b in zip(narrow, pair, strict=True))
    return narrow if same else pair


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Returns what a file of results holds, by name."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: as_array(value) for name, value in leaves_of(content)}


def compare(old: Path, new: Path, name: str) -> tuple[int, list[Difference]]:
    """Returns how many arrays two files share, and all differences between them."""
    a, b = arrays_of(old), arrays_of(new)
    found = []
    for key in dict.fromkeys([*a, *b]):
        full = f"{name}/{key}"
        if key not in a or key not in b:
            found.append(missing(full, key in a, key in b))
        elif key.endswith(FAILED):  # on both sides: nothing was compared
            found.append(Difference(full, math.inf, f"{a[key]}, now {b[key]}"))
        elif old.suffix == ".json":
            found.append(difference(full, *narrowed(a[key], b[key])))
        else:
            found.append(difference(full, a[key], b[key]))
    return len(a.keys() & b.keys()), [one for one in found if one]


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
            found.append(missing(name, *there))
    return shared, found

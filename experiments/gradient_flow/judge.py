"""Whether every norm is below its bound, and both halves of the argument hold."""

import math
from typing import Any

BEFORE, AFTER = "before training", "after training"
# Of the logarithms of beta and of norms: a beta this near to 1 is 1.
ROUNDING = 1e-9


def verdict(results: dict[str, Any]) -> tuple[str, bool]:
    """Returns whether every norm is below its bound, and both halves hold, in words.

    Both halves are of the networks whose beta was set: by radius, and the
    counter-examples. One of beta = 1, to `ROUNDING`, belongs to neither.
    """
    steps = results["settings"]["steps"]
    curves = [*results["by_radius"].values(), *results["counter_examples"].values()]
    trained = results["cells"].values()
    cells = [found[when] for found in trained for when in (BEFORE, AFTER)]
    broken = sum(found["broken"] for found in (*curves, *cells))
    bounded = f"{'BROKEN: norms' if broken else 'Norms'} above their bound: {broken}."
    halves = (
        _vanishing([c for c in curves if c["log_beta"] < -ROUNDING], steps),
        _exploding_or_not([c for c in curves if c["log_beta"] > ROUNDING], steps),
    )
    said = [bounded, *(line for line, _ in halves)]
    return "\n".join(said), not broken and all(good for _, good in halves)


def _end(curve: dict[str, Any], steps: int) -> float:
    """Returns the logarithm of the norm at the longest lag; of none at all, -inf."""
    end = curve["log_norms"][steps]
    return -math.inf if end is None else end


def _vanishing(below: list[dict[str, Any]], steps: int) -> tuple[str, bool]:
    """Returns whether all of beta < 1 end below their bound, and below 1."""
    count = len(below)
    if not below:
        return "beta < 1: none was measured.", True
    over = sum(_end(c, steps) > steps * c["log_beta"] + ROUNDING for c in below)
    large = sum(_end(c, steps) >= 0 for c in below)
    if over or large:
        said = f"{over} of {count} end above their bound, {large} not below norm 1"
        return f"BROKEN: beta < 1: {said}.", False
    return f"beta < 1: all {count} end below their bound and norm 1: they vanish.", True


def _exploding_or_not(above: list[dict[str, Any]], steps: int) -> tuple[str, bool]:
    """Returns whether some, and not all, of beta > 1 end below 1."""
    count = len(above)
    small = sum(_end(c, steps) < 0 for c in above)
    said = f"beta > 1: {small} of {count} end below norm 1, {count - small} not"
    if not 0 < small < count:
        why = (
            "expected some and not all, to show that explosion is permitted, not forced"
        )
        return f"BROKEN: {said}: {why}.", False
    return f"{said}: explosion is permitted, not forced.", True

"""What the convergence of Newton's method looks like: a verdict on each row, tables."""

from typing import Any

from experiments import lab
from experiments.lab.tables import grouped

# Largest normwise error of converged cases, of outputs and of gradients.
BOUNDS = {"float32": (1e-6, 1e-5), "float64": (1e-10, 1e-10)}
# A converged case beyond its bound is blamed on the problem, and not on the method, if
# moving the weights by one rounding moves the scan by a quarter of its error.
ROUNDINGS = 4.0
WITHIN, ROUNDING, BEYOND, NOT = "within", "rounding", "beyond", "not converged"
TITLES = {
    NOT: "Did not converge, and are NaN",
    ROUNDING: "Converged, beyond the bounds, as a scan is after one rounding",
    BEYOND: "BROKEN: converged, beyond the bounds",
}
ERRORS = {
    "residual": "residual",
    "outputs": "outputs",
    "outputs_rounding": "(rounding)",
    "gradients": "gradients",
    "gradients_rounding": "(rounding)",
}


def judge(row: dict[str, Any]) -> str:
    """Returns what is to be said of a row.

    Returns:
      `WITHIN` its bounds; `NOT` converged; `ROUNDING` if it is beyond them, and so is
      the scan of weights that are one rounding away, or the scan's gradient overflows;
      else `BEYOND`.
    """
    if row["converged"] < 1:
        return NOT
    found = WITHIN
    bounds = zip(("outputs", "gradients"), BOUNDS[row["dtype"]], strict=True)
    for name, bound in bounds:
        off, rounding = row[name], row[f"{name}_rounding"]
        if off is not None and off <= bound:
            continue
        if rounding is None or (off is not None and off <= ROUNDINGS * rounding):
            found = ROUNDING if found == WITHIN else found
        else:
            found = BEYOND
    return found


def plain_table(rows: list[dict[str, Any]]) -> str:
    """Returns iterations and worst errors of drawn and of trained weights."""
    rows = [row for row in rows if row["scale"] == 1]
    lengths = sorted({row["steps"] for row in rows})
    groups = grouped(rows, ("cell", "hidden", "dtype", "weights"))
    body = []
    for (cell, hidden, dtype, weights), group in groups.items():
        sequences = sum(row["batch"] for row in group)
        converged = sum(row["batch"] * row["converged"] for row in group)
        body.append(
            (
                f"{cell}, H={hidden}, {dtype}, {weights}",
                f"{converged:.0f}/{sequences}",
                *(_iterations(group, steps) for steps in lengths),
                *(shown(_worst(group, name)) for name in ERRORS),
                f"{max(row['growth'] for row in group):+.2f}",
            )
        )
    columns = (*(f"T={t:,}" for t in lengths), *ERRORS.values(), "growth")
    return lab.format_table(("iterations, worst errors", "converged", *columns), body)


def _iterations(group: list[dict[str, Any]], steps: int) -> str:
    found = [row for row in group if row["steps"] == steps]
    if any(row["converged"] < 1 for row in found):
        return "-"
    return str(max((row["iterations"] for row in found), default=""))


def _worst(group: list[dict[str, Any]], name: str) -> float | None:
    return max((row[name] for row in group if row[name] is not None), default=None)


def shown(value: float | None) -> str:
    """Returns an error as it stands in a table."""
    return "-" if value is None else f"{value:.1e}"


def scaled_table(rows: list[dict[str, Any]]) -> str:
    """Returns what became of scaled weights, for each way to iterate."""
    rows = [row for row in rows if row["scale"] != 1]
    way = lambda row: "diagonal" if row["diagonal"] else f"damping {row['damping']:g}"
    ways, body = list(dict.fromkeys(map(way, rows))), []
    groups = grouped(rows, ("cell", "scale", "steps", "dtype"))
    for (cell, scale, steps, dtype), group in groups.items():
        what = f"{cell} x {scale:g}, H={group[0]['hidden']}, T={steps:,}, {dtype}"
        by_way = {way(row): outcome(row) for row in group}
        shown = (by_way[name] for name in ways)
        body.append((what, f"{group[0]['growth']:+.2f}", *shown))
    header = ("scaled weights: iterations (error of outputs)", "growth", *ways)
    return lab.format_table(header, body)


def outcome(row: dict[str, Any]) -> str:
    """Returns iterations and error of a row, or how many of it converged."""
    if row["converged"] == 1:
        return f"{row['iterations']} ({shown(row['outputs'])})"
    return f"{row['converged'] * row['batch']:.0f} of {row['batch']}"


def progress(row: dict[str, Any]) -> str:
    """Returns one line about a row that was just made."""
    return (
        f"{row['name']}: {outcome(row)}, residual {shown(row['residual'])}, gradients "
        f"{shown(row['gradients'])}, growth {row['growth']:+.2f}: {judge(row)}"
    )


def verdict(rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """Returns the last lines, and whether no error is the method's."""
    by = {
        kind: [row for row in rows if judge(row) == kind] for kind in (*TITLES, WITHIN)
    }
    lines = []
    for kind, title in TITLES.items():
        if by[kind]:
            lines.append(f"{title} ({len(by[kind])}):")
            lines += [f"  {_describe(row)}" for row in by[kind]]
    wrong = [row for row in rows if row["wrong_number"]]
    if wrong:
        lines.append(f"BROKEN: numbers without convergence ({len(wrong)}):")
        lines += [f"  {row['name']}" for row in wrong]
    converged, kept = len(rows) - len(by[NOT]), len(by[WITHIN])
    if kept == converged:
        lines.append(f"All converged cases within bounds: {kept} of {len(rows)} cases.")
    else:
        lines.append(f"{kept} of {converged} converged cases within bounds.")
    return "\n".join(lines), not (by[BEYOND] or wrong)


def _describe(row: dict[str, Any]) -> str:
    if row["converged"] < 1:
        return f"{row['name']}: {outcome(row)} converged, growth {row['growth']:+.2f}"
    return (
        f"{row['name']}: outputs {shown(row['outputs'])} (rounding "
        f"{shown(row['outputs_rounding'])}), gradients {shown(row['gradients'])} "
        f"(rounding {shown(row['gradients_rounding'])})"
    )

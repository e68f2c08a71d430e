"""What a forecast has to say: tables, and a figure with a fan."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.dates import ConciseDateFormatter

from experiments import lab
from experiments.forecast.table import date
from experiments.lab import figures
from experiments.lab.figures import COLOURS, GREY

SHADES = {"90": 0.18, "50": 0.35}
LINE = 0.065  # of the height: the least distance between two labels
FAN = {"90": (0.05, 0.95), "50": (0.25, 0.75)}
INTERVAL = "95% interval"


def tables(results: dict[str, Any]) -> str:
    """Returns the scores of every model, and what the networks gain."""
    return f"{_scores(results)}\n\n{_gains(results)}"


def _scores(results: dict[str, Any]) -> str:
    horizon = results["settings"]["horizon"]
    percent = lambda one: f"{100 * one['mean']:.0f}%"
    columns = {
        "model": lambda row: row[0],
        "CRPS": lambda row: lab.spread(row[1]["crps"], ".4g"),
        INTERVAL: lambda row: lab.span(row[1]["crps_interval"], ".4g"),
        "error of the next value": lambda row: f"{row[1]['error_by_horizon'][0]:.4g}",
        f"of value {horizon}": lambda row: f"{row[1]['error_by_horizon'][-1]:.4g}",
        "inside 50%": lambda row: percent(row[1]["inside"]["50"]),
        "inside 90%": lambda row: percent(row[1]["inside"]["90"]),
    }
    note = (
        f"(CRPS: mean over the next {horizon} values, in their unit, lower is better; "
        "error: mean absolute error of the median)"
    )
    return f"{lab.table_of(results['test'].items(), columns)}\n{note}"


def _gains(results: dict[str, Any]) -> str:
    rows = [
        (f"{name} below {other}", one)
        for name, others in results["lower"].items()
        for other, one in others.items()
    ]
    columns = {
        "CRPS": lambda row: row[0],
        "lower by": lambda row: f"{row[1]['mean']:.4g}",
        INTERVAL: lambda row: lab.span(row[1]["interval"], ".4g"),
        "percent": lambda row: f"{100 * row[1]['relative']:.1f}",
    }
    return lab.table_of(rows, columns)


def fan_of(
    drawn: np.ndarray, times: np.ndarray, past: np.ndarray, values: np.ndarray
) -> dict[str, Any]:
    """Returns what the fan chart shows, as a results file holds it.

    Args:
      drawn: Sorted samples of one forecast, (H, draws).
      times: At which they are due, (H,).
      past: Times of the values before and among them.
      values: These values.
    """
    bands = {
        name: np.quantile(drawn, ends, axis=-1).tolist() for name, ends in FAN.items()
    }
    return {
        "times": times.tolist(),
        "median": np.median(drawn, axis=-1).tolist(),
        "bands": bands,
        "past": past.tolist(),
        "values": values.tolist(),
    }


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws a forecast as a fan, and the CRPS of every model by horizon."""
    figure = figures.figure_of(9.5, 4.2)
    fan, crps = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_fan(fan, results)
    _draw_crps(crps, results)
    figures.tidy((fan, crps))
    figures.save(figure, path)


def _draw_fan(axes: Any, results: dict[str, Any]) -> None:
    shown, columns = results["fan"], results["setup"]["columns"]
    dated = results["setup"]["dated"]
    place = lambda times: (
        np.array(times).round().astype("datetime64[s]") if dated else np.array(times)
    )
    for name, (low, high) in shown["bands"].items():
        axes.fill_between(
            place(shown["times"]), low, high, color=COLOURS[0], alpha=SHADES[name], lw=0
        )
    axes.plot(place(shown["times"]), shown["median"], color=COLOURS[0])
    axes.plot(place(shown["past"]), shown["values"], color="black", lw=1, marker=".")
    axes.axvline(place(shown["times"][:1])[0], color=GREY, lw=0.8, ls=":")
    if dated:
        axes.xaxis.set_major_formatter(
            ConciseDateFormatter(axes.xaxis.get_major_locator())
        )
    title = f"{shown['model']} from {_told(shown['from'], dated)}: median, 50%, 90%"
    figures.describe(axes, title, columns["time"], columns["value"])


def _told(time: float, dated: bool) -> str:
    return date(time) if dated else f"{time:g}"


def _draw_crps(axes: Any, results: dict[str, Any]) -> None:
    horizons = np.arange(1, results["settings"]["horizon"] + 1)
    ends = {n: one["crps_by_horizon"][-1] for n, one in results["test"].items()}
    top = max(max(one["crps_by_horizon"]) for one in results["test"].values())
    places = apart(ends, LINE * top)
    for colour, (name, one) in figures.coloured(results["test"].items()):
        axes.plot(horizons, one["crps_by_horizon"], color=colour)
        axes.annotate(
            name,
            (1.02, places[name]),
            xycoords=("axes fraction", "data"),
            color=colour,
            fontsize=9,
            va="center",
        )
    figures.describe(axes, "CRPS, lower is better", "values ahead")
    axes.set_ylim(0, 1.05 * top)


def apart(ends: dict[str, float], least: float) -> dict[str, float]:
    """Returns places of labels, near their lines' ends and `least` apart.

    >>> apart({"a": 1.0, "b": 1.0, "c": 5.0}, 0.5)
    {'a': 1.0, 'b': 1.5, 'c': 5.0}
    """
    places: dict[str, float] = {}
    for name in sorted(ends, key=lambda name: ends[name]):
        below = max(places.values(), default=-np.inf)
        places[name] = max(ends[name], below + least)
    return places


def rows_of(
    names: list[str], times: np.ndarray, drawn: np.ndarray, dated: bool
) -> list[dict[str, Any]]:
    """Returns a row for each series and horizon: time, median and central intervals.

    Args:
      names: Of the series, (O,).
      times: (H, O).
      drawn: Sorted samples, (H, O, draws).
      dated: Whether times are dates.
    """
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    quantiles = np.quantile(drawn, levels, axis=-1)
    return [
        {
            **({"series": name} if name else {}),
            "time": date(float(times[h, o])) if dated else float(times[h, o]),
            **{
                f"{100 * p:g}%": float(q[h, o])
                for p, q in zip(levels, quantiles, strict=True)
            },
        }
        for o, name in enumerate(names)
        for h in range(len(times))
    ]


def forecast_table(rows: list[dict[str, Any]]) -> str:
    """Returns rows of `rows_of` as a table."""
    shown = lambda value: f"{value:.6g}" if isinstance(value, float) else value
    columns = {name: lambda row, name=name: shown(row[name]) for name in rows[0]}
    return lab.table_of(rows, columns)

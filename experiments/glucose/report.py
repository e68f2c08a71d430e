"""What the experiment on glucose has to say: tables, and a figure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import lab
from experiments.data.glucose import STEP_MINUTES
from experiments.glucose.judge import LEVELS
from experiments.glucose.problem import HORIZONS
from experiments.lab import figures
from experiments.lab.figures import GREY

STYLES = ("-", "--")
INTERVAL = "95% interval"


def tables(results: dict[str, Any]) -> str:
    """Returns errors and coverage of each model, and what the networks gain."""
    parts = (_errors, _lags, _coverage, _gains)
    return "\n\n".join(part(results) for part in parts)


def _by_horizon(
    title: str,
    rows: dict[str, Any],
    columns: tuple[str, ...],
    cells: Callable[[Any], tuple[str, ...]],
) -> str:
    """Returns a table in which columns repeat for each horizon, as `cells` shows it."""
    header = [title, *(name.format(h) for h in HORIZONS for name in columns)]
    body = [
        [name, *(cell for h in HORIZONS for cell in cells(row[str(h)]))]
        for name, row in rows.items()
    ]
    return lab.format_table(header, body)


def _errors(results: dict[str, Any]) -> str:
    cells = lambda one: (
        lab.spread(one["rmse"], ".2f"),
        lab.span(one["rmse_interval"], ".1f"),
        lab.spread(one["nats"], ".3f"),
    )
    title, columns = "root mean squared error, mg/dL", ("{} min", INTERVAL, "nats")
    return _by_horizon(title, results["test"], columns, cells)


def _lags(results: dict[str, Any]) -> str:
    rows = {
        name: {h: {**one, **results["lags"][name][h]} for h, one in found.items()}
        for name, found in results["test"].items()
    }
    cells = lambda one: (lab.spread(one["mard"], ".1f"), f"{one['lag']['mean']:.0f}")
    title = "mean absolute relative difference, and lag"
    table = _by_horizon(title, rows, ("{} min, %", "lag, minutes"), cells)
    note = "(lag: the forecast fits the reading so many minutes before its time best)"
    return f"{table}\n{note}"


def _coverage(results: dict[str, Any]) -> str:
    share = lambda one: (
        f"{100 * one['mean']:.1f}",
        lab.span([100 * x for x in one["interval"]], ".1f"),
    )
    cells = lambda one: (*share(one["coverage"]["50"]), *share(one["coverage"]["90"]))
    columns = ("{} min, 50", INTERVAL, "{} min, 90", INTERVAL)
    title = "share in the central interval, %"
    return _by_horizon(title, results["test"], columns, cells)


def _gains(results: dict[str, Any]) -> str:
    rows = {
        f"{name} than {other}": found
        for name, others in results["lower"].items()
        for other, found in others.items()
    }
    cells = lambda one: (f"{one['lower_by']:.2f}", lab.span(one["interval"], ".2f"))
    table = _by_horizon("lower error, mg/dL", rows, ("{} min", INTERVAL), cells)
    days = f"(intervals: bootstrap of {results['days']} whole days of the test part)"
    return f"{table}\n{days}"


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draws errors, calibration, lags and a day.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
    """
    figure = figures.figure_of(15.5, 8.6)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.0, 1.0))
    panels = [figure.add_subplot(grid[0, place]) for place in range(3)]
    _errors_panel(panels[0], results["test"])
    _calibration_panel(panels[1], results["test"])
    _lags_panel(panels[2], results["lags"])
    panels.append(figure.add_subplot(grid[1, :]))
    _day_panel(panels[3], results["day"], results["lags"])
    figures.tidy(panels)
    figures.save(figure, path)


def _errors_panel(axes: Axes, test: dict[str, Any]) -> None:
    names = list(test)
    for h, (horizon, colour) in enumerate(zip(HORIZONS, figures.COLOURS, strict=False)):
        for place, name in enumerate(names):
            found = test[name][str(horizon)]
            at = len(names) - place + 0.14 * (1 - 2 * h)
            label = f"{horizon} minutes ahead" if place == 0 else None
            axes.plot(found["rmse_interval"], [at, at], color=colour, linewidth=1.4)
            axes.plot(found["rmse"]["mean"], at, "o", color=colour, label=label)
    axes.set_yticks(range(len(names), 0, -1), names)
    axes.set_ylim(0.4, len(names) + 1.3)  # room for the legend
    axes.set_xlim(left=0)
    title = "Error, with 95% intervals from whole days"
    below = "root mean squared error on the test part (mg/dL)"
    figures.describe(axes, title, below, ncols=2, loc="upper center")


def _calibration_panel(axes: Axes, test: dict[str, Any]) -> None:
    nominal = 100 * np.asarray(LEVELS)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    shown = _shown(test)
    for colour, name in figures.coloured(shown):
        for horizon, style in zip(HORIZONS, STYLES, strict=True):
            observed = 100 * np.asarray(test[name][str(horizon)]["calibration"])
            axes.plot(nominal, observed, style, color=colour, linewidth=1.3)
    title = "Calibration: above the diagonal, intervals are too wide"
    labels = ("central interval (%)", "test readings within it (%)")
    legend = {"handles": _handles(shown), "loc": "upper left"}
    figures.describe(axes, title, *labels, **legend)


def _shown(test: dict[str, Any]) -> list[str]:
    """Returns models whose curves differ: those left out lie on one of these."""
    return [n for n in test if not n.endswith(("direct", "no clock", "LSTM"))]


def _handles(shown: list[str]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, label=name)
        for colour, name in figures.coloured(shown)
    ]
    handles += [
        Line2D([], [], color=GREY, linestyle=style, label=f"{horizon} minutes ahead")
        for horizon, style in zip(HORIZONS, STYLES, strict=True)
    ]
    return handles


def _lags_panel(axes: Axes, lags: dict[str, Any]) -> None:
    """Error against the readings before the time that is forecast; dots: the lags."""
    shown = _shown(lags)
    for colour, name in figures.coloured(shown):
        for horizon, style in zip(map(str, HORIZONS), STYLES, strict=True):
            errors = np.asarray(lags[name][horizon]["rmse_by_shift"])
            shifts = STEP_MINUTES * np.arange(len(errors))
            least = int(errors.argmin())
            axes.plot(shifts, errors, style, color=colour, linewidth=1.3)
            axes.plot(shifts[least], errors[least], "o", color=colour, markersize=5)
    axes.set_ylim(-1, 1.5 * axes.get_ylim()[1])  # room for the legend
    title = "Lag (dots): which reading a forecast fits best"
    below = "minutes by which the reading is earlier"
    beside = "root mean squared error (mg/dL)"
    legend = {"handles": _handles(shown), "ncols": 2, "loc": "upper left"}
    figures.describe(axes, title, below, beside, **legend)


def _day_panel(axes: Axes, day: dict[str, Any], lags: dict[str, Any]) -> None:
    hour = np.asarray(day["hours"])
    mean, low, high, now = (
        np.asarray(day[name]) for name in ("mean", "low", "high", "now")
    )
    at = hour + day["horizon"] / 60
    # A gap stays a gap: no line crosses what is longer than a step of the monitor.
    cuts = 1 + np.flatnonzero(np.diff(hour) > 0.2)
    pieces = np.split(np.arange(len(hour)), cuts)
    blue, red = figures.COLOURS[:2]
    for i, piece in enumerate(pieces):
        label = lambda text, i=i: text if i == 0 else None
        band = {"alpha": 0.2, "linewidth": 0, "label": label("central 90% interval")}
        axes.fill_between(at[piece], low[piece], high[piece], color=blue, **band)
        said = f"{day['model']}, told {day['horizon']} minutes before"
        axes.plot(at[piece], mean[piece], color=blue, label=label(said))
    axes.plot(hour, now, ".", color=red, markersize=4, label="readings")
    axes.set_xticks(range(0, 25, 3))
    axes.set_xlim(0, 24.7)
    late = lags[day["model"]][str(day["horizon"])]["lag"]["values"][0]
    title = "The test day with most readings, the first seed: forecasts lag"
    title = f"{title} ({late:.0f} minutes over the test part)"
    labels = (f"hour of {day['date']}", "glucose (mg/dL)")
    figures.describe(axes, title, *labels, ncols=3, loc="upper left")

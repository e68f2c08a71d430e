"""What the experiment on glucose has to say: tables, and a figure."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import lab
from experiments.data.glucose import STEP_MINUTES
from experiments.glucose.problem import HORIZONS
from experiments.glucose.scoring import LEVELS
from experiments.lab import figures
from experiments.lab.figures import GREY

STYLES = ("-", "--")


def tables(results: dict[str, Any]) -> str:
    """Returns errors and coverage of each model, and what the networks gain."""
    parts = (_errors, _lags, _coverage, _gains)
    return "\n\n".join(part(results) for part in parts)


def _errors(results: dict[str, Any]) -> str:
    header = ["root mean squared error, mg/dL"]
    for horizon in HORIZONS:
        header += [f"{horizon} min", "95% interval", "nats"]
    body = []
    for name, found in results["test"].items():
        row = [name]
        for horizon in HORIZONS:
            one = found[str(horizon)]
            row += [
                lab.spread(one["rmse"], ".2f"),
                lab.span(one["rmse_interval"], ".1f"),
                lab.spread(one["nats"], ".3f"),
            ]
        body.append(row)
    return lab.format_table(header, body)


def _lags(results: dict[str, Any]) -> str:
    header = ["mean absolute relative difference, and lag"]
    for horizon in HORIZONS:
        header += [f"{horizon} min, %", "lag, minutes"]
    body = []
    for name, found in results["test"].items():
        row = [name]
        for horizon in map(str, HORIZONS):
            lag = results["lags"][name][horizon]["lag"]
            row += [lab.spread(found[horizon]["mard"], ".1f"), f"{lag['mean']:.0f}"]
        body.append(row)
    note = "(lag: the forecast fits the reading so many minutes before its time best)"
    return f"{lab.format_table(header, body)}\n{note}"


def _coverage(results: dict[str, Any]) -> str:
    header = ["share in the central interval, %"]
    columns = [(h, c) for h in HORIZONS for c in ("50", "90")]
    for horizon, central in columns:
        header += [f"{horizon} min, {central}", "95% interval"]
    body = []
    for name, found in results["test"].items():
        row = [name]
        for horizon, central in columns:
            one = found[str(horizon)]["coverage"][central]
            row += [
                f"{100 * one['mean']:.1f}",
                lab.span([100 * x for x in one["interval"]], ".1f"),
            ]
        body.append(row)
    return lab.format_table(header, body)


def _gains(results: dict[str, Any]) -> str:
    header = ["lower error, mg/dL"]
    for horizon in HORIZONS:
        header += [f"{horizon} min", "95% interval"]
    body = []
    for name, others in results["lower"].items():
        for other, found in others.items():
            row = [f"{name} than {other}"]
            for horizon in HORIZONS:
                one = found[str(horizon)]
                row += [f"{one['lower_by']:.2f}", lab.span(one["interval"], ".2f")]
            body.append(row)
    days = f"(intervals: bootstrap of {results['days']} whole days of the test part)"
    return f"{lab.format_table(header, body)}\n{days}"


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
            low, high = found["rmse_interval"]
            axes.plot([low, high], [at, at], color=colour, linewidth=1.4)
            axes.plot(
                found["rmse"]["mean"],
                at,
                "o",
                color=colour,
                label=f"{horizon} minutes ahead" if place == 0 else None,
            )
    axes.set_yticks(range(len(names), 0, -1), names)
    axes.set_ylim(0.4, len(names) + 1.3)  # room for the legend
    axes.set_xlim(left=0)
    axes.set_xlabel("root mean squared error on the test part (mg/dL)")
    axes.set_title("Error, with 95% intervals from whole days", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")


def _calibration_panel(axes: Axes, test: dict[str, Any]) -> None:
    nominal = 100 * np.asarray(LEVELS)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    shown = _shown(test)
    for colour, name in figures.coloured(shown):
        for horizon, style in zip(HORIZONS, STYLES, strict=True):
            observed = 100 * np.asarray(test[name][str(horizon)]["calibration"])
            axes.plot(nominal, observed, style, color=colour, linewidth=1.3)
    axes.set_xlabel("central interval (%)")
    axes.set_ylabel("test readings within it (%)")
    axes.set_title(
        "Calibration: above the diagonal, intervals are too wide", fontsize=10
    )
    axes.legend(handles=_handles(shown), frameon=False, fontsize=8, loc="upper left")


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
    axes.legend(
        handles=_handles(shown), frameon=False, fontsize=8, ncols=2, loc="upper left"
    )
    axes.set_xlabel("minutes by which the reading is earlier")
    axes.set_ylabel("root mean squared error (mg/dL)")
    axes.set_title("Lag (dots): which reading a forecast fits best", fontsize=10)


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
        axes.fill_between(
            at[piece],
            low[piece],
            high[piece],
            color=blue,
            alpha=0.2,
            linewidth=0,
            label=label("central 90% interval"),
        )
        said = f"{day['model']}, told {day['horizon']} minutes before"
        axes.plot(at[piece], mean[piece], color=blue, label=label(said))
    axes.plot(hour, now, ".", color=red, markersize=4, label="readings")
    axes.set_xlabel(f"hour of {day['date']}")
    axes.set_ylabel("glucose (mg/dL)")
    axes.set_xticks(range(0, 25, 3))
    axes.set_xlim(0, 24.7)
    late = lags[day["model"]][str(day["horizon"])]["lag"]["values"][0]
    title = "The test day with most readings, the first seed: forecasts lag"
    axes.set_title(f"{title} ({late:.0f} minutes over the test part)", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")

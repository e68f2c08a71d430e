"""What the experiment on the electrocardiogram has to say: tables, and a figure."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes

from experiments import lab
from experiments.data.ecg import HERTZ, UNITS_PER_MV
from experiments.ecg.beats import Beats, surprise
from experiments.ecg.scoring import smooth
from experiments.lab import figures
from experiments.lab.figures import GREY

SECONDS = 10  # of generated and of recorded trace side by side
STRIP_SECONDS = 20  # of trace with the surprise below it
SMOOTH_SECONDS = 0.2
BLUE, RED, GREEN = figures.COLOURS[:3]


class Traces(NamedTuple):
    """What the figure shows sample by sample.

    Attributes:
      recorded: The test part, units.
      generated: What the network shown makes up, units.
      autoregressed: What AR(16) makes up, units.
      nats: Of each sample of the test part under the network shown, mean over seeds.
      beats: Of the test part.
      wide: Which are wide.
    """

    recorded: Int[np.ndarray, " T"]
    generated: Int[np.ndarray, " S"]
    autoregressed: Float[np.ndarray, " S"]
    nats: Float[np.ndarray, " T"]
    beats: Beats
    wide: Bool[np.ndarray, " n"]


def tables(results: dict[str, Any]) -> str:
    """Returns likelihoods, how surprise ranks wide beats, and what was generated."""
    return "\n\n".join([_nats(results), _beats(results), _generated(results)])


def _nats(results: dict[str, Any]) -> str:
    header = [
        "held-out nats per sample",
        "mean",
        "95% interval",
        "fewer than reference",
        "95% interval",
        "validation",
        "chosen there",
    ]
    body = []
    for name, found in results["test"].items():
        body.append(
            [
                name,
                lab.spread(found["nats"], ".3f"),
                lab.span(found["interval"], ".3f"),
                f"{found['fewer']:.3f}",
                lab.span(found["fewer_interval"], ".3f"),
                *_chosen(name, results["fitted"]),
            ]
        )
    for name, nats in results["yardsticks"].items():
        body.append([name, f"{nats:.3f}", *[""] * 5])
    block = results["settings"]["block_seconds"]
    return (
        f"{lab.format_table(header, body)}\n"
        f"(± over seeds; intervals: bootstrap of stretches of {block:g} seconds; the "
        f"reference is the best on validation, {results['best_reference']})"
    )


def _chosen(name: str, fitted: dict[str, Any]) -> tuple[str, str]:
    """Returns nats on the validation part, and what they chose of a reference."""
    if name in fitted["networks"]:
        return f"{fitted['networks'][name]['valid_nats']['mean']:.3f}", ""
    row = fitted["references"][name]
    chosen = ", ".join(f"{k} {v:g}" for k, v in row["chosen"].items())
    return f"{row['valid_nats']:.3f}", chosen


def _beats(results: dict[str, Any]) -> str:
    beats = results["beats"]
    body = [
        [
            name,
            "-{:g}..{:g} s".format(*found["window"]),
            f"{found['area']:.3f}",
            lab.span(found["interval"], ".3f"),
        ]
        for name, found in beats["by_model"].items()
        if found["area"] is not None
    ]
    table = lab.format_table(
        ["surprise ranks wide beats", "around the peak", "area", "95% interval"], body
    )
    width = 1000 * beats["least_wide_seconds"]
    return (
        f"{table}\n({beats['wide']} of {beats['beats']} beats are wide, above "
        f"{width:.0f} ms at half height: a rule, no cardiologist's labels)"
    )


def _generated(results: dict[str, Any]) -> str:
    made = results["generated"]
    rows = [("recorded", made["recorded"])]
    rows += [
        (f"{made['network']}, seed {seed}", found)
        for seed, found in zip(
            results["settings"]["seeds"], made["by_seed"], strict=True
        )
    ]
    body = [
        [
            name,
            str(found["beats"]),
            str(found["wide"]),
            f"{found['least_mv']:.2f}..{found['greatest_mv']:.2f}",
        ]
        for name, found in rows
    ]
    header = [f"{made['seconds']} seconds", "beats", "wide", "mV"]
    return lab.format_table(header, body)


def draw(path: Path, results: dict[str, Any], traces: Traces) -> None:
    """Draws traces, surprise along the record, likelihoods, and surprise by beat.

    Args:
      path: Where the PNG goes.
      results: As the JSON file has them.
      traces: Of the same run.
    """
    figure = figures.figure_of(12.0, 15.0)
    grid = figure.add_gridspec(6, 2, height_ratios=(1, 1, 1, 0.9, 0.8, 1.6))
    network = results["fitted"]["shown"]
    _traces_panels([figure.add_subplot(grid[i, :]) for i in range(3)], network, traces)
    strip = figure.add_subplot(grid[3, :])
    _strip_panel(strip, traces)
    _surprise_panel(figure.add_subplot(grid[4, :], sharex=strip), network, traces)
    _nats_panel(figure.add_subplot(grid[5, 0]), results)
    _beats_panel(figure.add_subplot(grid[5, 1]), results, traces)
    figures.tidy(figure.axes)
    figures.save(figure, path)


def _traces_panels(panels: list[Axes], network: str, traces: Traces) -> None:
    shown = (
        ("recorded", traces.recorded, "black"),
        (f"made up by the {network}, first seed", traces.generated, BLUE),
        ("made up by AR(16)", traces.autoregressed, RED),
    )
    cut = [units[: SECONDS * HERTZ] / UNITS_PER_MV for _, units, _ in shown]
    low, high = min(mv.min() for mv in cut), max(mv.max() for mv in cut)
    for axes, (label, _, colour), mv in zip(panels, shown, cut, strict=True):
        axes.plot(np.arange(len(mv)) / HERTZ, mv, color=colour, linewidth=0.9)
        axes.set_ylim(low - 0.2, high + 0.2)  # one scale: a level that drifts is seen
        axes.set_ylabel("mV")
        axes.set_xlabel("seconds after the start of the test part")
        axes.set_title(label, fontsize=9, loc="left")


def _window(traces: Traces) -> slice:
    return slice(0, min(STRIP_SECONDS * HERTZ, len(traces.recorded)))


def _strip_panel(axes: Axes, traces: Traces) -> None:
    own = _window(traces)
    mv = traces.recorded[own] / UNITS_PER_MV
    axes.plot(np.arange(len(mv)) / HERTZ, mv, color="black", linewidth=0.9)
    for wide, colour, marker, label in (
        (True, RED, "v", "wide beat"),
        (False, GREEN, ".", "other beat"),
    ):
        at = traces.beats.at[traces.wide == wide]
        at = at[at < own.stop]
        axes.plot(
            at / HERTZ, mv[at] + 0.25, marker, color=colour, markersize=5, label=label
        )
    axes.set_ylim(top=float(mv.max()) + 1.0)  # room for the legend
    axes.set_ylabel("mV")
    axes.set_title("Recorded, with beats found by a rule", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")


def _surprise_panel(axes: Axes, network: str, traces: Traces) -> None:
    own = _window(traces)
    width = round(SMOOTH_SECONDS * HERTZ)
    nats = smooth(traces.nats, width)[own]
    axes.plot(np.arange(len(nats)) / HERTZ, nats, color=BLUE, linewidth=1.0)
    axes.axhline(float(traces.nats.mean()), color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylabel("nats per sample")
    axes.set_xlabel("seconds after the start of the test part")
    axes.set_title(
        f"Surprise of the {network}, mean over {SMOOTH_SECONDS:g} seconds; dashed: of "
        "the whole test part",
        fontsize=10,
    )


def _nats_panel(axes: Axes, results: dict[str, Any]) -> None:
    test = results["test"]
    names = sorted(test, key=lambda name: -test[name]["nats"]["mean"])
    for place, name in enumerate(names):
        colour = BLUE if name in results["fitted"]["networks"] else GREY
        axes.plot(test[name]["interval"], [place, place], color=colour, linewidth=1.4)
        axes.plot(test[name]["nats"]["mean"], place, "o", color=colour)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("nats per sample of the test part")
    axes.set_title("Likelihood, with 95% intervals", fontsize=10)


def _beats_panel(axes: Axes, results: dict[str, Any], traces: Traces) -> None:
    """Shows width against surprise: what the rule sees, and what the network says."""
    network = results["fitted"]["shown"]
    ranked = results["beats"]["by_model"][network]
    told = surprise(traces.nats, traces.beats, ranked["window"])
    for wide, colour, marker, label in (
        (True, RED, "v", "wide beat"),
        (False, GREEN, "o", "other beat"),
    ):
        own = traces.wide == wide
        axes.plot(
            1000 * traces.beats.width[own],
            told[own],
            marker,
            color=colour,
            markersize=4,
            label=label,
        )
    area = ranked["area"]
    axes.set_xlabel("width of the beat at half height (ms)")
    axes.set_ylabel("nats per sample")
    axes.set_title(
        f"Surprise of each beat, {network}"
        + ("" if area is None else f": area under the curve {area:.2f}"),
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left")

"""What the experiment on the electrocardiogram has to say: tables, and a figure."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes

from experiments import lab
from experiments.data.ecg import HERTZ, UNITS_PER_MV
from experiments.ecg.judge import Beats, smooth, surprise
from experiments.lab import figures
from experiments.lab.figures import GREY

SECONDS = 10  # of generated and of recorded trace side by side
STRIP_SECONDS = 20  # of trace with the surprise below it
SMOOTH_SECONDS = 0.2
SINCE = "seconds after the start of the test part"
BLUE, RED, GREEN = figures.COLOURS[:3]
# Whether a beat is wide, and how it is drawn then.
KINDS = ((True, RED, "v", "wide beat"), (False, GREEN, "o", "other beat"))


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
    header = ["held-out nats per sample", "mean", "95% interval"]
    header += ["fewer than reference", "95% interval", "validation", "chosen there"]
    body = [
        [
            name,
            lab.spread(found["nats"], ".3f"),
            lab.span(found["interval"], ".3f"),
            f"{found['fewer']:.3f}",
            lab.span(found["fewer_interval"], ".3f"),
            *_chosen(name, results["fitted"]),
        ]
        for name, found in results["test"].items()
    ]
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
    known = [(k, v) for k, v in beats["by_model"].items() if v["area"] is not None]
    columns = {
        "surprise ranks wide beats": lambda row: row[0],
        "around the peak": lambda row: "-{:g}..{:g} s".format(*row[1]["window"]),
        "area": lambda row: f"{row[1]['area']:.3f}",
        "95% interval": lambda row: lab.span(row[1]["interval"], ".3f"),
    }
    table = lab.table_of(known, columns)
    width = 1000 * beats["least_wide_seconds"]
    return (
        f"{table}\n({beats['wide']} of {beats['beats']} beats are wide, above "
        f"{width:.0f} ms at half height: a rule, no cardiologist's labels)"
    )


def _generated(results: dict[str, Any]) -> str:
    made = results["generated"]
    seeds = zip(results["settings"]["seeds"], made["by_seed"], strict=True)
    rows = [(f"{made['network']}, seed {seed}", found) for seed, found in seeds]
    columns = {
        f"{made['seconds']} seconds": lambda row: row[0],
        ("beats", "wide"): lambda row: (str(row[1]["beats"]), str(row[1]["wide"])),
        "mV": lambda row: "{least_mv:.2f}..{greatest_mv:.2f}".format(**row[1]),
    }
    return lab.table_of([("recorded", made["recorded"]), *rows], columns)


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
        figures.describe(axes, None, SINCE, "mV")
        axes.set_title(label, fontsize=9, loc="left")


def _window(traces: Traces) -> slice:
    return slice(0, min(STRIP_SECONDS * HERTZ, len(traces.recorded)))


def _strip_panel(axes: Axes, traces: Traces) -> None:
    own = _window(traces)
    mv = traces.recorded[own] / UNITS_PER_MV
    axes.plot(np.arange(len(mv)) / HERTZ, mv, color="black", linewidth=0.9)
    for wide, colour, marker, label in KINDS:
        at = traces.beats.at[traces.wide == wide]
        at = at[at < own.stop]
        look = {"marker": marker if wide else ".", "linestyle": "none", "markersize": 5}
        axes.plot(at / HERTZ, mv[at] + 0.25, color=colour, label=label, **look)
    axes.set_ylim(top=float(mv.max()) + 1.0)  # room for the legend
    title = "Recorded, with beats found by a rule"
    figures.describe(axes, title, beside="mV", ncols=2, loc="upper right")


def _surprise_panel(axes: Axes, network: str, traces: Traces) -> None:
    own = _window(traces)
    width = round(SMOOTH_SECONDS * HERTZ)
    nats = smooth(traces.nats, width)[own]
    axes.plot(np.arange(len(nats)) / HERTZ, nats, color=BLUE, linewidth=1.0)
    axes.axhline(float(traces.nats.mean()), color=GREY, linewidth=0.8, linestyle="--")
    title = f"Surprise of the {network}, mean over {SMOOTH_SECONDS:g} seconds; dashed: "
    title += "of the whole test part"
    figures.describe(axes, title, SINCE, "nats per sample")


def _nats_panel(axes: Axes, results: dict[str, Any]) -> None:
    test = results["test"]
    names = sorted(test, key=lambda name: -test[name]["nats"]["mean"])
    for place, name in enumerate(names):
        colour = BLUE if name in results["fitted"]["networks"] else GREY
        axes.plot(test[name]["interval"], [place, place], color=colour, linewidth=1.4)
        axes.plot(test[name]["nats"]["mean"], place, "o", color=colour)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    title = "Likelihood, with 95% intervals"
    figures.describe(axes, title, "nats per sample of the test part")


def _beats_panel(axes: Axes, results: dict[str, Any], traces: Traces) -> None:
    """Shows width against surprise: what the rule sees, and what the network says."""
    network = results["fitted"]["shown"]
    ranked = results["beats"]["by_model"][network]
    told = surprise(traces.nats, traces.beats, ranked["window"])
    for wide, colour, marker, label in KINDS:
        own = traces.wide == wide
        ms = 1000 * traces.beats.width[own]
        axes.plot(ms, told[own], marker, color=colour, markersize=4, label=label)
    area, title = ranked["area"], f"Surprise of each beat, {network}"
    title += "" if area is None else f": area under the curve {area:.2f}"
    below = "width of the beat at half height (ms)"
    figures.describe(axes, title, below, "nats per sample", loc="upper left")

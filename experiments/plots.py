"""Figures of the experiments, drawn without a display and readable without the text."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments._report import atomically

# Okabe and Ito's palette, told apart by readers with any colour vision:
# https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FIGURE_SIZE = (7.5, 4.8)  # inches
DOTS_PER_INCH = 130
# Labels at the right edge keep at least this share of the axis between them.
LABEL_GAP = 0.042

Points = Sequence[tuple[float, float]]


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)  # the figure keeps it; no global state of pyplot
    with atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight")


def learning_curves(
    path: Path, curves: Mapping[str, Points], levels: Mapping[str, float], title: str
) -> None:
    """Validation bits per character against training characters read.

    Args:
      path: where the PNG goes.
      curves: for each model its (characters read, bits per character), in order.
      levels: bits per character of what does not learn step by step: dashed lines.
      title: the figure's title.
    """
    figure = Figure(figsize=FIGURE_SIZE)
    axes = figure.subplots()
    _curves(axes, curves)
    _levels(axes, levels, "#777777")
    axes.set_xlabel("training characters read (millions)")
    axes.set_ylabel("bits per character, validation")
    _finish(axes, title)
    save(figure, path)


def markov_orders(
    path: Path,
    curves: Mapping[str, Points],
    models: Mapping[str, float],
    references: Mapping[str, float],
    title: str,
) -> None:
    """Bits per character against Markov order, other models as horizontal lines.

    Args:
      path: where the PNG goes.
      curves: "training" and "test", each its (order, bits per character).
      models: test bits per character of the recurrent networks: solid lines.
      references: test bits per character of the compressors: dashed lines.
      title: the figure's title.
    """
    figure = Figure(figsize=FIGURE_SIZE)
    axes = figure.subplots()
    _curves(axes, curves)
    _levels(axes, {**models, **references}, "#777777", solid=frozenset(models))
    axes.set_xticks([x for x, _ in max(curves.values(), key=len)])
    axes.set_xlabel("order of the Markov chain (characters of context)")
    axes.set_ylabel("bits per character")
    _finish(axes, title)
    save(figure, path)


def data_sizes(path: Path, curves: Mapping[str, Points], title: str) -> None:
    """Test bits per character against the number of training characters.

    Args:
      path: where the PNG goes.
      curves: for each model its (training characters, bits per character).
      title: the figure's title.
    """
    figure = Figure(figsize=FIGURE_SIZE)
    axes = figure.subplots()
    dashed = frozenset(name for name in curves if name.startswith("markov"))
    _curves(axes, curves, dashed)
    axes.set_xscale("log")
    axes.set_xlabel("training characters")
    axes.set_ylabel("bits per character, test")
    _finish(axes, title)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, path)


def _curves(
    axes: Axes, curves: Mapping[str, Points], dashed: frozenset[str] = frozenset()
) -> None:
    for colour, (name, points) in zip(cycle(COLOURS), curves.items(), strict=False):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        style = "--" if name in dashed else "-"
        axes.plot(xs, ys, style, color=colour, marker="o", markersize=3.5, label=name)


def _levels(
    axes: Axes,
    levels: Mapping[str, float],
    colour: str,
    solid: frozenset[str] = frozenset(),
) -> None:
    low, high = axes.get_ylim()
    ordered = sorted(levels.items(), key=lambda item: item[1])
    low = min([low, *levels.values()])
    high = max([high, *levels.values()])
    gap = LABEL_GAP * (high - low)
    place = -float("inf")
    for name, level in ordered:
        style = "-" if name in solid else "--"
        axes.axhline(level, color=colour, linestyle=style, linewidth=0.9, zorder=1)
        place = max(level, place + gap)  # pushed up where labels would overlap
        axes.annotate(
            f"{name} {level:.2f}",
            xy=(1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)

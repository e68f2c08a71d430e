"""The figures of a run, and of several runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.lab import figures

# Labels at the right edge keep at least this share of the axis between them.
LABEL_GAP = 0.042

Points = Sequence[tuple[float, float]]


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
    figure, axes = _panel(curves)
    _levels(axes, levels)
    below, beside = "training characters read (millions)", "validation"
    _finish(figure, axes, path, title, below, f"bits per character, {beside}")


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
    figure, axes = _panel(curves)
    _levels(axes, {**models, **references}, solid=frozenset(models))
    axes.set_xticks([x for x, _ in max(curves.values(), key=len)])
    below = "order of the Markov chain (characters of context)"
    _finish(figure, axes, path, title, below, "bits per character")


def data_sizes(path: Path, curves: Mapping[str, Points], title: str) -> None:
    """Test bits per character against the number of training characters.

    Args:
      path: where the PNG goes.
      curves: for each model its (training characters, bits per character).
      title: the figure's title.
    """
    dashed = frozenset(name for name in curves if name.startswith("markov"))
    figure, axes = _panel(curves, dashed)
    axes.set_xscale("log")
    apart = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    texts = (title, "training characters", "bits per character, test")
    _finish(figure, axes, path, *texts, **apart)


def _panel(
    curves: Mapping[str, Points], dashed: frozenset[str] = frozenset()
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.8))  # inches
    axes = figure.subplots()
    for colour, (name, points) in figures.coloured(curves.items()):
        style = "--" if name in dashed else "-"
        look = {"color": colour, "marker": "o", "markersize": 3.5, "label": name}
        axes.plot([x for x, _ in points], [y for _, y in points], style, **look)
    return figure, axes


def _levels(
    axes: Axes, levels: Mapping[str, float], solid: frozenset[str] = frozenset()
) -> None:
    low, high = axes.get_ylim()
    ordered = sorted(levels.items(), key=lambda item: item[1])
    low, high = min([low, *levels.values()]), max([high, *levels.values()])
    gap, place = LABEL_GAP * (high - low), -float("inf")
    for name, level in ordered:
        look: Any = {"color": figures.GREY, "linewidth": 0.9, "zorder": 1}
        axes.axhline(level, linestyle="-" if name in solid else "--", **look)
        place = max(level, place + gap)  # pushed up where labels would overlap
        at: Any = {"xy": (1.01, place), "xycoords": ("axes fraction", "data")}
        letters: Any = {"va": "center", "fontsize": 8, "annotation_clip": False}
        axes.annotate(f"{name} {level:.2f}", **at, **letters)


def _finish(
    figure: Figure, axes: Axes, path: Path, title: str, x: str, y: str, **legend: Any
) -> None:
    figures.describe(axes, title, x, y, size=11, fontsize=None, **legend)
    figures.tidy([axes])
    figures.save(figure, path)

"""What a run has to say: a table, the notes' questions, samples, figures, one JSON."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import lab
from experiments.data import Corpus, card, decode
from experiments.lab import files
from experiments.language_model import figures as drawing
from experiments.language_model.baselines import Row
from experiments.language_model.resume import Clock
from experiments.language_model.settings import RNNS, Settings, to_json


def table(rows: list[Row]) -> str:
    """Returns the models as a table, in bits per character."""
    header = ("model", "validation", "test", "parameters", "seconds")
    lines = [
        (
            row.name,
            "" if row.valid is None else f"{row.valid:.3f}",
            f"{row.test:.3f}",
            "" if row.parameters is None else f"{row.parameters:,}",
            f"{row.seconds:.1f}",
        )
        for row in rows
    ]
    return lab.format_table(header, lines)


def markov_table(rows: list[Row]) -> str:
    """Returns how well each order's terms are estimated, and what that costs."""
    header = ("order", "contexts seen", "median count", "training", "test", "gap")
    lines = [
        (
            str(row.extra["order"]),
            f"{row.extra['contexts']:,}",
            f"{row.extra['median_count']:g}",
            f"{row.extra['train']:.3f}",
            f"{row.test:.3f}",
            f"{row.test - row.extra['train']:.3f}",
        )
        for row in rows
        if "order" in row.extra
    ]
    return lab.format_table(header, lines)


def answers(rows: list[Row]) -> list[str]:
    """Returns the notes' questions with this run's numbers."""
    test = {row.name: row.test for row in rows}
    chains = {row.extra["order"]: row.test for row in rows if "order" in row.extra}
    found = [name for name in RNNS if name in test]
    lines = [
        f"How wrong is first order? {chains[1] - min(chains.values()):.3f} bits per "
        f"character more than the best order, {min(chains, key=lambda k: chains[k])}."
    ]
    for name in found:
        caught = [order for order, bits in chains.items() if bits <= test[name]]
        when = _at(caught) if caught else f"at no order up to {max(chains)}"
        lines.append(
            f"When does a Markov chain catch up with {name} ({test[name]:.3f})? {when}."
        )
    if found:
        best = min(found, key=lambda name: test[name])
        distance = ", ".join(
            f"{name} {test[best] - bits:+.3f}"
            for name, bits in test.items()
            if name not in (*RNNS, "uniform")
        )
        lines.append(f"From {best} to each (negative: {best} is better): {distance}.")
    return lines


def _at(orders: list[int]) -> str:
    """Names orders; they may end early, for too high an order is worse again.

    >>> _at([5]), _at([4, 5, 6]), _at([2, 4])
    ('at order 5 only', 'at orders 4 to 6', 'at orders 2, 4')
    """
    if len(orders) == 1:
        return f"at order {orders[0]} only"
    if orders == list(range(orders[0], orders[-1] + 1)):
        return f"at orders {orders[0]} to {orders[-1]}"
    return f"at orders {', '.join(map(str, orders))}"


def write(
    folder: Path, corpus: Corpus, settings: Settings, rows: list[Row], clock: Clock
) -> None:
    """Writes figures and results into the run folder."""
    _figures(folder, corpus, rows)
    content = {
        "experiment": "language_model",
        "settings": to_json(settings),
        "environment": lab.environment(),
        "corpus": card(corpus),
        "rows": [_shown(row, corpus) for row in rows],
        "answers": answers(rows),
        "wall_seconds": round(clock.seconds(), 3),
    }
    lab.write_json(folder / lab.RESULTS_FILE, content)


def _shown(row: Row, corpus: Corpus) -> dict[str, Any]:
    content = dataclasses.asdict(row)
    if "sample" in row.extra:
        sample = decode(corpus.alphabet, row.extra["sample"])
        content["extra"] = {**row.extra, "sample": sample}
    return content


def samples(rows: list[Row], corpus: Corpus) -> str:
    """Returns each model's sample under its name."""
    shown = [
        f"--- {row.name}\n{decode(corpus.alphabet, row.extra['sample']).strip()}"
        for row in rows
        if "sample" in row.extra
    ]
    return "\n".join(shown)


def _figures(folder: Path, corpus: Corpus, rows: list[Row]) -> None:
    chains = [row for row in rows if "order" in row.extra]
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in files.read_metrics(folder):
        if point["valid_bits"] is not None:
            at = (
                float(str(point["characters"])) / 1e6,
                float(str(point["valid_bits"])),
            )
            curves.setdefault(str(point["model"]), []).append(at)
    levels = {row.name: row.valid for row in chains if row.valid is not None}
    if curves:
        drawing.learning_curves(
            folder / "learning_curves.png",
            curves,
            levels,
            f"Learning to predict the next character ({corpus.name})",
        )
    drawing.markov_orders(
        folder / "markov_orders.png",
        {
            "Markov chain, training text": [
                (row.extra["order"], row.extra["train"]) for row in chains
            ],
            "Markov chain, test text": [
                (row.extra["order"], row.test) for row in chains
            ],
        },
        {row.name: row.test for row in rows if row.name in RNNS},
        {row.name: row.test for row in rows if row.valid is None},
        f"What context is worth ({corpus.name}, held-out text)",
    )

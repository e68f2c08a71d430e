"""What a run has to say: a table, the notes' questions, samples, figures, one JSON."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments import lab
from experiments.data.text import Corpus, card, decode
from experiments.lab import files
from experiments.language_model import figures as drawing
from experiments.language_model.baselines import Row
from experiments.language_model.resume import Clock
from experiments.language_model.settings import RNNS, Settings, to_json


def table(rows: list[Row]) -> str:
    """Returns the models as a table, in bits per character."""
    columns = {
        "model": lambda row: row.name,
        "validation": lambda row: "" if row.valid is None else f"{row.valid:.3f}",
        "test": lambda row: f"{row.test:.3f}",
        "parameters": lambda r: "" if r.parameters is None else f"{r.parameters:,}",
        "seconds": lambda row: f"{row.seconds:.1f}",
    }
    return lab.table_of(rows, columns)


def markov_table(rows: list[Row]) -> str:
    """Returns how well each order's terms are estimated, and what that costs."""
    columns = {
        "order": lambda row: str(row.extra["order"]),
        "contexts seen": lambda row: f"{row.extra['contexts']:,}",
        "median count": lambda row: f"{row.extra['median_count']:g}",
        "training": lambda row: f"{row.extra['train']:.3f}",
        "test": lambda row: f"{row.test:.3f}",
        "gap": lambda row: f"{row.test - row.extra['train']:.3f}",
    }
    return lab.table_of(chains_of(rows), columns)


def chains_of(rows: list[Row]) -> list[Row]:
    """Returns the rows of Markov chains."""
    return [row for row in rows if "order" in row.extra]


def answers(rows: list[Row]) -> list[str]:
    """Returns the notes' questions with this run's numbers."""
    test = {row.name: row.test for row in rows}
    chains = {row.extra["order"]: row.test for row in chains_of(rows)}
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
    chains = chains_of(rows)
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in files.read_metrics(folder):
        if point["valid_bits"] is not None:
            read, bits = (float(str(point[k])) for k in ("characters", "valid_bits"))
            curves.setdefault(str(point["model"]), []).append((read / 1e6, bits))
    if curves:
        levels = {row.name: row.valid for row in chains if row.valid is not None}
        title = f"Learning to predict the next character ({corpus.name})"
        path = folder / "learning_curves.png"
        drawing.learning_curves(path, curves, levels, title)
    orders = {"training": [], "test": []}
    for row in chains:
        orders["training"].append((row.extra["order"], row.extra["train"]))
        orders["test"].append((row.extra["order"], row.test))
    drawing.markov_orders(
        folder / "markov_orders.png",
        {f"Markov chain, {name} text": points for name, points in orders.items()},
        {row.name: row.test for row in rows if row.name in RNNS},
        {row.name: row.test for row in rows if row.valid is None},
        f"What context is worth ({corpus.name}, held-out text)",
    )

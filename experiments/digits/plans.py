"""What is trained on each task, what it was chosen from, and what was published.

MNIST-1D and rows were chosen by the validation part alone, with `--search`: the
candidates are trained on the training part with the first seed, and the one that is
right most often on the validation part is taken (of two alike, the one with the smaller
loss). experiments/results/digits_search.json holds what was tried. For pixels nothing
was searched: one pass takes too long.
"""

import dataclasses

from experiments.digits.training import Plan

# Accuracy on the 1,000 test examples of MNIST-1D, in percent: Greydanus and Kobak,
# https://arxiv.org/abs/2011.14439
PUBLISHED = {
    "logistic regression": 32,
    "multilayer perceptron": 68,
    "GRU": 91,
    "convolutional network": 94,
}

CHOSEN = {
    "mnist1d": Plan(window=5, hidden=48, epochs=40),
    "rows": Plan(epochs=30, dropout=0.4),
    "pixels": Plan(layers=1, epochs=20, warp=0.5),
}

# Before anything is chosen; what a candidate changes of it.
BASE = {
    "mnist1d": Plan(window=5, epochs=40),
    "rows": Plan(epochs=30),
    "pixels": Plan(layers=1, epochs=20, warp=0.5),
}
CHANGES: dict[str, list[dict[str, float]]] = {
    "mnist1d": [
        {},
        {"hidden": 48},
        {"warp": 2.0},
        {"window": 1},
        {"window": 9},
        {"dropout": 0.4},
        {"rate": 1e-2},
        {"hidden": 48, "warp": 2.0, "window": 9},
    ],
    "rows": [{}, {"hidden": 48}, {"dropout": 0.4}, {"warp": 0.5}],
    "pixels": [],
}

# What each part is worth: the plan that was chosen, less one thing at a time, down to
# the network that was published, a GRU that reads forwards and answers at the end.
LESS: dict[str, dict[str, object]] = {
    "one point per step": {"window": 1},
    "examples not moved": {"warp": 0.0},
    "forwards alone": {"both_ways": False},
    "answer at the last step": {"pool": "last"},
    "plain GRU": {
        "window": 1,
        "warp": 0.0,
        "both_ways": False,
        "pool": "last",
        "layers": 1,
        "smoothing": 0.0,
    },
}


def candidates(task: str) -> list[Plan]:
    """Returns the plans that `--search` chooses from; the chosen one where none is."""
    changed = [dataclasses.replace(BASE[task], **c) for c in CHANGES[task]]
    return changed or [CHOSEN[task]]


def ablations(plan: Plan) -> dict[str, Plan]:
    """Returns a plan less one thing at a time, by what is missing."""
    changed = {name: dataclasses.replace(plan, **c) for name, c in LESS.items()}
    return {name: other for name, other in changed.items() if other != plan}

"""What is timed: cells, shapes, weights, inputs and a loss, the same for every library.

Weights are drawn once, in jrnn's layout, by PyTorch's rule (uniform within
1/sqrt(hidden size)), and carried over into each library's own. Recurrent biases, which
not every library has, are zero. The loss is the mean over steps and sequences of
tanh(y_t w), so that every y_t receives a gradient and the read-out costs little.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CELLS = ("elman", "gru", "lstm")
GATES = {"elman": 1, "gru": 3, "lstm": 4}
INFERENCE, TRAINING = "inference", "training"
PASSES = (INFERENCE, TRAINING)
STEP = "step"  # of streaming, one sequence


class Shape(NamedTuple):
    """Steps, sequences, inputs, hidden units."""

    T: int
    B: int
    I: int  # the field's letter for inputs
    H: int

    def __str__(self) -> str:
        """Shows the four numbers."""
        return f"({self.T}, {self.B}, {self.I}, {self.H})"


GRID = tuple(
    Shape(*numbers)
    for numbers in (
        (100, 32, 64, 128),
        (256, 64, 128, 256),
        (128, 64, 512, 512),
        (1000, 1, 32, 64),
        (1000, 16, 32, 64),
        (50, 256, 256, 256),
        (2000, 8, 256, 512),
    )
)


class Weights(NamedTuple):
    """Gates side by side, in jrnn's order: r z n for a GRU, i f g o for an LSTM."""

    W_x: np.ndarray | jax.Array  # (I, gates H)
    W_h: np.ndarray | jax.Array  # (H, gates H)
    b: np.ndarray | jax.Array  # (gates H,)


class Problem(NamedTuple):
    """One comparison: a cell, a shape, and the numbers that go with them."""

    cell: str
    shape: Shape
    weights: Weights
    xs: np.ndarray  # (T, B, I)
    readout: np.ndarray  # (H,)


def make_problem(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Draws the weights and the inputs of one comparison, in float32."""
    random = np.random.default_rng(seed)
    T, B, I, H = shape
    wide = GATES[cell] * H
    draw = lambda *size: random.uniform(-1, 1, size).astype(np.float32) / H**0.5
    weights = Weights(draw(I, wide), draw(H, wide), draw(wide))
    xs = random.normal(size=(T, B, I)).astype(np.float32)
    readout = random.normal(size=H).astype(np.float32)
    return Problem(cell, shape, weights, xs, readout)


def passes(
    forward: Callable[[Any, Any], Any], readout: Any
) -> dict[str, Callable[[Any, Any], Any]]:
    """Returns pass -> function of (params, xs): outputs, or the loss and gradients."""

    def loss(params: Any, xs: Any) -> Any:
        return jnp.tanh(forward(params, xs) @ readout).mean()

    return {INFERENCE: forward, TRAINING: jax.value_and_grad(loss, (0, 1))}


def flops(cell: str, shape: Shape, which: str) -> int:
    """Floating-point operations of the matrix products of one pass.

    Forwards each step multiplies x by W_x and h by W_h; backwards each of these two
    products has two, one for each of its factors.
    """
    T, B, I, H = shape
    forward = 2 * T * B * (I + H) * GATES[cell] * H
    return forward if which == INFERENCE else 3 * forward

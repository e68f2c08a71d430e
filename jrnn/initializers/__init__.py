r"""Initialisers, among them those against vanishing and exploding gradients.

An initialiser is a function (key, shape, dtype) -> array, like those of
`jax.nn.initializers`; cell factories take it as `recurrent_init`, `bias_init` etc.
`orthogonal`, `henaff`, `cayley`, `embedding` and `diagonal_normal` are initialisers
themselves; `para_gru` and `para_lstm` are for biases; the others are factories, which
return the identical initialiser for equal arguments, so that cells made with it are
identical too.

By default a cell is initialised as in its authors' code, if they published any and
there is no reason against it; each cell's module compares the two, and names the
argument that gives the authors' initialisation where it is not the default.

    h_t = phi(x_t W_x + h_{t-1} W_h + b)

The gradient flows back through a product of factors W_h^T. At least before training, it
neither vanishes nor explodes if the singular values of W_h are 1 (orthogonal, identity)
or its spectral radius is; or, in a gated cell, if the gates keep the state for as long
as the task requires (chrono).
"""

from jrnn.core.draw import Initializer, OfGates
from jrnn.initializers.defaults import (
    ORTHOGONAL,
    PARA_GRU,
    PARA_LSTM,
    cayley,
    diagonal_normal,
    embedding,
    henaff,
    strongest_decay,
    uniform,
)
from jrnn.initializers.recurrent import (
    chrono_gru,
    chrono_lstm,
    identity,
    normal,
    spectral_radius,
)

__all__ = [
    "cayley",
    "chrono_gru",
    "chrono_lstm",
    "diagonal_normal",
    "embedding",
    "henaff",
    "identity",
    "normal",
    "orthogonal",
    "para_gru",
    "para_lstm",
    "spectral_radius",
    "strongest_decay",
    "uniform",
]

# The default of W_h in most cells: uniform among the orthogonal matrices
# (A. Saxe et al. 2014, https://arxiv.org/abs/1312.6120).
orthogonal: Initializer = ORTHOGONAL

# The biases of ParaRNN's cells: the default of `jrnn.cells.diagonal_gru`, and the
# `bias_init` for `jrnn.cells.diagonal_lstm(coupled=True)`.
para_gru: OfGates = PARA_GRU
para_lstm: OfGates = PARA_LSTM

r"""Where parameters start: initialisers against gradients that vanish or explode.

An initialiser is a function (key, shape, dtype) -> array, as those of
`jax.nn.initializers`; factories of cells take it as `recurrent_init` and the like.
`orthogonal`, `henaff`, `cayley`, `embedding` and `diagonal_normal` are initialisers
themselves; `para_gru` and `para_lstm` are for biases; the others are made by a factory,
which gives the identical initialiser for equal arguments, as a cell made of it is the
identical cell.

A cell that is given no initialiser starts as the code of its authors does, where they
published some and nothing speaks against it; each cell's module says how the two
compare, and which one argument gives the authors' start where it is not the default.

    h_t = phi(x_t W_x + h_{t-1} W_h + b)

The gradient goes back through a product of W_h^T: that it neither vanishes nor
explodes, at least before training, asks for a W_h whose singular values (orthogonal,
identity), or whose eigenvalues (spectral radius), lie at 1; or, of a gated cell, for
gates that keep for as long as the task is long (chrono).
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

# What cells draw W_h by unless told otherwise: uniform among the orthogonal matrices
# (A. Saxe et al. 2014, https://arxiv.org/abs/1312.6120).
orthogonal: Initializer = ORTHOGONAL

# The biases of ParaRNN's cells: those of `jrnn.cells.diagonal_gru` by default, and for
# `jrnn.cells.diagonal_lstm(coupled=True)` as `bias_init`.
para_gru: OfGates = PARA_GRU
para_lstm: OfGates = PARA_LSTM

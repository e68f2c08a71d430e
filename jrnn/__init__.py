"""One recurrent cell, every way to run it."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

import jrnn.core.guards as _guards  # noqa: F401 registers the checks of cells
from jrnn import activations as activations
from jrnn import cells as cells
from jrnn import diagnostics as diagnostics
from jrnn import heads as heads
from jrnn import initializers as initializers
from jrnn import methods as methods
from jrnn import models as models
from jrnn import run as run
from jrnn import wrappers as wrappers
from jrnn.cells import elman as elman
from jrnn.cells import gru as gru
from jrnn.cells import lstm as lstm
from jrnn.core.caches import clear_caches as clear_caches
from jrnn.core.cell import Cell as Cell
from jrnn.core.lazy import submodules as _submodules
from jrnn.core.method import Method as Method
from jrnn.heads import Head as Head
from jrnn.heads import categorical as categorical
from jrnn.heads import gaussian as gaussian
from jrnn.methods import associative as associative
from jrnn.methods import bptt as bptt
from jrnn.methods import fused as fused
from jrnn.methods import newton as newton
from jrnn.methods import scan as scan
from jrnn.methods import truncated as truncated
from jrnn.models import markov_chain as markov_chain
from jrnn.models import sequence_model as sequence_model
from jrnn.models import summary as summary
from jrnn.models import supervised_model as supervised_model
from jrnn.run import trajectory as trajectory
from jrnn.run import unroll as unroll
from jrnn.wrappers import bidirectional as bidirectional
from jrnn.wrappers import dropout as dropout
from jrnn.wrappers import residual as residual
from jrnn.wrappers import stack as stack

if _TYPE_CHECKING:
    from jrnn import interop as interop
    from jrnn import train as train
else:  # these need other libraries, so they are imported on first use
    __getattr__, __dir__ = _submodules(globals(), "interop", "train")

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Head",
    "Method",
    "activations",
    "associative",
    "bidirectional",
    "bptt",
    "categorical",
    "cells",
    "clear_caches",
    "diagnostics",
    "dropout",
    "elman",
    "fused",
    "gaussian",
    "gru",
    "heads",
    "initializers",
    "lstm",
    "markov_chain",
    "methods",
    "models",
    "newton",
    "residual",
    "run",
    "scan",
    "sequence_model",
    "stack",
    "summary",
    "supervised_model",
    "trajectory",
    "truncated",
    "unroll",
    "wrappers",
]

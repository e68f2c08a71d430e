"""One recurrent cell, every way to run it."""

from jrnn import batching as batching
from jrnn import diagnostics as diagnostics
from jrnn._base import Adjoint as Adjoint
from jrnn._base import Cell as Cell
from jrnn._base import Gated as Gated
from jrnn._base import Method as Method
from jrnn._non_finite import NonFinite as NonFinite
from jrnn._non_finite import find_non_finite as find_non_finite
from jrnn._unroll import trajectory as trajectory
from jrnn._unroll import unroll as unroll
from jrnn._unroll import unroll_bidirectional as unroll_bidirectional
from jrnn.cells._init import one_hot_normal as one_hot_normal
from jrnn.cells.elman import elman as elman
from jrnn.cells.elman import identity as identity
from jrnn.cells.gru import gru as gru
from jrnn.cells.layer_norm import layer_norm_elman as layer_norm_elman
from jrnn.cells.layer_norm import layer_norm_gru as layer_norm_gru
from jrnn.cells.layer_norm import layer_norm_lstm as layer_norm_lstm
from jrnn.cells.lstm import lstm as lstm
from jrnn.combinators import learnable_state as learnable_state
from jrnn.combinators import variational_dropout as variational_dropout
from jrnn.combinators import zoneout as zoneout
from jrnn.layers import bidirectional as bidirectional
from jrnn.layers import dropout as dropout
from jrnn.layers import residual as residual
from jrnn.layers import stack as stack
from jrnn.likelihood import Head as Head
from jrnn.likelihood import bits_per_symbol as bits_per_symbol
from jrnn.likelihood import categorical as categorical
from jrnn.likelihood import mean_over_steps as mean_over_steps
from jrnn.markov import MarkovChain as MarkovChain
from jrnn.markov import context_counts as context_counts
from jrnn.markov import markov_chain as markov_chain
from jrnn.methods.bptt import bptt as bptt
from jrnn.methods.scan import scan as scan
from jrnn.methods.truncated import truncated as truncated
from jrnn.model import SequenceModel as SequenceModel
from jrnn.model import SupervisedModel as SupervisedModel
from jrnn.model import last_step as last_step
from jrnn.model import mean_step as mean_step
from jrnn.model import sequence_model as sequence_model
from jrnn.model import supervised_model as supervised_model

__version__ = "0.1.0"

__all__ = [
    "Adjoint",
    "Cell",
    "Gated",
    "Head",
    "MarkovChain",
    "Method",
    "NonFinite",
    "SequenceModel",
    "SupervisedModel",
    "batching",
    "bidirectional",
    "bits_per_symbol",
    "bptt",
    "categorical",
    "context_counts",
    "diagnostics",
    "dropout",
    "elman",
    "find_non_finite",
    "gru",
    "identity",
    "last_step",
    "layer_norm_elman",
    "layer_norm_gru",
    "layer_norm_lstm",
    "learnable_state",
    "lstm",
    "markov_chain",
    "mean_over_steps",
    "mean_step",
    "one_hot_normal",
    "residual",
    "scan",
    "sequence_model",
    "stack",
    "supervised_model",
    "trajectory",
    "truncated",
    "unroll",
    "unroll_bidirectional",
    "variational_dropout",
    "zoneout",
]

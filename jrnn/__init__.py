"""One recurrent cell, every way to run it."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

import jrnn.core.guards as _guards  # noqa: F401 checks what factories make
from jrnn import batching as batching
from jrnn import cells as cells
from jrnn import diagnostics as diagnostics
from jrnn import initializers as initializers
from jrnn import regularisers as regularisers
from jrnn import wrappers as wrappers
from jrnn.activations import identity as identity
from jrnn.activations import positive as positive
from jrnn.cells.antisymmetric_rnn import antisymmetric_rnn as antisymmetric_rnn
from jrnn.cells.co_rnn import co_rnn as co_rnn
from jrnn.cells.diagonal_gru import diagonal_gru as diagonal_gru
from jrnn.cells.diagonal_lstm import diagonal_lstm as diagonal_lstm
from jrnn.cells.elman import elman as elman
from jrnn.cells.exp_rnn import exp_rnn as exp_rnn
from jrnn.cells.gru import gru as gru
from jrnn.cells.ind_rnn import ind_rnn as ind_rnn
from jrnn.cells.layer_norm import layer_norm_elman as layer_norm_elman
from jrnn.cells.layer_norm import layer_norm_gru as layer_norm_gru
from jrnn.cells.layer_norm import layer_norm_lstm as layer_norm_lstm
from jrnn.cells.lem import lem as lem
from jrnn.cells.lru import lru as lru
from jrnn.cells.lstm import lstm as lstm
from jrnn.cells.min_gru import min_gru as min_gru
from jrnn.cells.min_lstm import min_lstm as min_lstm
from jrnn.cells.rg_lru import rg_lru as rg_lru
from jrnn.cells.s5 import s5 as s5
from jrnn.cells.sru import sru as sru
from jrnn.core.caches import clear_caches as clear_caches
from jrnn.core.cell import Adjoint as Adjoint
from jrnn.core.cell import Cell as Cell
from jrnn.core.cell import Gated as Gated
from jrnn.core.lazy import submodules as _submodules
from jrnn.core.method import Method as Method
from jrnn.diagnostics.non_finite import NonFinite as NonFinite
from jrnn.diagnostics.non_finite import find_non_finite as find_non_finite
from jrnn.heads.bernoulli import bernoulli as bernoulli
from jrnn.heads.categorical import categorical as categorical
from jrnn.heads.distribution import Distribution as Distribution
from jrnn.heads.gaussian import gaussian as gaussian
from jrnn.heads.head import Head as Head
from jrnn.heads.mixture import mixture as mixture
from jrnn.heads.mixture_kernels import Kernel as Kernel
from jrnn.heads.mixture_kernels import discretised_logistic as discretised_logistic
from jrnn.heads.mixture_kernels import gaussian_kernel as gaussian_kernel
from jrnn.heads.mixture_kernels import logistic_kernel as logistic_kernel
from jrnn.heads.student_t import student_t as student_t
from jrnn.initializers.defaults import one_hot_normal as one_hot_normal
from jrnn.methods._newton_iteration import NewtonInfo as NewtonInfo
from jrnn.methods.associative import associative as associative
from jrnn.methods.bptt import bptt as bptt
from jrnn.methods.fused import fused as fused
from jrnn.methods.linear_recurrence import linear_recurrence as linear_recurrence
from jrnn.methods.newton import newton as newton
from jrnn.methods.scan import scan as scan
from jrnn.methods.truncated import truncated as truncated
from jrnn.models.linear_gaussian_markov import (
    LinearGaussianMarkov as LinearGaussianMarkov,
)
from jrnn.models.linear_gaussian_markov import (
    linear_gaussian_markov as linear_gaussian_markov,
)
from jrnn.models.markov_chain import MarkovChain as MarkovChain
from jrnn.models.markov_chain import markov_chain as markov_chain
from jrnn.models.means import bits_per_symbol as bits_per_symbol
from jrnn.models.means import mean_over_steps as mean_over_steps
from jrnn.models.ngram_counts import context_counts as context_counts
from jrnn.models.pools import last_step as last_step
from jrnn.models.pools import mean_step as mean_step
from jrnn.models.sequence_model import SequenceModel as SequenceModel
from jrnn.models.sequence_model import sequence_model as sequence_model
from jrnn.models.supervised_model import SupervisedModel as SupervisedModel
from jrnn.models.supervised_model import supervised_model as supervised_model
from jrnn.run.newton_trajectory import newton_trajectory as newton_trajectory
from jrnn.run.unroll import trajectory as trajectory
from jrnn.run.unroll import unroll as unroll
from jrnn.wrappers import bidirectional as bidirectional
from jrnn.wrappers import dropout as dropout
from jrnn.wrappers import keep_orthogonal as keep_orthogonal
from jrnn.wrappers import learnable_state as learnable_state
from jrnn.wrappers import residual as residual
from jrnn.wrappers import stack as stack
from jrnn.wrappers import variational_dropout as variational_dropout
from jrnn.wrappers import zoneout as zoneout

if _TYPE_CHECKING:
    from jrnn import interop as interop
    from jrnn import train as train
else:  # they need other libraries: loaded when they are first used
    __getattr__, __dir__ = _submodules(globals(), "interop", "train")

__version__ = "0.1.0"

__all__ = [
    "Adjoint",
    "Cell",
    "Distribution",
    "Gated",
    "Head",
    "Kernel",
    "LinearGaussianMarkov",
    "MarkovChain",
    "Method",
    "NewtonInfo",
    "NonFinite",
    "SequenceModel",
    "SupervisedModel",
    "antisymmetric_rnn",
    "associative",
    "batching",
    "bernoulli",
    "bidirectional",
    "bits_per_symbol",
    "bptt",
    "categorical",
    "cells",
    "clear_caches",
    "co_rnn",
    "context_counts",
    "diagnostics",
    "diagonal_gru",
    "diagonal_lstm",
    "discretised_logistic",
    "dropout",
    "elman",
    "exp_rnn",
    "find_non_finite",
    "fused",
    "gaussian",
    "gaussian_kernel",
    "gru",
    "identity",
    "ind_rnn",
    "initializers",
    "keep_orthogonal",
    "last_step",
    "layer_norm_elman",
    "layer_norm_gru",
    "layer_norm_lstm",
    "learnable_state",
    "lem",
    "linear_gaussian_markov",
    "linear_recurrence",
    "logistic_kernel",
    "lru",
    "lstm",
    "markov_chain",
    "mean_over_steps",
    "mean_step",
    "min_gru",
    "min_lstm",
    "mixture",
    "newton",
    "newton_trajectory",
    "one_hot_normal",
    "positive",
    "regularisers",
    "residual",
    "rg_lru",
    "s5",
    "scan",
    "sequence_model",
    "sru",
    "stack",
    "student_t",
    "supervised_model",
    "trajectory",
    "truncated",
    "unroll",
    "variational_dropout",
    "wrappers",
    "zoneout",
]

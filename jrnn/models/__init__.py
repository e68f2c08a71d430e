"""Models, one per file: cell and head combined, Markov chains, autoregressions."""

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
from jrnn.models.pools import last_pool as last_pool
from jrnn.models.pools import mean_pool as mean_pool
from jrnn.models.sequence_model import SequenceModel as SequenceModel
from jrnn.models.sequence_model import sequence_model as sequence_model
from jrnn.models.summary import Summary as Summary
from jrnn.models.summary import summary as summary
from jrnn.models.supervised_model import SupervisedModel as SupervisedModel
from jrnn.models.supervised_model import supervised_model as supervised_model

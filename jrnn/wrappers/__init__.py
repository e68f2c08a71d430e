"""Wrappers: cells made of cells, one file each, and `around` to write your own."""

from jrnn.core.cell import Children as Children
from jrnn.wrappers._wiring import around as around
from jrnn.wrappers.bidirectional import bidirectional as bidirectional
from jrnn.wrappers.dropout import dropout as dropout
from jrnn.wrappers.learned_initial_state import (
    learned_initial_state as learned_initial_state,
)
from jrnn.wrappers.merges import concat_merge as concat_merge
from jrnn.wrappers.merges import mean_merge as mean_merge
from jrnn.wrappers.merges import product_merge as product_merge
from jrnn.wrappers.merges import sum_merge as sum_merge
from jrnn.wrappers.orthogonal import orthogonal as orthogonal
from jrnn.wrappers.residual import residual as residual
from jrnn.wrappers.skip_connections import skip_connections as skip_connections
from jrnn.wrappers.stack import stack as stack
from jrnn.wrappers.variational_dropout import (
    variational_dropout as variational_dropout,
)
from jrnn.wrappers.zoneout import zoneout as zoneout

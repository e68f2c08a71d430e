"""One recurrent cell, every way to run it."""

from jrnn._base import Cell as Cell
from jrnn._base import Method as Method
from jrnn._unroll import trajectory as trajectory
from jrnn._unroll import unroll as unroll
from jrnn.cells.elman import elman as elman
from jrnn.cells.elman import identity as identity
from jrnn.cells.gru import gru as gru
from jrnn.cells.lstm import lstm as lstm
from jrnn.methods.bptt import bptt as bptt
from jrnn.methods.scan import scan as scan

__version__ = "0.1.0"

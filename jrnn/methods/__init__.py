"""The methods: ways to run a cell along a sequence, one file each."""

from jrnn.methods.associative import associative as associative
from jrnn.methods.bptt import bptt as bptt
from jrnn.methods.fused import fused as fused
from jrnn.methods.linear_recurrence import linear_recurrence as linear_recurrence
from jrnn.methods.newton import newton as newton
from jrnn.methods.scan import scan as scan
from jrnn.methods.truncated import truncated as truncated

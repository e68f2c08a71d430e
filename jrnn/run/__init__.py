"""Running a cell along a sequence, by any method."""

from jrnn.methods._newton_iteration import NewtonInfo as NewtonInfo
from jrnn.run.newton_trajectory import newton_trajectory as newton_trajectory
from jrnn.run.unroll import trajectory as trajectory
from jrnn.run.unroll import unroll as unroll

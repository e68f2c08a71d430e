"""Diagnostics: gradient flow, Jacobians, Lyapunov exponents, gates, memory, NaNs."""

from jrnn.core.cell import GateView as GateView
from jrnn.core.cell import StepBound as StepBound
from jrnn.core.claims import claim as claim
from jrnn.diagnostics.adjoints import state_adjoints as state_adjoints
from jrnn.diagnostics.bound import JacobianBound as JacobianBound
from jrnn.diagnostics.bound import jacobian_bound as jacobian_bound
from jrnn.diagnostics.gate_statistics import GateStatistics as GateStatistics
from jrnn.diagnostics.gate_statistics import gate_statistics as gate_statistics
from jrnn.diagnostics.gradients import GradientByLag as GradientByLag
from jrnn.diagnostics.gradients import gradient_by_lag as gradient_by_lag
from jrnn.diagnostics.jacobians import jacobian_products as jacobian_products
from jrnn.diagnostics.jacobians import (
    jacobian_products_by_lag as jacobian_products_by_lag,
)
from jrnn.diagnostics.jacobians import step_jacobians as step_jacobians
from jrnn.diagnostics.lyapunov import LyapunovSpectrum as LyapunovSpectrum
from jrnn.diagnostics.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from jrnn.diagnostics.memory import MemoryCapacity as MemoryCapacity
from jrnn.diagnostics.memory import memory_capacity as memory_capacity
from jrnn.diagnostics.non_finite import NonFinite as NonFinite
from jrnn.diagnostics.non_finite import find_non_finite as find_non_finite

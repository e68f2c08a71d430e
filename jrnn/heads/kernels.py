r"""What mixtures are mixed of: Gaussians, logistics, and logistics cut into bins.

    gaussian    N(x; mu, s^2)
    logistic    F(x) = sigmoid((x - mu) / s),   p(x) = F (1 - F) / s
    discretised P(x) = F(x + step / 2) - F(x - step / 2), outer bins with their tails

The difference of two sigmoids is a product, so that nothing cancels: with u above v,

    ln(sigmoid(u) - sigmoid(v)) = ln sigmoid(u) + ln sigmoid(-v) + ln(1 - exp(v - u))

Source: T. Salimans et al., ICLR 2017, https://arxiv.org/abs/1701.05517.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn._base import Key, Spec, check_size, describe, memoize
from jrnn.heads._numbers import FINITE, Support, check_least
from jrnn.heads.gaussian import normal_log_prob


class Kernel(NamedTuple):
    """A family with a location and a scale, elementwise.

    Attributes:
      log_prob: (x, loc, scale) -> log-density or log-probability.
      sample: (key, loc, scale) -> x.
      mean: (loc, scale) -> the expectation of x.
      cdf: (x, loc, scale) -> P(X <= x).
      support: Which x there are; loc and scale are in the units that a cell reads.
      spec: What the kernel is.
    """

    log_prob: Callable[[Array, Array, Array], Array]
    sample: Callable[[Key, Array, Array], Array]
    mean: Callable[[Array, Array], Array]
    cdf: Callable[[Array, Array, Array], Array]
    support: Support
    spec: Spec

    def __repr__(self) -> str:
        """Shows the call that made the kernel, or its name."""
        return describe(self.spec) if self.spec.arguments else self.spec.name


def _location(loc: Array, scale: Array) -> Array:
    del scale
    return loc


def _normal_sample(key: Key, loc: Array, scale: Array) -> Array:
    return loc + scale * jax.random.normal(key, loc.shape, loc.dtype)


def _normal_cdf(x: Array, loc: Array, scale: Array) -> Array:
    return jax.scipy.special.ndtr((x - loc) / scale)


def _logistic_log_prob(x: Array, loc: Array, scale: Array) -> Array:
    z = (x - loc) / scale
    return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - jnp.log(scale)


def _logistic_sample(key: Key, loc: Array, scale: Array) -> Array:
    return loc + scale * jax.random.logistic(key, loc.shape, loc.dtype)


def _logistic_cdf(x: Array, loc: Array, scale: Array) -> Array:
    return jax.nn.sigmoid((x - loc) / scale)


gaussian_kernel = Kernel(
    normal_log_prob,
    _normal_sample,
    _location,
    _normal_cdf,
    FINITE,
    Spec("gaussian_kernel", (), 1, 1),
)
logistic_kernel = Kernel(
    _logistic_log_prob,
    _logistic_sample,
    _location,
    _logistic_cdf,
    FINITE,
    Spec("logistic_kernel", (), 1, 1),
)


@memoize
def discretised_logistic(lowest: float, step: float, levels: int) -> Kernel:
    """Makes the kernel of a quantised signal: logistics cut into the signal's bins.

    Values are lowest, lowest + step, ..., lowest + (levels - 1) step. Cells read them,
    and locations and scales are, in units of half that range around its middle, -1..1.
    The lowest bin has all of the lower tail, the highest all of the upper: the
    probabilities of all levels sum to 1. The mean is exact, a sum over levels.

    Args:
      lowest: The value of the lowest level.
      step: From one level to the next, above 0, in the units of the values.
      levels: How many there are, 2 or more.

    Returns:
      A kernel for `jrnn.mixture`. A value that is no level scores NaN.

    Raises:
      TypeError: A number is of the wrong type.
      ValueError: A number is out of range.

    Example:
      >>> import jrnn
      >>> kernel = jrnn.discretised_logistic(lowest=0.0, step=1.0, levels=2048)
      >>> jrnn.mixture(5, kernel).spec.output_size
      15
    """
    check_size("levels", levels, least=2)
    check_least("step", step)
    if isinstance(lowest, bool) or not isinstance(lowest, int | float):
        raise TypeError(f"Expected lowest to be a number, got {lowest!r}.")
    if not math.isfinite(lowest):
        raise ValueError(f"Expected lowest to be finite, got {lowest!r}.")
    half = step * (levels - 1) / 2
    support = Support(
        lambda x: _on_grid((x - lowest) / step, levels),
        f"the {levels} levels from {lowest} in steps of {step}",
        shift=lowest + half,
        scale=half,
    )

    def read(index: Array) -> Array:
        """Returns the place of a level, or of an edge, in units of half the range."""
        return 2 * index / (levels - 1) - 1

    def level(x: Array) -> Array:
        return jnp.round((x - lowest) / step)

    def log_prob(x: Array, loc: Array, scale: Array) -> Array:
        i = level(x)
        upper = (read(i + 0.5) - loc) / scale
        lower = (read(i - 0.5) - loc) / scale
        width = 2 / (levels - 1) / scale
        below = jax.nn.log_sigmoid(upper)  # ln F at the upper edge
        above = jax.nn.log_sigmoid(-lower)  # ln(1 - F) at the lower one
        inside = below + above + jnp.log(-jnp.expm1(-width))
        return jnp.where(i <= 0, below, jnp.where(i >= levels - 1, above, inside))

    def sample(key: Key, loc: Array, scale: Array) -> Array:
        z = _logistic_sample(key, loc, scale)
        i = jnp.clip(jnp.round((z + 1) * (levels - 1) / 2), 0, levels - 1)
        return lowest + step * i

    def mean(loc: Array, scale: Array) -> Array:
        # E = lowest + step * sum_i P(X > level i): level by level, to bound memory.
        def add(i: Array, sum_: Array) -> Array:
            edge = read(i.astype(loc.dtype) + 0.5)
            return sum_ + jax.nn.sigmoid((loc - edge) / scale)

        above = jax.lax.fori_loop(0, levels - 1, add, jnp.zeros_like(loc))
        return lowest + step * above

    def cdf(x: Array, loc: Array, scale: Array) -> Array:
        i = jnp.floor((x - lowest) / step + 0.01)  # a level may be rounded down
        inside = jax.nn.sigmoid((read(i + 0.5) - loc) / scale)
        outside = jnp.where(i < 0, jnp.zeros_like(inside), jnp.ones_like(inside))
        return jnp.where((i < 0) | (i >= levels - 1), outside, inside)

    spec = Spec(
        "discretised_logistic",
        (("lowest", lowest), ("step", step), ("levels", levels)),
        1,
        levels,
    )
    return Kernel(log_prob, sample, mean, cdf, support, spec)


def _on_grid(index: Any, levels: int) -> Any:
    near = abs(index - index.round()) < 0.01  # room for the rounding of (x - l) / step
    return near & (index > -0.5) & (index < levels - 0.5)

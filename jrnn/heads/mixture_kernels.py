r"""The kernels of mixtures: Gaussians, logistics, and logistics cut into bins.

    gaussian    N(x; mu, s^2)
    logistic    F(x) = sigmoid((x - mu) / s),   p(x) = F (1 - F) / s
    discretised P(x) = F(x + step / 2) - F(x - step / 2), outer bins with their tails

A product avoids the cancellation in a difference of two sigmoids: for u > v,

    ln(sigmoid(u) - sigmoid(v)) = ln sigmoid(u) + ln sigmoid(-v) + ln(1 - exp(v - u))

Source: T. Salimans et al., ICLR 2017, https://arxiv.org/abs/1701.05517.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Key, Spec, describe
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.arguments import above_zero, casting, finite
from jrnn.heads.normal import normal_log_prob
from jrnn.heads.number_head import FINITE, Support
from jrnn.heads.numerics import common, standard, with_slopes

# In any float type, the probability within a bin this many scales wide rounds to 1.
WIDEST = 1e3


@pickled_by_call
class Kernel(NamedTuple):
    """An elementwise location-scale family.

    Attributes:
      log_prob: (x, loc, scale) -> log-density or log-probability.
      sample: (key, loc, scale) -> x.
      mean: (loc, scale) -> the expectation of x.
      cdf: (x, loc, scale) -> P(X <= x).
      quantile: (probability, loc, scale) -> the least x with P(X <= x) at least
        `probability`.
      variance: (loc, scale) -> the variance of x.
      support: Which x are valid; loc and scale are in the units that a cell reads.
      spec: The factory call that made the kernel, or its name.
    """

    log_prob: Callable[[Array, Array, Array], Array]
    sample: Callable[[Key, Array, Array], Array]
    mean: Callable[[Array, Array], Array]
    cdf: Callable[[Array, Array, Array], Array]
    quantile: Callable[[Array, Array, Array], Array]
    variance: Callable[[Array, Array], Array]
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
    return jax.scipy.special.ndtr(standard(x, loc, scale))


def _normal_quantile(p: Array, loc: Array, scale: Array) -> Array:
    return loc + scale * jax.scipy.special.ndtri(p)


def _normal_variance(loc: Array, scale: Array) -> Array:
    del loc
    return jnp.square(scale)


def _logistic_value(x: Array, loc: Array, scale: Array) -> Array:
    z = standard(x, loc, scale)
    return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - jnp.log(scale)


def _logistic_slopes(x: Array, loc: Array, scale: Array) -> tuple[Array, ...]:
    z = standard(x, loc, scale)
    pull = jnp.tanh(z / 2)
    return -pull / scale, pull / scale, (z * pull - 1) / scale


def _logistic_sample(key: Key, loc: Array, scale: Array) -> Array:
    return loc + scale * jax.random.logistic(key, loc.shape, loc.dtype)


def _logistic_cdf(x: Array, loc: Array, scale: Array) -> Array:
    return jax.nn.sigmoid(standard(x, loc, scale))


def _logit(p: Array) -> Array:
    return jnp.log(p) - jnp.log1p(-p)


def _logistic_quantile(p: Array, loc: Array, scale: Array) -> Array:
    return loc + scale * _logit(p)


def _logistic_variance(loc: Array, scale: Array) -> Array:
    del loc
    return jnp.square(math.pi * scale) / 3


gaussian_kernel = Kernel(
    normal_log_prob,
    _normal_sample,
    _location,
    _normal_cdf,
    _normal_quantile,
    _normal_variance,
    FINITE,
    Spec("gaussian_kernel", (), 1, 1),
)
logistic_kernel = Kernel(
    with_slopes(_logistic_value, _logistic_slopes),
    _logistic_sample,
    _location,
    _logistic_cdf,
    _logistic_quantile,
    _logistic_variance,
    FINITE,
    Spec("logistic_kernel", (), 1, 1),
)


@casting(lowest=finite, step=above_zero, levels=functools.partial(check_size, least=2))
def discretised_logistic(lowest: float, step: float, levels: int) -> Kernel:
    """Makes the kernel for a quantised signal: logistics cut into the signal's bins.

    Values are lowest, lowest + step, ..., lowest + (levels - 1) step. The values that
    cells read, locations and scales are in units of half that range around its middle,
    -1..1. The lowest bin includes the lower tail and the highest the upper tail, so the
    probabilities of all levels sum to 1. The mean is exact, a sum over levels.

    Args:
      lowest: The value of the lowest level.
      step: The distance between levels, above 0, in the units of the values.
      levels: The number of levels, 2 or more.

    Returns:
      A kernel for `jrnn.heads.mixture`. A value that is not a level scores NaN.

    Raises:
      TypeError: A number is of the wrong type.
      ValueError: A number is out of range.

    Example:
      >>> import jrnn
      >>> kernel = jrnn.heads.discretised_logistic(lowest=0.0, step=1.0, levels=2048)
      >>> jrnn.heads.mixture(5, kernel).spec.output_size
      15
    """
    half = step * (levels - 1) / 2
    support = Support(
        lambda x: _on_grid((x - lowest) / step, levels),
        f"the {levels} levels from {lowest} in steps of {step}",
        shift=lowest + half,
        scale=half,
        nearest=lambda x: lowest + step * level(x),
    )

    def read(index: Array) -> Array:
        """Returns the position of a level or an edge, in units of half the range."""
        return 2 * index / (levels - 1) - 1

    def level(x: Array) -> Array:
        return jnp.round((x - lowest) / step)

    def edges(x: Array, loc: Array, scale: Array) -> tuple[Array, ...]:
        """Returns the level, its edges as (edge - loc) / scale, and their distance."""
        i = level(x)
        upper, lower = (standard(read(i + e), loc, scale) for e in (0.5, -0.5))
        return i, upper, lower, jnp.minimum(2 / (levels - 1) / scale, WIDEST)

    def pick(i: Array, below: Array, above: Array, inside: Array) -> Array:
        return jnp.where(i <= 0, below, jnp.where(i >= levels - 1, above, inside))

    def log_prob(x: Array, loc: Array, scale: Array) -> Array:
        i, upper, lower, width = edges(x, loc, scale)
        below = jax.nn.log_sigmoid(upper)  # ln F at the upper edge
        above = jax.nn.log_sigmoid(-lower)  # ln(1 - F) at the lower edge
        thin = width < jnp.finfo(width.dtype).eps
        within = jnp.log(-jnp.expm1(-jnp.where(thin, 1, width)))
        narrow = math.log(2 / (levels - 1)) - jnp.log(scale)  # where width may be 0
        inside = below + above + jnp.where(thin, narrow, within)
        return pick(i, below, above, inside)

    def slopes(x: Array, loc: Array, scale: Array) -> tuple[Array, ...]:
        i, upper, lower, width = edges(x, loc, scale)
        up, down = jax.nn.sigmoid(-upper), jax.nn.sigmoid(lower)
        safe = jnp.where(width > 0, width, 1)
        spread = jnp.where(width > 0, safe / jnp.expm1(safe), 1)  # w / (e^w - 1)
        by_loc = pick(i, -up, down, down - up) / scale
        by_scale = pick(
            i, -upper * up, lower * down, lower * down - upper * up - spread
        )
        return jnp.zeros_like(by_loc), by_loc, by_scale / scale

    def sample(key: Key, loc: Array, scale: Array) -> Array:
        z = _logistic_sample(key, loc, scale)
        i = jnp.clip(jnp.round((z + 1) * (levels - 1) / 2), 0, levels - 1)
        return lowest + step * i

    def over_edges(term: Callable[[Array, Array], Array], like: Array) -> Array:
        """Sums term(i, edge above level i) in a loop, to bound memory."""

        def add(i: Array, sum_: Array) -> Array:
            i = i.astype(like.dtype)
            return sum_ + term(i, read(i + 0.5))

        return jax.lax.fori_loop(0, levels - 1, add, jnp.zeros_like(like))

    def mean_level(loc: Array, scale: Array) -> Array:
        # sum_i P(X > level i)
        return over_edges(lambda _, edge: jax.nn.sigmoid((loc - edge) / scale), loc)

    def mean(loc: Array, scale: Array) -> Array:
        loc, scale = common(loc, scale)
        return lowest + step * mean_level(loc, scale)

    def variance(loc: Array, scale: Array) -> Array:
        # E (X - c)^2 = sum_j (2 j + 1) (P(X - c > j) + P(c - X > j)), positive terms
        # only, about the level c nearest to the mean.
        loc, scale = common(loc, scale)
        m = mean_level(loc, scale)
        c = jax.lax.stop_gradient(jnp.round(m))

        def term(i: Array, edge: Array) -> Array:
            away = jnp.where(i >= c, 2 * (i - c) + 1, 2 * (c - i) - 1)
            out = (loc - edge) / scale
            return away * jax.nn.sigmoid(jnp.where(i >= c, out, -out))

        return step**2 * (over_edges(term, loc) - jnp.square(m - c))

    def cdf(x: Array, loc: Array, scale: Array) -> Array:
        i = jnp.floor((x - lowest) / step + 0.01)  # a level may be rounded down
        inside = jax.nn.sigmoid(standard(read(i + 0.5), loc, scale))
        outside = jnp.where(i < 0, jnp.zeros_like(inside), jnp.ones_like(inside))
        return jnp.where((i < 0) | (i >= levels - 1), outside, inside)

    def quantile(p: Array, loc: Array, scale: Array) -> Array:
        z = _logistic_quantile(p, loc, scale)
        i = jnp.ceil((z + 1) * (levels - 1) / 2 - 0.5)  # first upper edge at or above z
        return lowest + step * jnp.clip(i, 0, levels - 1)

    spec = Spec(
        "discretised_logistic",
        (("lowest", lowest), ("step", step), ("levels", levels)),
        1,
        levels,
    )
    return Kernel(
        with_slopes(log_prob, slopes),
        sample,
        mean,
        cdf,
        quantile,
        variance,
        support,
        spec,
    )


def _on_grid(index: Any, levels: int) -> Any:
    near = abs(index - index.round()) < 0.01  # room for the rounding of (x - l) / step
    return near & (index > -0.5) & (index < levels - 0.5)

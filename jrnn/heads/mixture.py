r"""The mixture head: several modes, skew, heavy tails, and quantised signals.

    p(x_t | h_t) = sum_k w_k prod_i p(x_i; mu_ik, s_ik)

All components of x share the weights and therefore depend on one another given h, as is
usual for mixture density networks.

Source: C. Bishop, Mixture density networks, 1994,
https://publications.aston.ac.uk/id/eprint/373/.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jrnn.core.arguments import check_size, tell
from jrnn.core.cell import Key
from jrnn.core.memoize import memoize
from jrnn.heads.arguments import above_zero, casting, size_or_none, whether_missing
from jrnn.heads.distribution import Family
from jrnn.heads.head import Head
from jrnn.heads.mixture_kernels import Kernel, gaussian_kernel
from jrnn.heads.number_head import family_of_numbers, number_head
from jrnn.heads.numerics import bisect, common, heat, largest, positive
from jrnn.heads.sampling import sample_symbols


class Mixture(NamedTuple):
    """Parameters of a mixture of K; without a size, there is no axis n.

    Attributes:
      log_weights: ln w, (..., K).
      loc: mu, (..., n, K), in the units of the kernel's location.
      scale: s, (..., n, K).
    """

    log_weights: Float[Array, "... K"]
    loc: Float[Array, "..."]
    scale: Float[Array, "..."]


@casting(
    components=check_size,
    size=size_or_none,
    missing=whether_missing,
    least_scale=above_zero,
)
def mixture(
    components: int,
    kernel: Kernel = gaussian_kernel,
    size: int | None = None,
    missing: bool = False,
    least_scale: float = 1e-4,
) -> Head:
    """Makes a mixture head: weights, locations and scales are functions of h.

    Args:
      components: K, the number of distributions in the mixture.
      kernel: Their family: `jrnn.heads.gaussian_kernel`, `jrnn.heads.logistic_kernel`,
        or `jrnn.heads.discretised_logistic(lowest, step, levels)` for quantised
        signals.
      size: n, how many numbers a value has, (T, *batch, n), which share the weights;
        None: a value is one number, (T, *batch).
      missing: Whether values may be missing. The cell then reads n values and n flags,
        1 where a value is known, so its input size doubles.
      least_scale: The lower bound of the scales, in the units of x, or of half the
        range of a quantised signal; at zero weights scales are 1 + least_scale.

    Returns:
      A head that predicts distributions with parameters `Mixture(log_weights, loc,
      scale)`. Sampling at temperature tau picks component k with probability
      proportional to w_k^(1/tau) and multiplies its variance by tau (D. Ha and D. Eck,
      https://arxiv.org/abs/1704.03477); at 0 it returns the location of the heaviest.
      Quantiles are found by bisection between the lowest and the highest quantile of
      the components, down to 2^-48 of that width in float32 and 2^-80 in float64. A
      component's log-density is clipped at a finite number, as in `jrnn.gaussian`, and
      its gradient is finite at any finite number.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: A number is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.heads.mixture(3, kernel=jrnn.heads.logistic_kernel)
      >>> params = head.init(jax.random.key(0), 4)
      >>> round(float(head.predict(params, jnp.zeros(4)).cdf(jnp.array(0.0))), 3)
      0.5
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(
            "Expected kernel to be jrnn.heads.gaussian_kernel, "
            "jrnn.heads.logistic_kernel or what "
            "jrnn.heads.discretised_logistic(lowest, step, levels) returns, got "
            f"{tell(kernel)}."
        )
    return number_head(
        "mixture",
        components * (1 + 2 * (size or 1)),
        functools.partial(_shape, components, size, least_scale),
        _family(kernel, size),
        kernel.support,
        components=components,
        kernel=kernel,
        size=size,
        missing=missing,
        least_scale=least_scale,
    )


def _shape(K: int, size: int | None, least: float, raw: Array) -> Mixture:
    event = (K,) if size is None else (size, K)
    logits, rest = raw[..., :K], raw[..., K:]
    loc, scale = jnp.split(rest, 2, axis=-1)
    return Mixture(
        jax.nn.log_softmax(logits, axis=-1),
        loc.reshape(*raw.shape[:-1], *event),
        positive(scale.reshape(*raw.shape[:-1], *event), least),
    )


@memoize
def _family(kernel: Kernel, size: int | None) -> Family:
    def log_prob(predicted: Mixture, x: Array, mask: Array | None = None) -> Array:
        x, log_w, loc, scale = common(x, *predicted)
        terms = kernel.log_prob(x[..., None], loc, scale)
        if mask is not None:
            terms = jnp.where(mask[..., None], terms, 0)
        if size is not None:  # every component's sum may overflow at once
            terms = jnp.maximum(terms.sum(axis=-2), -largest(terms))
        scored = jax.scipy.special.logsumexp(log_w + terms, axis=-1)
        if mask is None:
            return scored
        # All missing: exactly 0, as the weights sum to 1 only up to rounding.
        return jnp.where(mask if size is None else mask.any(axis=-1), scored, 0)

    def sample(key: Key, predicted: Mixture, temperature: Array) -> Array:
        log_w, loc, scale = predicted
        key_k, key_x = jax.random.split(key)
        k = sample_symbols(key_k, log_w, temperature)[..., None]
        k = k if size is None else k[..., None]
        known = lambda a: jnp.where(k < 0, jnp.nan, a)  # -1 for weights that are NaN
        pick = lambda a: known(jnp.take_along_axis(a, k, axis=-1))[..., 0]
        middle, spread = pick(loc), pick(scale)
        return kernel.sample(key_x, middle, heat(temperature, middle) * spread)

    def mean(predicted: Mixture) -> Array:
        return _weigh(predicted, kernel.mean(predicted.loc, predicted.scale))

    def variance(predicted: Mixture) -> Array:
        each = kernel.mean(predicted.loc, predicted.scale)
        apart = jnp.square(each - _weigh(predicted, each)[..., None])
        within = kernel.variance(predicted.loc, predicted.scale)
        return _weigh(predicted, within + apart)

    def quantile(predicted: Mixture, p: Array) -> Array:
        p, *rest = jax.lax.stop_gradient(common(p, *predicted))
        predicted = Mixture(*rest)
        each = kernel.quantile(p[..., None], predicted.loc, predicted.scale)
        below = lambda x: cdf(predicted, x) < p
        found = bisect(below, each.min(axis=-1), each.max(axis=-1))
        return kernel.support.nearest(found)

    def cdf(predicted: Mixture, x: Array) -> Array:
        x, *rest = jax.lax.stop_gradient(common(x, *predicted))
        predicted = Mixture(*rest)
        below = kernel.cdf(x[..., None], predicted.loc, predicted.scale)
        # Rounding may make the weights sum to more than 1.
        return jnp.clip(_weigh(predicted, below), 0, 1)

    def _weigh(predicted: Mixture, values: Array) -> Array:
        w = jnp.exp(predicted.log_weights)
        return ((w if size is None else w[..., None, :]) * values).sum(axis=-1)

    def shape(predicted: Mixture) -> tuple[int, ...]:
        return jnp.shape(predicted.loc)[:-1]

    functions = log_prob, sample, mean, cdf, quantile, variance, shape
    return family_of_numbers(*functions, size=size, support=kernel.support)

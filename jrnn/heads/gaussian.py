r"""The Gaussian head, with independent components or a full covariance.

    p(x_t | h_t) = N(x_t; mu_t, Sigma_t)

Independent components, Sigma = diag(s^2), are those of `jrnn.heads.normal`; a full
covariance is that of `jrnn.heads.correlated_normal`.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.arguments import check_switch
from jrnn.heads.arguments import above_zero, casting, size_or_none, whether_missing
from jrnn.heads.correlated_normal import CorrelatedNormal, correlated
from jrnn.heads.head import Head
from jrnn.heads.normal import Normal, independent
from jrnn.heads.number_head import number_head
from jrnn.heads.numerics import positive


@casting(
    size=size_or_none,
    full=check_switch,
    missing=whether_missing,
    least_scale=above_zero,
)
def gaussian(
    size: int | None = None,
    full: bool = False,
    missing: bool = False,
    least_scale: float = 1e-4,
) -> Head:
    """Makes a Gaussian head: the mean and the scale are functions of h.

    Args:
      size: n, how many components a value has, (T, *batch, n); None: it is one number,
        (T, *batch).
      full: Whether components are correlated given h; False: they are independent.
      missing: Whether values may be missing: the cell then reads n values and n flags
        that tell which are known, and has twice the input size.
      least_scale: What the scale stays above, in the units of x; at zero weights the
        scale is 1 more. The density of a value has no bound otherwise.

    Returns:
      A head that predicts distributions of parameters `Normal(mean, scale)`, or
      `CorrelatedNormal(mean, scale, weights)` where `full`. Samples of temperature tau
      have tau times the variance; 0 gives the mean.

      A log-density ends at minus half the largest float for each component, which is
      where |z| is about 2e19 in float32; its gradient is that of the end, finite, and
      points to the value. With `full` this holds of weights and deviations within 1e15
      (float32), which they are held to; and where components are missing, while the
      squares of weights and of ratios of scales stay within the range of a float.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: `size` is below 1, or `least_scale` is not above 0; `full` without a
        size.

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.gaussian()
      >>> params = head.init(jax.random.key(0), 4)
      >>> round(float(head.log_prob(params, jnp.zeros(4), jnp.array(0.0))), 3)
      -0.919
    """
    n = size or 1
    if full and size is None:
        raise ValueError(
            "Expected a size for full=True, got None: one number has no correlations."
        )
    shape = functools.partial(_correlated if full else _independent, size, least_scale)
    return number_head(
        "gaussian",
        2 * n + (n * (n - 1) // 2 if full else 0),
        shape,
        correlated(n) if full else independent(size),
        size=size,
        full=full,
        missing=missing,
        least_scale=least_scale,
    )


def _independent(size: int | None, least: float, raw: Array) -> Normal:
    if size is None:
        return Normal(raw[..., 0], positive(raw[..., 1], least))
    return Normal(raw[..., :size], positive(raw[..., size:], least))


def _correlated(n: int, least: float, raw: Array) -> CorrelatedNormal:
    below = jnp.tril_indices(n, -1)
    phi = jnp.zeros((*raw.shape[:-1], n, n), raw.dtype)
    return CorrelatedNormal(
        raw[..., :n],
        positive(raw[..., n : 2 * n], least),
        phi.at[(..., *below)].set(raw[..., 2 * n :]),
    )

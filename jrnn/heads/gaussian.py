r"""The Gaussian head, with independent components or a full covariance.

    p(x_t | h_t) = N(x_t; mu_t, Sigma_t)

`jrnn.heads.normal` implements independent components, Sigma = diag(s^2), and
`jrnn.heads.correlated_normal` a full covariance.
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
      size: n, the number of components of a value, (T, *batch, n); None: a value is one
        number, (T, *batch).
      full: Whether components are correlated given h; False: they are independent.
      missing: Whether values may be missing. The cell then reads n values and n flags,
        1 where a value is known, so its input size doubles.
      least_scale: The lower bound of the scale, in the units of x; at zero weights the
        scale is 1 + least_scale. Without it the density would be unbounded.

    Returns:
      A head that predicts distributions with parameters `Normal(mean, scale)`, or
      `CorrelatedNormal(mean, scale, weights)` if `full`. Sampling at temperature tau
      multiplies the variance by tau; at 0 it returns the mean.

      The log-density of each component is clipped at minus half the largest float,
      reached at |z| of about 2e19 in float32; there its gradient is that at the bound:
      finite, and pointing to the value. With `full` this applies to weights and
      deviations within 1e15 (float32), to which they are clipped; and where components
      are missing, as long as the squares of weights and of ratios of scales do not
      overflow.

    Raises:
      TypeError: An argument is of the wrong type.
      ValueError: `size` is below 1, `least_scale` is not above 0, or `full` is True
        without a size.

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

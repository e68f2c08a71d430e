"""Distributions: a family with its parameters; log_prob, mean, cdf, samples and so on.

`head.predict(params, features)`, `model.predict` and `model.predictive` return them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.cell import Key
from jrnn.core.check import check_array, is_traced
from jrnn.core.check_draws import check_given_key, check_temperature
from jrnn.core.check_kinds import dtype_of, sketch
from jrnn.core.constants import own_constants
from jrnn.core.dtypes import state_dtype
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.numerics import hide
from jrnn.heads.sampling import check_truncation


@pickled_by_call
class Family(NamedTuple):
    """A family of distributions, as pure functions of its parameters.

    Parameters have any leading axes; x and mask have the same leading axes, then an
    axis of components if values have several. A function that the family does not
    offer raises TypeError.

    Attributes:
      log_prob: (parameters, x, mask=None) -> log-density or log-probability in nats,
        summed over components. Where the mask is False a component is missing: it adds
        exactly 0, whatever its value.
      sample: (key, parameters, temperature) -> x; for a family that `truncates`, also
        (key, parameters, temperature, `jrnn.heads.sampling.Truncation`) -> x.
      mean: parameters -> the expectation of x.
      cdf: (parameters, x) -> P(X <= x), of each component. Gradients end here.
      quantile: (parameters, probability of the shape of x) -> the least x with P(X <=
        x) at least the probability, of each component. Gradients end here.
      variance: parameters -> the variance of x, of each component.
      shape: parameters -> the shape of x.
      check: (name, x, mask) -> both as arrays, the mask of the shape of x; raises on
        wrong types or shapes.
      event_shape: The shape of one value.
      values: The word for the elements of x in error messages.
      truncates: Whether x is a token id, so that `sample` takes top_k and top_p.
    """

    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    mean: Callable[[Any], Array]
    cdf: Callable[[Any, Array], Array]
    quantile: Callable[[Any, Array], Array]
    variance: Callable[[Any], Array]
    shape: Callable[[Any], tuple[int, ...]]
    check: Callable[..., tuple[Array, Array | None]]
    event_shape: tuple[int, ...] = ()
    values: str = "values"
    truncates: bool = False


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("parameters",),
    meta_fields=("family",),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """Distributions of one family, one for each index of the leading axes.

    A pytree whose leaves are the parameters: it can pass through `jax.jit` and
    `jax.vmap`, and `jax.tree.map(lambda a: a[-1], distribution)` is the distribution of
    the last step.

    Attributes:
      family: The family, static.
      parameters: Its parameters, such as `Normal(mean, scale)`; for `jrnn.categorical`
        the log-probability of each symbol, (..., vocab_size).

    Example:
      >>> import jax, jax.numpy as jnp, jrnn
      >>> head = jrnn.gaussian()
      >>> params = head.init(jax.random.key(0), 4)
      >>> distribution = head.predict(params, jnp.zeros((3, 4)))
      >>> distribution.cdf(distribution.mean()).tolist()
      [0.5, 0.5, 0.5]
    """

    family: Family = dataclasses.field(repr=False)
    parameters: Any

    def __post_init__(self) -> None:
        """Raises TypeError unless `family` is a `Family`."""
        if not isinstance(self.family, Family):
            raise TypeError(
                "Expected family to be that of a head, such as jrnn.gaussian().family, "
                f"got {tell(self.family)}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x.

        Raises:
          TypeError: The parameters do not fit the family, or are not floats.
        """
        try:
            shape = self.family.shape(self.parameters)
            floats = [dtype_of(leaf) for leaf in jax.tree.leaves(self.parameters)]
        except (AttributeError, TypeError, ValueError):
            shape, floats = (), []
        real = [d for d in floats if d is not None and jnp.issubdtype(d, jnp.floating)]
        least = len(self.family.event_shape)
        if not floats or len(real) < len(floats) or len(shape) < least:
            raise TypeError(
                "Expected parameters of a distribution such as head.predict(params, "
                f"features) returns, of floats, got {_described(self.parameters)}."
            )
        return shape

    @own_constants
    def log_prob(self, x: Array, mask: Array | None = None) -> Array:
        """Returns the log-density or log-probability of x in nats, (...).

        Args:
          x: Values, (...) or (..., size); a value outside the family's support, such
            as a token id out of range, scores NaN.
          mask: Which values are known, of the shape of x or (...); a missing component
            adds exactly 0, whatever its value. None: all.
        """
        x, mask = self._checked(x, mask)
        return self.family.log_prob(self.parameters, x, mask)

    @own_constants
    def cdf(self, x: Array, mask: Array | None = None) -> Array:
        """Returns P(X <= x) of each component, for probability integral transforms.

        For sequences with lengths,
        `distribution.cdf(xs, jnp.arange(len(xs))[:, None] < lengths[None])` is 0 past
        each length; with `... & mask` it is also 0 at missing values.

        Args:
          x: Values, (...) or (..., size).
          mask: The result is 0 where this is False; of the shape of x or (...). None:
            nowhere.

        Returns:
          Probabilities, of the shape of x, without gradients.

        Raises:
          TypeError: The values have no order, such as categories.
        """
        x, mask = self._checked(x, mask)
        return hide(mask, self.family.cdf(self.parameters, x))

    @own_constants
    def quantile(self, probability: float | Array) -> Array:
        """Returns the least x with P(X <= x) at least `probability`: a value-at-risk.

        Args:
          probability: Within 0..1; one number, or an array of the shape of x.

        Returns:
          The quantile of each component, of the shape of x, without gradients.

        Raises:
          TypeError: The values have no order, such as categories.
          ValueError: A probability is out of range.
        """
        shape = self.shape
        p = _check_probability(probability).astype(state_dtype(self.parameters))
        if p.shape:
            check_shape("probability", p, shape)
        return self.family.quantile(self.parameters, jnp.broadcast_to(p, shape))

    @own_constants
    def mean(self) -> Array:
        """Returns the expectation of x; raises TypeError for categories."""
        return self.family.mean(self._widened())

    @own_constants
    def variance(self) -> Array:
        """Returns the variance of each component; raises TypeError for categories."""
        return self.family.variance(self._widened())

    @own_constants
    def sample(
        self,
        key: Key,
        temperature: float | Array = 1.0,
        top_k: int | Array | None = None,
        top_p: float | Array | None = None,
    ) -> Array:
        """Draws one sample from each distribution, of the shape of x.

        `jrnn.heads.sampling` defines top-k and top-p sampling of token ids. All numbers
        may be traced: another value needs no other program.

        Args:
          key: A PRNG key.
          temperature: One number of at least 0, or an array with one for each
            distribution; the docstring of each head defines its effect.
          top_k: How many of the most probable token ids may be drawn, at least 1; one
            number, or one for each distribution. None: all.
          top_p: The least sum of the probabilities, at this temperature, of those that
            may be drawn, within 0..1; one number, or one for each. None: 1.

        Raises:
          TypeError: `top_k` or `top_p` is given, but x is not a token id.
          ValueError: A number is out of range, or its shape does not fit.
        """
        key, shape = check_given_key(key), self.shape
        batch = shape[: len(shape) - len(self.family.event_shape)]
        tau = check_temperature(temperature, batch)
        refusal = None if self.family.truncates else "a distribution of numbers"
        truncation = check_truncation(top_k, top_p, batch, refusal)
        truncated = (truncation,) if self.family.truncates else ()
        return self.family.sample(key, self.parameters, tau, *truncated)

    def _checked(self, x: Any, mask: Any) -> tuple[Array, Array | None]:
        """Returns values and mask as arrays; raises on wrong types or shapes."""
        check_shape(f"x, the {self.family.values},", check_array("x", x), self.shape)
        return self.family.check("x", x, mask)

    def _widened(self) -> Any:
        """Returns the parameters cast to float32 or wider, to sum in."""
        self.shape  # noqa: B018 it raises
        dtype = state_dtype(self.parameters)
        return jax.tree.map(lambda a: jnp.asarray(a, dtype), self.parameters)


def check_shape(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `x` has the shape of the prediction."""
    if jnp.shape(x) != shape:
        raise ValueError(
            f"Expected {name} of shape {shape}, one for each predicted distribution, "
            f"got {jnp.shape(x)}; it is not broadcast, use jnp.broadcast_to."
        )


def _check_probability(probability: Any) -> Array:
    """Returns an array; raises ValueError if a concrete value is outside 0..1."""
    p = check_array("probability", probability)
    if not any(jnp.issubdtype(p.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(
            "Expected probability to be a number within 0..1, or an array of them, "
            f"got {p.dtype}."
        )
    if not is_traced(p):
        known = np.asarray(p, np.float64)
        wrong = ~((known >= 0) & (known <= 1))
        if wrong.any():
            raise ValueError(
                f"Expected a probability within 0..1, got {known[wrong].flat[0]}; "
                "divide a percentage by 100."
            )
    return p


def _described(parameters: Any) -> str:
    leaves = jax.tree.leaves(parameters)
    return tell(parameters) if len(leaves) < 2 else sketch(parameters)

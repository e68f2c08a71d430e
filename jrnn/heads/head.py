r"""The interface of a head: the distribution of the next symbol given the state.

The notes' output layer is some function of h; a head is that function together with the
family of distributions whose parameters it computes: P(x_t | h_t).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.cell import Params, Spec, call_of
from jrnn.core.constants import own_constants
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.distribution import Distribution, Family, check_shape


@pickled_by_call
class Head(NamedTuple):
    """Predicts and scores symbols from features, as pure functions.

    Symbols are token ids or numbers: `event_shape` is () if a symbol is one number, so
    that xs is (T, *batch), and (size,) if it has components, (T, *batch, size).

    Attributes:
      init: (key, feature_size, dtype=None) -> params.
      predict: (params, features) -> `Distribution`, one for each feature vector, with
        methods for mean, variance, quantile, cdf and samples.
      check: (name, xs, mask=None) -> xs and mask as arrays, the mask of the shape of
        xs; raises on wrong types or shapes.
      check_values: (name, xs, mask=None) -> None; raises if the head cannot score a
        concrete value. Under `jax.jit` such a value scores NaN.
      symbols: (xs, mask=None) -> symbols, the pytree in which a model's state keeps
        them.
      encode: symbols -> the input of the cell.
      blank: (batch_shape, dtype) -> the symbols that mean "no symbol yet".
      seen: symbols -> bool, False for "no symbol yet".
      family: The family of the distributions that `predict` returns.
      spec: The factory call that made the head; its `input_size` is that of the cell
        that reads the symbols.
      missing: Whether the cell's input includes flags for missing values.
    """

    init: Callable[..., Params]
    predict: Callable[[Params, Array], Distribution]
    check: Callable[..., tuple[Array, Array | None]]
    check_values: Callable[..., None]
    symbols: Callable[..., Any]
    encode: Callable[[Any], Array]
    blank: Callable[..., Any]
    seen: Callable[[Any], Array]
    family: Family
    spec: Spec
    missing: bool = False

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one symbol."""
        return self.family.event_shape

    @own_constants
    def log_prob(
        self, params: Params, features: Array, targets: Array, mask: Array | None = None
    ) -> Array:
        """Returns the log-density of each target, in nats, (...).

        Args:
          params: Of the head.
          features: (..., feature_size), one vector for each target.
          targets: Symbols, (...) or (..., size).
          mask: Where False a component is missing, and adds exactly 0.
        """
        targets, mask = self.check("targets", targets, mask)
        predicted = self.predict(params, features)
        check_shape("targets", targets, predicted.shape)
        return predicted.log_prob(targets, mask)

    __repr__ = call_of


def check_head(head: Any) -> None:
    """Raises TypeError unless `head` is a head."""
    if not isinstance(head, Head):
        raise TypeError(
            "Expected head to be a Head, made by a factory such as "
            f"jrnn.categorical(5), got {tell(head)}."
        )

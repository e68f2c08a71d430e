r"""The linear-Gaussian Markov model: autoregression of order k, by least squares.

    x_t = b + x_{t-1} A_1 + ... + x_{t-k} A_k + e_t,    e_t ~ N(0, Q)

With several components it is a vector autoregression. Where fewer than k values are
known right before a step, because the sequence has just begun or there is a gap, the
regression of that lower order predicts the step; regressions of all orders are fitted,
and order 0 is the mean and covariance of the training values. Every step therefore has
a proper density given those before it, and their product is the sequence's density.

Source: H. Luetkepohl, New Introduction to Multiple Time Series Analysis (2005),
chapters 2 and 3, https://doi.org/10.1007/978-3-540-27752-1.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.core.arguments import check_size
from jrnn.core.cell import Key, Spec, call_of, describe
from jrnn.core.check import check_floating, check_like, fit_state, is_traced
from jrnn.core.check_draws import check_batch_shape
from jrnn.core.check_inputs import check_lengths, check_steps
from jrnn.core.countable import check_countable
from jrnn.core.dtypes import state_dtype
from jrnn.core.flags import active_steps
from jrnn.core.memoize import memoize
from jrnn.core.pickling import pickled_by_call
from jrnn.heads.distribution import Distribution
from jrnn.heads.number_head import FINITE, check_held, check_numbers
from jrnn.models.autoregression import (
    Forecast,
    Form,
    Lags,
    Values,
    foresee,
    generate,
    propagate,
    run,
    score,
)
from jrnn.models.prompts import Reader, Request, begin, check_single
from jrnn.models.regressions import Regressions, regress_orders


@pickled_by_call
class LinearGaussianMarkov(NamedTuple):
    """p(x_t | the k values before it), linear and Gaussian, as pure functions.

    Values are numbers (T, *batch), or (T, *batch, size) with a size. Where a mask, of
    that shape or (T, *batch), is False, a value or a component is missing.

    Attributes:
      fit: (xs, lengths=None, mask=None) -> params, by least squares; noise covariances
        by maximum likelihood, divided by the number of windows. Float64 inside.
      init_state: (params, batch_shape=()) -> state, before the first value.
      predict: (params, state) -> the `Distribution` of the next value, of parameters
        `Normal(mean, scale)`, or `CorrelatedNormal(mean, scale, weights)` with a size.
      predictive: arguments as `log_prob` -> (state, distribution) of each x_t given
        x_<t, (T, *batch).
      log_prob: (params, xs, state=None, lengths=None, mask=None) -> (state, log_probs),
        with log p(x_t | x_<t) in nats, (T, *batch); 0 past a length and for missing
        values.
      sample: (params, key, length, prompt=None, temperature=1.0, batch_shape=(),
        state=None, prompt_mask=None) -> the `length` values that follow the state and
        then the prompt. The temperature is one number, or an array of the batch shape
        with one for each sequence. A state or a prompt without batch axes serves a
        whole batch. `prompt_mask` is the mask of the prompt. `top_k` and `top_p`, which
        other models take, are refused: values are no token ids.
      forecast: (params, state, steps) -> `Forecast(mean, variance)` 1 to `steps` steps
        ahead; exact, the limit of infinitely many samples.
      spec: The factory call that made the model.
    """

    fit: Callable[..., Regressions]
    init_state: Callable[..., Lags]
    predict: Callable[[Regressions, Lags], Distribution]
    predictive: Callable[..., tuple[Lags, Distribution]]
    log_prob: Callable[..., tuple[Lags, Array]]
    sample: Callable[..., Array]
    forecast: Callable[[Regressions, Lags, int], Forecast]
    spec: Spec

    __repr__ = call_of


@memoize
def linear_gaussian_markov(order: int, size: int | None = None) -> LinearGaussianMarkov:
    """Makes the autoregressive model of order k, fitted by least squares.

    Args:
      order: k, the number of past values on which the next one depends; 0 or more.
      size: n, the number of components of a value, (T, *batch, n); None: a value is one
        number, (T, *batch).

    Returns:
      A model with the interface of `jrnn.markov_chain`, and `forecast`.

    Raises:
      TypeError: A number is of the wrong type.
      ValueError: A number is out of range.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> model = jrnn.models.linear_gaussian_markov(order=1)
      >>> params = model.fit(jnp.array([1.0, 0.0, 1.0, 0.1, 0.9, 0.0, 1.1]))
      >>> state, log_probs = model.log_prob(params, jnp.array([1.0, 0.0]))
      >>> [round(x) for x in model.forecast(params, state, 3).mean.tolist()]
      [1, 0, 1]
    """
    check_size("order", order, least=0)
    if size is not None:
        check_size("size", size)
    form = Form(order, size)
    return LinearGaussianMarkov(
        fit=functools.partial(_fit, form),
        init_state=functools.partial(_init_state, form),
        predict=functools.partial(_predict, form),
        predictive=functools.partial(_predictive, form),
        log_prob=functools.partial(_log_prob, form),
        sample=functools.partial(_sample, form),
        forecast=functools.partial(_forecast, form),
        spec=form.spec,
    )


def _fit(form: Form, xs: Any, lengths: Any = None, mask: Any = None) -> Regressions:
    if any(map(is_traced, (xs, lengths, mask))):
        raise TypeError(
            "Expected concrete values, got traced ones: the number of windows depends "
            "on them. Call fit outside jax.jit."
        )
    values = _checked(form, xs, lengths, mask)
    n = form.size or 1
    whole = np.asarray(values.known.all(axis=-1)).reshape(len(values.x), -1)
    x = np.asarray(values.x, np.float64).reshape(*whole.shape, n)
    fitted = regress_orders(x, whole, form.order)
    return Regressions(*(jnp.asarray(leaf, float) for leaf in fitted))


def _checked(form: Form, xs: Any, lengths: Any, mask: Any) -> Values:
    """Returns the values and which are known; raises on invalid arguments."""
    name = describe(form.spec)
    xs, mask = check_numbers(name, form.event, "xs", xs, mask)
    batch = check_steps(xs, form.event)
    check_countable(len(xs) + form.order, describe(form.spec))
    known = jnp.ones(xs.shape, bool) if mask is None else mask
    x, known = (a if form.event else a[..., None] for a in (xs, known))
    if lengths is not None:
        lengths = jnp.clip(check_lengths(lengths, len(xs), batch), 0, len(xs))
    within = active_steps(len(xs), lengths, None)
    known = known if within is None else known & within[..., None]
    check_held(name, FINITE, "xs", x, known)
    return Values(jnp.where(known, x, 0), known, lengths)


def _check_params(form: Form, params: Regressions) -> None:
    k, n = form.order, form.size or 1
    shapes = ((k + 1, k, n, n), (k + 1, n), (k + 1, n, n))
    like = jax.eval_shape(lambda: Regressions(*map(jnp.zeros, shapes)))
    check_like("params", params, like, lambda: f"{describe(form.spec)}.fit(xs)")
    check_floating("params", params)


def _init_state(
    form: Form, params: Regressions, batch_shape: tuple[int, ...] = ()
) -> Lags:
    _check_params(form, params)
    shape = (form.order, *check_batch_shape(batch_shape))
    return Lags(
        jnp.zeros((*shape, form.size or 1), state_dtype(params)), jnp.zeros(shape, bool)
    )


def _predict(form: Form, params: Regressions, state: Lags) -> Distribution:
    _check_params(form, params)
    state = check_single(functools.partial(_init_state, form, params), state, axis=1)
    dtype = state_dtype(params, state)
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    return foresee(form, params, state._replace(x=state.x.astype(dtype)))


def _log_prob(
    form: Form,
    params: Regressions,
    xs: Any,
    state: Lags | None = None,
    lengths: Any = None,
    mask: Any = None,
) -> tuple[Lags, Array]:
    values, before = _prepared(form, params, xs, state, lengths, mask)
    return score(form, mask is not None, params, values, before)


def _predictive(
    form: Form,
    params: Regressions,
    xs: Any,
    state: Lags | None = None,
    lengths: Any = None,
    mask: Any = None,
) -> tuple[Lags, Distribution]:
    values, before = _prepared(form, params, xs, state, lengths, mask)
    return run(form, params, values, before)


def _prepared(
    form: Form,
    params: Regressions,
    xs: Any,
    state: Lags | None,
    lengths: Any,
    mask: Any,
) -> tuple[Values, Lags]:
    _check_params(form, params)
    values = _checked(form, xs, lengths, mask)
    batch = values.x.shape[1:-1]
    start = _init_state(form, params, batch)
    state = start if state is None else state
    source = lambda: f"init_state(params, {batch})"
    return values, fit_state("state", state, start, (), source)


def _sample(
    form: Form,
    params: Regressions,
    key: Key,
    length: int,
    prompt: Any = None,
    temperature: float | Array = 1.0,
    batch_shape: tuple[int, ...] = (),
    state: Lags | None = None,
    prompt_mask: Any = None,
    top_k: Any = None,
    top_p: Any = None,
) -> Array:
    _check_params(form, params)
    name = describe(form.spec)

    def read(prompt: Array, state: Lags, mask: Array | None, inputs: None) -> Lags:
        del inputs
        return _predictive(form, params, prompt, state, mask=mask)[0]

    reader = Reader(
        functools.partial(_init_state, form, params),
        read,
        functools.partial(check_numbers, name, form.event),
        functools.partial(check_held, name, FINITE),
        state_dtype(params),
        form.event,
        axis=1,
        refusal=name,
    )
    drawn = Request(
        key, length, prompt, temperature, batch_shape, state, prompt_mask, top_k, top_p
    )
    length, start = begin(reader, drawn)
    return generate(form, length, params, start)


def _forecast(form: Form, params: Regressions, state: Lags, steps: int) -> Forecast:
    steps = check_size("steps", steps)
    check_countable(steps, "forecasts", name="steps")
    _check_params(form, params)
    state = check_single(functools.partial(_init_state, form, params), state, axis=1)
    return propagate(form, steps, params, state)

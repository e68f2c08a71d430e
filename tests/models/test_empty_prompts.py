"""Empty prompts, and prompts that contradict the batch, in every model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn


def _key():
    """A key that nothing has used: reuse is an error."""
    return jax.random.key(0)


V = 5
_TEXT = np.arange(40) % V
_NUMBERS = jax.random.normal(_key(), (60,))
_VECTORS = jax.random.normal(_key(), (60, 2))


def _sequence(head):
    model = jrnn.sequence_model(jrnn.elman(head.spec.input_size, 2), head)
    return model, model.init(_key())


def _fitted(model, xs):
    return model, model.fit(xs)


# The model and its parameters, the shape of a symbol, and its type.
MODELS = {
    "categorical": lambda: (*_sequence(jrnn.categorical(V)), (), int),
    "gaussian": lambda: (*_sequence(jrnn.gaussian()), (), float),
    "missing": lambda: (*_sequence(jrnn.gaussian(2, missing=True)), (2,), float),
    "bernoulli": lambda: (*_sequence(jrnn.heads.bernoulli(2)), (2,), bool),
    "markov": lambda: (*_fitted(jrnn.markov_chain(V, 2), _TEXT), (), int),
    "unigram": lambda: (*_fitted(jrnn.markov_chain(V, 0), _TEXT), (), int),
    "linear": lambda: (
        *_fitted(jrnn.models.linear_gaussian_markov(2), _NUMBERS),
        (),
        float,
    ),
    "vector": lambda: (
        *_fitted(jrnn.models.linear_gaussian_markov(1, 2), _VECTORS),
        (2,),
        float,
    ),
}


@functools.cache
def _made(name):
    return MODELS[name]()


SLOW = set(MODELS) - {"categorical", "missing"}


@pytest.mark.longer_but_the_first
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MODELS],
)
def test_an_empty_prompt_still_says_how_many_sequences(name):
    model, params, event, kind = _made(name)
    empty = lambda *batch: jnp.zeros((0, *batch, *event), kind)
    whole = model.sample(params, _key(), 3, batch_shape=(4,))
    assert (model.sample(params, _key(), 3, empty(4)) == whole).all()

    def shape(**keywords):
        run = functools.partial(model.sample, params, _key(), 3, **keywords)
        return jax.eval_shape(run).shape

    for keywords in (
        {"prompt": empty(4)},
        {"prompt": empty(4), "batch_shape": (4,)},
        {"prompt": empty(), "batch_shape": (4,)},
        {"prompt": [], "batch_shape": (4,)},
        {"prompt": empty(4), "state": model.init_state(params)},
        {"prompt": empty(4), "state": model.init_state(params, (4,))},
        {"prompt": empty(), "state": model.init_state(params, (4,))},
    ):
        assert shape(**keywords) == (3, 4, *event), keywords
    assert shape(prompt=empty()) == (3, *event)
    assert shape(prompt=[]) == (3, *event)
    assert shape(prompt=empty(2, 3)) == (3, 2, 3, *event)
    assert shape(prompt=empty(0)) == (3, 0, *event)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_must_not_contradict_the_batch(name, steps):
    model, params, event, kind = _made(name)
    prompt = jnp.zeros((steps, 4, *event), kind)
    for keywords in (
        {"batch_shape": (5,)},
        {"batch_shape": (1,)},
        {"batch_shape": (4, 1)},
        {"batch_shape": (2, 2)},
        {"state": model.init_state(params, (5,))},
        {"state": model.init_state(params, (5,)), "batch_shape": (4,)},
    ):
        with pytest.raises(ValueError, match="prompt of shape|of shape"):
            jax.eval_shape(
                functools.partial(model.sample, params, _key(), 3, prompt, **keywords)
            )


@pytest.mark.parametrize("name", ["missing", "vector"])
def test_an_empty_prompt_has_the_components_of_the_model(name):
    model, params, _, _ = _made(name)
    with pytest.raises(ValueError, match="prompt of shape"):
        model.sample(params, _key(), 3, prompt=jnp.zeros((0, 4, 3)))
    mask = jnp.zeros((0, 4), bool)
    empty = jnp.zeros((0, 4, 2))
    run = functools.partial(model.sample, params, _key(), 3, empty, prompt_mask=mask)
    assert jax.eval_shape(run).shape == (3, 4, 2)
    with pytest.raises(ValueError, match="prompt_mask"):
        model.sample(params, _key(), 3, empty, prompt_mask=jnp.zeros((0, 5), bool))


@pytest.mark.parametrize("name", ["categorical", "gaussian", "linear"])
def test_a_prompt_needs_an_axis_of_time(name):
    model, params, _, kind = _made(name)
    with pytest.raises(ValueError, match=r"prompt of shape \(P"):
        model.sample(params, _key(), 3, prompt=jnp.zeros((), kind))

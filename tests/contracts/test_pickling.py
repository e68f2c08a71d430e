"""Cells, heads and models are pickled as the calls that made them."""

import copy
import multiprocessing
import pickle
from typing import NamedTuple

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import heads, initializers
from jrnn.cells import Weight, build, drawn, factory, initial
from jrnn.core.pickling import find
from tests.registry import CELLS

STARTS = {
    "recurrent_init": initializers.spectral_radius(0.9),
    "input_init": initializers.embedding,
    "bias_init": initializers.chrono_gru(10.0),
}
GRU = jrnn.gru(4, 4)
MADE = {case.name: case.make(3, 4) for case in CELLS}
CHANGED = {name for name in MADE if name.startswith("generic")}  # by `_replace`
MADE |= {
    "activation of jax.nn": jrnn.elman(3, 4, activation=jax.nn.relu),
    "activation of jax.numpy": jrnn.elman(3, 4, activation=jnp.sin),
    "activation of jax.lax": jrnn.elman(3, 4, activation=jax.lax.tanh),
    "initialisers": jrnn.gru(3, 4, **STARTS),
    "initialisers of two gates": jrnn.cells.diagonal_gru(
        3, 4, bias_init=initializers.para_gru
    ),
    "stack": jrnn.stack(GRU, jrnn.dropout(GRU, 0.5), jrnn.residual(GRU)),
    "bidirectional": jrnn.bidirectional(GRU, jrnn.lstm(4, 2)),
    "zoneout": jrnn.wrappers.zoneout(jrnn.lstm(3, 4), (0.2, 0.5)),
    "variational dropout": jrnn.wrappers.variational_dropout(GRU, 0.5),
    "learned initial state": jrnn.wrappers.learned_initial_state(GRU),
    "orthogonal": jrnn.wrappers.orthogonal(GRU, initializers.cayley),
    "categorical": jrnn.categorical(5),
    "bernoulli": heads.bernoulli(2),
    "gaussian": jrnn.gaussian(np.int64(2), full=True),
    "student_t": heads.student_t(missing=True),
    "mixture": heads.mixture(3, kernel=heads.logistic_kernel),
    "mixture of levels": heads.mixture(
        2, kernel=heads.discretised_logistic(0.0, 1.0, 5)
    ),
    "kernel": heads.gaussian_kernel,
    "sequence_model": jrnn.sequence_model(jrnn.gru(5, 4), jrnn.categorical(5)),
    "supervised_model": jrnn.supervised_model(
        GRU, jrnn.categorical(5), jrnn.models.last_pool
    ),
    "markov_chain": jrnn.markov_chain(5, 2),
    "linear_gaussian_markov": jrnn.models.linear_gaussian_markov(3),
}
PICKLED = sorted(MADE.keys() - CHANGED)


@pytest.mark.parametrize("name", PICKLED)
def test_what_a_call_made_comes_back_identical(name):
    made = MADE[name]
    assert pickle.loads(pickle.dumps(made)) is made
    assert cloudpickle.loads(cloudpickle.dumps(made)) is made
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made


def run(made: dict) -> dict[str, np.ndarray]:
    """Outputs of cells; in another process too, which finds this by its name."""
    found = {}
    for name, cell in made.items():
        params = cell.init(jax.random.key(1))
        xs = jnp.ones((2, cell.spec.input_size), jnp.float32)
        found[name] = np.asarray(jrnn.unroll(cell, params, xs)[1])
    return found


@pytest.mark.slow
def test_another_process_makes_the_same_cells():
    names = ("initialisers", "activation of jax.numpy", "stack", "zoneout", "lru")
    cells = {name: MADE[name] for name in names}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(run, (cells,))
    for name, here in run(cells).items():
        np.testing.assert_array_equal(there[name], here, err_msg=name)


def test_a_call_that_returns_its_argument_is_not_what_made_it():
    cell = jrnn.gru(2, 7)
    assert jrnn.dropout(cell, 0.0) is cell
    assert pickle.loads(pickle.dumps(cell)) is cell


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(AttributeError, match="import the module that defines it"):
        find("jrnn.cells:nowhere")


def test_a_method_comes_back_equal():
    for method in (jrnn.bptt(remat=4), jrnn.newton(fallback=True), jrnn.truncated(3)):
        again = pickle.loads(pickle.dumps(method))
        assert again == method
        assert hash(again) == hash(method)


@pytest.mark.longer
def test_a_distribution_comes_back():
    for head in (heads.mixture(2), jrnn.gaussian(2, full=True), jrnn.categorical(3)):
        params = head.init(jax.random.key(0), 4)
        predicted = head.predict(params, jnp.ones((3, 4)))
        again = pickle.loads(pickle.dumps(predicted))
        assert again.family is predicted.family
        pairs = zip(*map(jax.tree.leaves, (again, predicted)), strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


def leaky(a):
    return jnp.where(a > 0, a, 0.1 * a)


class OwnParams(NamedTuple):
    W_x: jax.Array


class OwnState(NamedTuple):
    h: jax.Array


@factory
def own(input_size: int, hidden_size: int) -> jrnn.Cell:
    """A leaky sum of what is read."""
    return build(
        drawn(OwnParams, W_x=Weight(initializers.henaff, (input_size, hidden_size))),
        initial(OwnState, h=hidden_size),
        hidden_size,
        advance=lambda params, state, u: OwnState(leaky(u + state.h)),
        project=lambda params, x: x @ params.W_x,
    )


def test_functions_and_factories_at_the_top_of_a_module_are_found():
    for cell in (jrnn.elman(3, 4, activation=leaky), own(3, 3)):
        assert pickle.loads(pickle.dumps(cell)) is cell


class TestRefused:
    """What no call gives raises TypeError, by any protocol and by cloudpickle."""

    @pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: GRU._replace(adjoint=None, gated=None), "one of its fields was"),
            (lambda: jrnn.stack(GRU._replace(gated=None), GRU), "was replaced"),
            (lambda: jrnn.gaussian()._replace(encode=None), "one of its fields was"),
            (lambda: jrnn.elman(3, 4, activation=lambda a: a), "activation to be"),
            (
                lambda: jrnn.elman(
                    3, 4, recurrent_init=jax.nn.initializers.normal(0.1)
                ),
                "recurrent_init to be a function that pickle can find",
            ),
        ],
    )
    def test_by_what_it_is(self, make, words, dumps):
        made = make()
        with pytest.raises(TypeError, match=words):
            dumps(made)
        assert copy.deepcopy(made) is made

    def test_a_factory_inside_a_function(self):
        inside = factory(lambda input_size: own.__wrapped__(input_size, 4))
        with pytest.raises(TypeError, match="top of a module"):
            pickle.dumps(inside(4))

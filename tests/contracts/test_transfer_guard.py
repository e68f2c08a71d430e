"""Everything runs under a transfer guard with arrays on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jrnn
from jrnn import diagnostics
from jrnn.train import init_train_state, make_train_step, regularisers, streams

T, B, K = 5, 2, 4
KEY = jax.random.key(0)
slow = pytest.mark.slow


def new_key():
    """A key that is used once; one that is made here would come from the host."""
    return jax.random.clone(KEY)


def on_device(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


XS, X = on_device(T, B, K), on_device(B, K)
IDS, LENGTHS = on_device(T, B, dtype=jnp.int32), jnp.array([5, 3])
MASK, RESETS = jnp.ones((T, B), bool), jnp.zeros((T, B), bool)
VALUES, LABELS = on_device(T, B), on_device(B, dtype=jnp.int32)
GRU = jrnn.gru(K, K)
CELLS = {
    "elman": jrnn.elman(K, K),
    "lstm": jrnn.lstm(K, K, peepholes=True, projection_size=2),
    "s5 irregular": jrnn.cells.s5(K, K, irregular=True),
    "exp_rnn": jrnn.cells.exp_rnn(K, K),
    "min_gru": jrnn.cells.min_gru(K, K),
    "layer norm": jrnn.cells.layer_norm_lstm(K, K),
    "zoneout": jrnn.wrappers.zoneout(GRU, 0.5),
    "variational_dropout": jrnn.wrappers.variational_dropout(GRU, 0.5),
    "learned_initial_state": jrnn.wrappers.learned_initial_state(jrnn.cells.lru(K, K)),
    "orthogonal": jrnn.wrappers.orthogonal(GRU),
    "stack": jrnn.stack(GRU, jrnn.residual(jrnn.dropout(GRU, 0.5))),
    "bidirectional": jrnn.bidirectional(GRU, GRU),
}
HEADS = {
    "categorical": (jrnn.categorical(K), IDS),
    "gaussian": (jrnn.gaussian(), on_device(T, B)),
    "full": (jrnn.gaussian(2, full=True), on_device(T, B, 2)),
    "missing": (jrnn.gaussian(missing=True), on_device(T, B)),
    "student_t": (jrnn.heads.student_t(), on_device(T, B)),
    "bernoulli": (jrnn.heads.bernoulli(), on_device(T, B)),
    "mixture": (jrnn.heads.mixture(2), on_device(T, B)),
}


@pytest.fixture
def guarded():
    with jax.transfer_guard("disallow"):
        yield


def some(names, quick):
    return [n if n in quick else pytest.param(n, marks=slow) for n in names]


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("name", some(CELLS, ("elman",)))
def test_cells_run_under_the_guard(name):
    cell = CELLS[name]
    params = cell.init(new_key())
    cell.init(new_key(), jnp.bfloat16)
    state = cell.init_state(params, (B,))
    if name != "bidirectional":
        cell.step(params, state, X)
    jrnn.unroll(
        cell,
        params,
        XS,
        state,
        lengths=LENGTHS,
        mask=MASK,
        resets=RESETS,
        key=new_key(),
    )


@pytest.mark.usefixtures("guarded")
def test_the_first_unroll_of_a_cell_is_no_exception():
    cell = jrnn.elman(K, 7)  # of a size that no other test has
    params = jax.jit(cell.init)(new_key())
    jrnn.unroll(cell, params, XS)
    jrnn.trajectory(cell, params, XS, reverse=True)
    jrnn.unroll(cell, params, IDS, lengths=LENGTHS)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("name", some(HEADS, ()))
def test_models_and_heads_run_under_the_guard(name):
    head, xs = HEADS[name]
    model = jrnn.sequence_model(jrnn.gru(head.spec.input_size, K), head)
    params = model.init(new_key())
    state = model.init_state(params, (B,))
    mask = MASK if name == "missing" else None
    model.log_prob(params, xs, state, LENGTHS, mask=mask)
    model.predict(params, state)
    _, predicted = model.predictive(params, xs, lengths=LENGTHS)
    model.sample(params, new_key(), 2, prompt=xs, batch_shape=(B,))
    if name not in ("categorical", "bernoulli"):
        predicted.mean(), predicted.variance(), predicted.cdf(xs)
        predicted.quantile(0.5)
    head.init(new_key(), K)
    head.log_prob(params.head, XS, xs)
    predicted = head.predict(params.head, XS)
    predicted.sample(new_key()), predicted.log_prob(xs, MASK)


def loss(state, ys):
    del state
    return ys.sum()


def supervised():
    model = jrnn.supervised_model(GRU, jrnn.categorical(K), jrnn.models.mean_pool)
    own = model.init(new_key())
    model.predict(own, XS, lengths=LENGTHS)
    return model.log_prob(own, XS, LABELS)


def chain():
    model = jrnn.markov_chain(K, 2)
    fitted = model.fit(IDS)
    return model.log_prob(fitted, IDS, lengths=LENGTHS), model.sample(
        fitted, new_key(), 3
    )


def linear_gaussian():
    model = jrnn.models.linear_gaussian_markov(1)
    fitted = model.fit(jax.random.normal(new_key(), (50, 2)))
    return model.log_prob(fitted, XS.reshape(-1, B)), model.sample(fitted, new_key(), 3)


FUNCTIONS = {
    "bidirectional": lambda p: jrnn.unroll(jrnn.bidirectional(GRU, GRU), (p, p), XS),
    "newton_trajectory": lambda p: jrnn.run.newton_trajectory(GRU, p, XS),
    "truncated": lambda p: jrnn.unroll(GRU, p, XS, method=jrnn.truncated(2)),
    "supervised_model": lambda p: supervised(),
    "markov_chain": lambda p: chain(),
    "linear_gaussian_markov": lambda p: linear_gaussian(),
    "mean_over_steps": lambda p: jrnn.models.mean_over_steps(VALUES, LENGTHS),
    "bits_per_symbol": lambda p: jrnn.models.bits_per_symbol(VALUES),
    "last_pool": lambda _: jrnn.models.last_pool(XS, MASK),
    "mean_pool": lambda p: jrnn.models.mean_pool(XS, MASK),
    "state_adjoints": lambda p: diagnostics.state_adjoints(GRU, p, XS, loss),
    "jacobian_bound": lambda p: diagnostics.jacobian_bound(GRU, p, XS),
    "gradient_by_lag": lambda p: diagnostics.gradient_by_lag(GRU, p, XS, loss),
    "step_jacobians": lambda p: diagnostics.step_jacobians(GRU, p, XS),
    "jacobian_products": lambda p: diagnostics.jacobian_products(GRU, p, XS),
    "by_lag": lambda p: diagnostics.jacobian_products_by_lag(GRU, p, XS),
    "lyapunov_spectrum": lambda p: diagnostics.lyapunov_spectrum(GRU, p, XS),
    "memory": lambda p: diagnostics.memory_capacity(GRU, p, new_key(), max_delay=2),
    "gate_statistics": lambda p: diagnostics.gate_statistics(GRU, p, XS),
    "find_non_finite": lambda p: jrnn.diagnostics.find_non_finite(
        GRU, p, XS, lengths=LENGTHS
    ),
    "penalty": lambda p: regularisers.gradient_norm_penalty(GRU, p, XS, loss),
    "streams": lambda p: streams(IDS.reshape(-1), 2),
}
QUICK = ("mean_over_steps", "bits_per_symbol", "last_pool", "mean_pool", "streams")


@pytest.mark.parametrize("name", some(FUNCTIONS, QUICK))
def test_functions_run_under_the_guard(name):
    params = GRU.init(new_key())
    with jax.transfer_guard("disallow"):
        FUNCTIONS[name](params)


@slow
@pytest.mark.usefixtures("standard_promotion")
def test_training_runs_under_the_guard():
    head = jrnn.gaussian()
    model = jrnn.sequence_model(jrnn.gru(1, K), head)
    params, batch = model.init(new_key()), on_device(T, B)
    optimizer = optax.adam(1e-2)

    def objective(params, batch, carry, key):
        del key
        return -model.log_prob(params, batch)[1].mean(), (carry, {})

    state = init_train_state(params, optimizer, new_key())
    step = make_train_step(objective, optimizer)
    with jax.transfer_guard("disallow"):
        init_train_state(params, optimizer, new_key())
        step(state, batch)


def test_arrays_of_numpy_are_the_users_own_transfers():
    cell = CELLS["elman"]
    params = cell.init(new_key())
    state = cell.init_state(params, (B,))
    xs: Any = np.ones((T, B, K), np.float32)
    with jax.transfer_guard("disallow"):
        try:
            jnp.asarray(xs)
        except Exception:  # what jax raises is not documented
            pass
        else:
            pytest.skip("This version of jax guards no array of NumPy on a CPU.")
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jrnn.unroll(cell, params, xs)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            cell.step(params, state, np.ones((B, K), np.float32))

"""Known inputs of sequence models: P(x_t | x_<t, z_1..z_t) in every function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jrnn
from jrnn import train
from tests.helpers import assert_close, random_like, shapes_of

T, B, V = 6, 2, 3


def timed(n, k):
    """A cell whose last input is elapsed time, with a second layer."""
    return jrnn.stack(jrnn.cells.s5(n + k, 3, irregular=True), jrnn.elman(n + k - 1, 3))


def alone(n, k):
    return jrnn.cells.s5(n + k, 2, irregular=True)


# How to make a cell of n encoded features and k inputs; the head; and k.
MODELS = {
    "ids": (lambda n, k: jrnn.gru(n + k, 3), jrnn.categorical(V), 2),
    "missing": (alone, jrnn.gaussian(missing=True), 1),
    "stack": (timed, jrnn.gaussian(), 2),
    "stack of ids": (timed, jrnn.categorical(V), 1),
    "stack of several": (timed, jrnn.heads.student_t(2, missing=True), 1),
}
SLOW = set(MODELS) - {"missing"}  # tests/models/test_model.py has ids without inputs
EACH = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MODELS],
)


@functools.cache
def made(name, batch=(B,)):
    """A model, its parameters, symbols, inputs and a mask or None."""
    cell, head, k = MODELS[name]
    model = jrnn.sequence_model(cell(head.spec.input_size, k), head, inputs=k)
    params = random_like(1, shapes_of(model.init), 0.6)
    rng = np.random.default_rng(2)
    if "ids" in name:
        xs = jnp.asarray(rng.integers(0, V, (T, *batch)))
    else:
        xs = jnp.asarray(rng.normal(size=(T, *batch, *head.event_shape)))
    zs = jnp.abs(jnp.asarray(rng.normal(size=(T, *batch, k))))
    known = jnp.asarray(rng.random(xs.shape) < 0.6) if head.missing else None
    return model, params, xs, zs, known


def at(tree, steps):
    return jax.tree.map(lambda leaf: leaf[steps], tree)


def encoded(model, xs, known):
    """Symbols as the cell reads them, by the definition."""
    if xs.dtype.kind in "iu":
        return jax.nn.one_hot(xs, V, dtype=float)
    x = xs[..., None] if not model.head.event_shape else xs
    if known is None:
        return x
    known = known.reshape(x.shape)
    return jnp.concatenate([jnp.where(known, x, 0), known.astype(float)], axis=-1)


@pytest.mark.longer
@EACH
def test_the_cell_reads_the_last_symbol_beside_the_inputs_of_the_step(name):
    model, params, xs, zs, known = made(name)
    read = encoded(model, xs, known)
    start = jnp.broadcast_to(params.start, read[:1].shape)
    read = jnp.concatenate([jnp.concatenate([start, read[:-1]]), zs], axis=-1)
    _, ys = jrnn.unroll(model.cell, params.cell, read)
    expected = model.head.predict(params.head, ys)
    _, got = model.predictive(params, xs, mask=known, inputs=zs)
    assert_close(got.parameters, expected.parameters, 1e-12)
    _, scores = model.log_prob(params, xs, mask=known, inputs=zs)
    assert_close(scores, expected.log_prob(xs, known), 1e-12)


@EACH
def test_a_prediction_knows_the_inputs_of_its_step_and_no_later_ones(name):
    model, params, xs, zs, known = made(name)
    run = lambda zs: model.predictive(params, xs, mask=known, inputs=zs)[1].parameters
    before = jax.tree.leaves(run(zs))[0]
    after = jax.tree.leaves(run(zs.at[3].add(1.0)))[0]
    assert (before[:3] == after[:3]).all()
    assert (before[3:] != after[3:]).any(axis=(0, *range(2, before.ndim))).all()


@pytest.mark.longer
@EACH
def test_chunks_and_steps_equal_the_whole(name):
    model, params, xs, zs, known = made(name)
    state, whole = model.log_prob(params, xs, mask=known, inputs=zs)
    now, parts = None, []
    for part in (slice(3), slice(3, 6)):
        mask, inputs = at((known, zs), part)
        now, scores = model.log_prob(params, xs[part], now, mask=mask, inputs=inputs)
        parts.append(scores)
    assert_close(jnp.concatenate(parts), whole, 1e-12)
    assert_close(now, state, 1e-12)
    now = model.init_state(params, (B,))
    for t in range(2):
        mask, inputs = at((known, zs), t)
        told = model.predict(params, now, inputs).log_prob(xs[t], mask)
        now, score = model.step(params, now, xs[t], mask, inputs)
        assert_close(score, whole[t], 1e-12)
        assert_close(told, whole[t], 1e-12)


@pytest.mark.longer
@EACH
def test_padding_changes_no_bit_and_a_length_is_a_shorter_sequence(name):
    model, params, xs, zs, known = made(name)
    lengths = jnp.array([3, 0])
    mask, inputs = at((known, zs), slice(3))
    start, _ = model.log_prob(params, xs[:3], mask=mask, inputs=inputs)

    def score(params, zs):
        given = {"lengths": lengths, "mask": known, "inputs": zs}
        state, scores = model.log_prob(params, xs, start, **given)
        return scores.sum(), (state, scores)

    past = np.arange(T)[:, None, None] >= lengths[None, :, None]
    run = jax.jit(jax.value_and_grad(score, argnums=(0, 1), has_aux=True))
    first = run(params, zs)
    assert_close(run(params, jnp.where(past, jnp.nan, zs)), first, 0.0)
    assert_close(run(params, jnp.where(past, -jnp.inf, zs)), first, 0.0)
    (_, (state, scores)), (_, dzs) = first
    assert not np.where(past, dzs, 0).any()
    assert (jnp.abs(dzs[:3, 0]).sum(axis=-1) > 0).any()
    whole, expected = model.log_prob(params, xs[:3], start, mask=mask, inputs=inputs)
    assert_close(scores[:3, 0], expected[:, 0], 1e-12)
    assert not scores[:, 1].any()
    assert_close(at(state, 0), at(whole, 0), 1e-12)
    assert_close(at(state, 1), at(start, 1), 0.0)


@EACH
def test_samples_read_the_inputs_of_their_steps(name):
    """At temperature 0 a sample is the mean, or the most probable symbol."""
    model, params, xs, zs, known = made(name)
    mask, inputs = at((known, zs), slice(3))
    prompt = {"prompt": xs[:3], "prompt_inputs": inputs, "prompt_mask": mask}
    draw = functools.partial(model.sample, params, jax.random.key(0), 2)
    drawn = draw(inputs=zs[3:5], temperature=0.0, **prompt)
    state, _ = model.log_prob(params, xs[:3], mask=mask, inputs=inputs)
    for t in range(2):
        predicted = model.predict(params, state, zs[3 + t])
        if "ids" in name:
            x = predicted.parameters.argmax(axis=-1)
        else:
            x = predicted.mean()
        assert_close(drawn[t], x.astype(drawn.dtype), 1e-12)
        state, _ = model.step(params, state, x, inputs=zs[3 + t])


@pytest.mark.slow
def test_inputs_without_batch_axes_serve_a_whole_batch():
    model, params, xs, zs, _ = made("ids")
    draw = lambda **given: model.sample(params, jax.random.key(0), 3, **given)
    shared, each = zs[:3, 0], jnp.broadcast_to(zs[:3, :1], (3, B, 2))
    both = draw(inputs=each)
    assert both.shape == (3, B)
    np.testing.assert_array_equal(draw(inputs=shared, batch_shape=(B,)), both)
    assert draw(inputs=shared).shape == (3,)
    prompted = {"prompt": xs[:3, 0], "prompt_inputs": zs[:3, 0]}
    wide = {name: jnp.stack([one] * B, axis=1) for name, one in prompted.items()}
    np.testing.assert_array_equal(
        draw(inputs=each, **prompted), draw(inputs=shared, **wide)
    )
    state = model.init_state(params)
    np.testing.assert_array_equal(draw(inputs=each, state=state), both)


@pytest.mark.slow
def test_a_batch_of_any_shape_is_many_sequences():
    model, params, xs, zs, _ = made("ids", (2, 2))
    _, scores = model.log_prob(params, xs, inputs=zs)
    _, alone = model.log_prob(params, xs[:, 1, 0], inputs=zs[:, 1, 0])
    assert_close(scores[:, 1, 0], alone, 1e-12)
    drawn = model.sample_until(params, jax.random.key(0), 3, 0, inputs=zs[:3])
    assert drawn.tokens.shape == (3, 2, 2)


def test_inputs_that_weigh_nothing_leave_the_model_as_it_is():
    """A one-hot vector times W_x is the row that is looked up without inputs."""
    model, params, xs, zs, _ = made("ids")
    plain = jrnn.sequence_model(jrnn.gru(V, 3), model.head)
    cell = params.cell._replace(W_x=params.cell.W_x[:V])
    _, expected = plain.log_prob(params._replace(cell=cell), xs)
    wide = jnp.concatenate([cell.W_x, jnp.zeros_like(params.cell.W_x[V:])])
    silent = params._replace(cell=cell._replace(W_x=wide))
    assert_close(model.log_prob(silent, xs, inputs=zs)[1], expected, 1e-12)
    assert params.start.shape == (V,)


def test_a_foreign_symbol_under_jit_scores_nan_from_there_on():
    model, params, xs, zs, _ = made("ids")
    run = jax.jit(lambda xs: model.log_prob(params, xs, inputs=zs)[1])
    for foreign in (V, -1):
        scores = run(xs.at[2, 0].set(foreign))
        assert jnp.isnan(scores[2:, 0]).all()
        assert jnp.isfinite(scores[:2]).all()
        assert jnp.isfinite(scores[:, 1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["f4 f8 f4", "f4 f4 f8", "bf f4 f4", "f4 bf bf"])
@pytest.mark.parametrize("ids", [True, False])
def test_types_mix(kinds, ids):
    names = {"f4": jnp.float32, "f8": jnp.float64, "bf": jnp.bfloat16}
    of_params, of_xs, of_zs = (names[kind] for kind in kinds.split())
    head = jrnn.categorical(V) if ids else jrnn.gaussian(2, missing=True)
    cell = jrnn.cells.s5(head.spec.input_size + 1, 3, irregular=True)
    model = jrnn.sequence_model(cell, head, inputs=1)
    params = model.init(jax.random.key(0), of_params)
    xs = jnp.ones((T, B), int) if ids else jnp.ones((T, B, 2), of_xs)
    zs = jnp.ones((T, B, 1), of_zs)
    state, scores = model.log_prob(params, xs, inputs=zs)
    assert jnp.isfinite(scores).all()
    again, _ = model.log_prob(params, xs, state, inputs=zs, lengths=jnp.array([2, 0]))
    like = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    assert like(again) == like(state)
    given = {"state": state, "prompt": xs, "prompt_inputs": zs, "inputs": zs}
    drawn = model.sample(params, jax.random.key(0), T, **given)
    assert jnp.isfinite(drawn).all()
    assert jnp.isfinite(model.sample(params, jax.random.key(0), T, inputs=zs)).all()


def test_a_loss_takes_pairs():
    model, params, xs, zs, _ = made("ids")
    loss = train.sequence_loss(model)
    carry, key = model.init_state(params, (B,)), jax.random.key(0)
    value, _ = loss(params, (xs, zs), carry, key)
    expected = -model.log_prob(params, xs, inputs=zs)[1].mean()
    assert_close(value, expected, 1e-12)
    with pytest.raises(
        TypeError, match=r"batch to be the pair \(xs, inputs\).*got int"
    ):
        loss(params, xs, carry, key)


def test_the_number_of_inputs_belongs_to_the_model():
    cell, head = jrnn.gru(V + 1, 3), jrnn.categorical(V)
    model = jrnn.sequence_model(cell, head, 1)
    assert model is jrnn.sequence_model(cell, head, inputs=1)
    assert model.inputs == 1
    assert repr(model) == f"sequence_model(cell={cell}, head={head}, inputs=1)"
    plain = jrnn.gru(V, 3)
    none = jrnn.sequence_model(plain, head)
    assert none is jrnn.sequence_model(plain, head, inputs=0)
    assert repr(none) == f"sequence_model(cell={plain}, head={head})"


def test_cells_that_do_not_fit_are_refused():
    head = jrnn.gaussian(missing=True)
    with pytest.raises(ValueError, match="input_size=5.*encodes.*3 known inputs, got"):
        jrnn.sequence_model(jrnn.gru(4, 3), head, inputs=3)
    with pytest.raises(ValueError, match="beside the symbol pass inputs=2"):
        jrnn.sequence_model(jrnn.gru(4, 3), head)
    with pytest.raises(ValueError, match="inputs to be at least 0, got -1"):
        jrnn.sequence_model(jrnn.gru(1, 3), head, inputs=-1)
    with pytest.raises(TypeError, match="inputs to be an integer, got 1.5"):
        jrnn.sequence_model(jrnn.gru(4, 3), head, inputs=1.5)
    timed = jrnn.cells.s5(3, 2, irregular=True)
    assert jrnn.sequence_model(timed, head, inputs=1).inputs == 1
    moved = timed._replace(elapsed=1)
    with pytest.raises(ValueError, match="in sequence_model.*feature 1 is part of"):
        jrnn.sequence_model(moved, head, inputs=1)


def test_inputs_that_do_not_fit_are_refused():
    model, params, xs, zs, _ = made("ids")
    plain = jrnn.sequence_model(jrnn.gru(V, 3), model.head)
    its = plain.init(jax.random.key(0))
    key = jax.random.key(0)
    state = model.init_state(params, (B,))
    with pytest.raises(ValueError, match=r"no inputs, .*got float64 of.*inputs=k\)"):
        plain.log_prob(its, xs, inputs=zs)
    with pytest.raises(ValueError, match="no inputs, because the model was made with"):
        plain.sample(its, key, 3, inputs=zs)
    with pytest.raises(ValueError, match=r"inputs of shape \(6, 2, 2\).*got None"):
        model.log_prob(params, xs)
    for wrong in (zs[:3], zs[:, :1], zs[..., :1], zs[:, 0], jnp.swapaxes(zs, 0, 1)):
        with pytest.raises(
            ValueError, match=r"inputs of shape \(6, 2, 2\), one row of"
        ):
            model.log_prob(params, xs, inputs=wrong)
    with pytest.raises(TypeError, match=r"floating type, got int\d* of.*one_hot"):
        model.predictive(params, xs, inputs=zs.astype(int))
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 2\).*got \(6, 2, 2\)"):
        model.step(params, state, xs[0], inputs=zs)
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 2\).*got None"):
        model.predict(params, state)
    with pytest.raises(ValueError, match=r"inputs of shape \(3, 2, 2\).*got \(6, 2, 2"):
        model.sample(params, key, 3, inputs=zs)
    with pytest.raises(ValueError, match=r"inputs of shape \(3, 2\).*got None"):
        model.sample(params, key, 3)
    with pytest.raises(ValueError, match=r"prompt_inputs of shape \(6, 2, 2\).*got No"):
        model.sample(params, key, 6, prompt=xs, inputs=zs)
    with pytest.raises(ValueError, match="prompt together with prompt_inputs"):
        model.sample(params, key, 6, inputs=zs, prompt_inputs=zs)
    with pytest.raises(ValueError, match=r"prompt of shape .*got \(6, 2\)"):
        model.sample(params, key, 3, prompt=xs, inputs=jnp.ones((3, 7, 2)))

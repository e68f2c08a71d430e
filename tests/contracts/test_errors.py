"""Errors say what was expected, what was given and the remedy, before any tracing.

    JAX_ENABLE_X64=1 python -m tests.contracts.test_errors

writes the file of `test_every_message_is_the_committed_one_and_its_own`.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jrnn

SNAPSHOT = Path(__file__).parents[1] / "results" / "errors.json"

CELL = jrnn.lstm(3, 4)
PARAMS = CELL.init(jax.random.key(0))
XS = jnp.ones((5, 2, 3), jnp.float32)
TOKENS = jnp.zeros((5, 2), jnp.int32)


def state(batch=(2,)):
    return CELL.init_state(PARAMS, batch)


MISTAKES = {
    "rank": (
        lambda: jrnn.unroll(CELL, PARAMS, jnp.ones(3)),
        ValueError,
        r"xs of shape \(T, \*batch, 3\) .* got shape \(3,\)",
    ),
    "feature size": (
        lambda: jrnn.unroll(CELL, PARAMS, jnp.ones((5, 2, 4))),
        ValueError,
        r"got shape \(5, 2, 4\)",
    ),
    "empty sequence": (
        lambda: jrnn.unroll(CELL, PARAMS, XS[:0]),
        ValueError,
        "at least one step",
    ),
    "integer features": (
        lambda: jrnn.unroll(CELL, PARAMS, jnp.ones((5, 2, 3), int)),
        TypeError,
        "cast features with xs.astype",
    ),
    "boolean inputs": (
        lambda: jrnn.unroll(CELL, PARAMS, XS > 0),
        TypeError,
        "got bool; cast it",
    ),
    "token id too large": (
        lambda: jrnn.unroll(CELL, PARAMS, TOKENS.at[4, 1].set(3)),
        ValueError,
        r"within 0..2, got 3 at position \(4, 1\)",
    ),
    "token id negative": (
        lambda: jrnn.unroll(CELL, PARAMS, TOKENS - 1),
        ValueError,
        "within 0..2, got -1",
    ),
    "parameters of another cell": (
        lambda: jrnn.unroll(CELL, jrnn.gru(3, 4).init(jax.random.key(0)), XS),
        ValueError,
        "params with the structure that lstm",
    ),
    "parameters of another size": (
        lambda: jrnn.unroll(CELL, jrnn.lstm(3, 5).init(jax.random.key(0)), XS),
        ValueError,
        r"params.W_x of shape \(3, 16\)",
    ),
    "integer parameters": (
        lambda: jrnn.unroll(
            CELL, jax.tree.map(lambda leaf: leaf.astype(int), PARAMS), XS
        ),
        TypeError,
        "floating parameters, got params.W_x",
    ),
    "state of another batch": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, state((3,))),
        ValueError,
        r"state.h of shape \(2, 4\).*got \(3, 4\)",
    ),
    "state of another structure": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, state().h),
        ValueError,
        "state with the structure",
    ),
    "integer state": (
        lambda: jrnn.unroll(
            CELL, PARAMS, XS, jax.tree.map(lambda leaf: leaf.astype(int), state())
        ),
        TypeError,
        "floating state",
    ),
    "float lengths": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, lengths=jnp.ones(2)),
        TypeError,
        "integer lengths, got float",
    ),
    "lengths of another batch": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, lengths=jnp.array([1, 2, 3])),
        ValueError,
        r"lengths of shape \(\*batch,\) = \(2,\), got \(3,\)",
    ),
    "lengths out of range": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, lengths=jnp.array([1, 6])),
        ValueError,
        r"lengths within 0..5.*from 1 to 6",
    ),
    "mask of numbers": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, mask=jnp.ones((5, 2))),
        TypeError,
        "mask to be boolean, True where a step counts",
    ),
    "mask batch first": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, mask=jnp.ones((2, 5), bool)),
        ValueError,
        r"mask of shape \(T, \*batch\) = \(5, 2\), got \(2, 5\)",
    ),
    "resets of numbers": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, resets=jnp.ones((5, 2))),
        TypeError,
        "resets to be boolean, True where a segment begins",
    ),
    "resets batch first": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, resets=jnp.ones((2, 5), bool)),
        ValueError,
        r"resets of shape \(T, \*batch\) = \(5, 2\), got \(2, 5\)",
    ),
    "key of a seed": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, key=0),
        TypeError,
        "one key, made by jax.random.key",
    ),
    "several keys": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, key=jax.random.split(jax.random.key(0))),
        TypeError,
        r"one key.*of shape \(2,\)",
    ),
    "step of a cell that reads ahead": (
        lambda: jrnn.bidirectional(CELL, CELL).step(None, None, None),
        ValueError,
        "no single step",
    ),
    "model of a cell that reads ahead": (
        lambda: jrnn.sequence_model(
            jrnn.bidirectional(CELL, CELL), jrnn.categorical(3)
        ),
        ValueError,
        "reads only forwards",
    ),
    "stack of sizes that do not fit": (
        lambda: jrnn.stack(CELL, CELL),
        ValueError,
        "a cell with input_size=4 above",
    ),
    "stack of nothing": (lambda: jrnn.stack(), ValueError, "at least one cell"),
    "both directions of unequal inputs": (
        lambda: jrnn.bidirectional(CELL, jrnn.gru(5, 4)),
        ValueError,
        "two cells of equal input_size",
    ),
    "residual of unequal sizes": (
        lambda: jrnn.residual(CELL),
        ValueError,
        "equal input and output size",
    ),
    "dropout of everything": (
        lambda: jrnn.dropout(CELL, 1.0),
        ValueError,
        r"rate in \[0, 1\), got 1.0",
    ),
    "dropout of token ids": (
        lambda: jrnn.unroll(
            jrnn.dropout(CELL, 0.5), PARAMS, TOKENS, key=jax.random.key(0)
        ),
        TypeError,
        "token ids are not features",
    ),
    "zoneout of three rates": (
        lambda: jrnn.wrappers.zoneout(CELL, (0.1, 0.2, 0.3)),
        ValueError,
        "one rate, or 2",
    ),
    "zoneout around a stack": (
        lambda: jrnn.wrappers.zoneout(jrnn.stack(CELL), 0.1),
        ValueError,
        "put zoneout around the cells inside",
    ),
    "variational dropout below zero": (
        lambda: jrnn.wrappers.variational_dropout(CELL, -0.1),
        ValueError,
        "rate in",
    ),
    "stride above the window": (
        lambda: jrnn.truncated(3, stride=4),
        ValueError,
        "stride of at most window=3, got 4",
    ),
    "truncated twice": (
        lambda: jrnn.truncated(3, method=jrnn.truncated(2)),
        ValueError,
        "not truncated itself",
    ),
    "checkpoints below zero": (
        lambda: jrnn.bptt(remat=-1),
        ValueError,
        "remat to be at least 0",
    ),
    "activation by name": (
        lambda: jrnn.elman(3, 4, activation="tanh"),
        TypeError,
        "activation to be a function such as jnp.tanh, got 'tanh'",
    ),
    "associative of a cell that is not linear": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, method=jrnn.associative()),
        ValueError,
        "linear in its state",
    ),
    "model's state of another batch": (
        lambda: MODEL.log_prob(
            MODEL_PARAMS, TOKENS, MODEL.init_state(MODEL_PARAMS, (7,))
        ),
        ValueError,
        r"state.cell.h of shape \(2, 4\).*got \(7, 4\)",
    ),
    "model's state without its last symbol": (
        lambda: MODEL.log_prob(MODEL_PARAMS, TOKENS, state()),
        ValueError,
        "state with the structure",
    ),
    "cell's parameters in place of the model's": (
        lambda: MODEL.log_prob(MODEL_PARAMS.cell, TOKENS),
        ValueError,
        "params with the structure that sequence_model",
    ),
    "parameters of another vocabulary": (
        lambda: MODEL.sample(
            jrnn.sequence_model(jrnn.lstm(6, 4), jrnn.categorical(6)).init(
                jax.random.key(0)
            ),
            jax.random.key(1),
            3,
        ),
        ValueError,
        r"params.cell.W_x of shape \(3, 16\)",
    ),
    "no inputs": (
        lambda: jrnn.unroll(CELL, PARAMS, None),
        TypeError,
        "Expected xs to be an array, got NoneType",
    ),
    "sequences of unequal length in a list": (
        lambda: jrnn.unroll(CELL, PARAMS, [XS[:2, 0].tolist(), XS[:, 0].tolist()]),
        TypeError,
        "Expected xs to be an array, got list; .*jrnn.train.batching",
    ),
    "precision that JAX does not know": (
        lambda: jrnn.bptt(precision="exact"),
        ValueError,
        'precision to be None, "default".*got .exact.',
    ),
    "damping of more than everything": (
        lambda: jrnn.newton(damping=1.5),
        ValueError,
        r"damping in \[0, 1\), got 1.5",
    ),
    "size that is a float": (
        lambda: (jrnn.gru(3, 4), jrnn.gru(3.0, 4)),
        TypeError,
        "input_size to be an integer, got 3.0",
    ),
    "method not called": (
        lambda: jrnn.unroll(CELL, PARAMS, XS, method=jrnn.bptt),
        TypeError,
        "factory must be called",
    ),
    "factory instead of cell": (
        lambda: jrnn.unroll(jrnn.lstm, PARAMS, XS),
        TypeError,
        "Expected a Cell",
    ),
    "size of zero": (
        lambda: jrnn.gru(3, 0),
        ValueError,
        "hidden_size to be at least 1, got 0",
    ),
    "size of a half": (
        lambda: jrnn.gru(3, 4.5),
        TypeError,
        "hidden_size to be an integer, got 4.5",
    ),
    "chunk of zero": (lambda: jrnn.bptt(chunk=0), ValueError, "chunk"),
    "model of unequal sizes": (
        lambda: jrnn.sequence_model(CELL, jrnn.categorical(5)),
        ValueError,
        "cell with input_size=5",
    ),
    "temperature below zero": (
        lambda: MODEL.sample(MODEL_PARAMS, jax.random.key(0), 3, temperature=-1.0),
        ValueError,
        "temperature of at least 0, got -1.0",
    ),
    "symbols as floats": (
        lambda: MODEL.log_prob(MODEL_PARAMS, XS),
        TypeError,
        "integer token ids",
    ),
    "symbol out of range": (
        lambda: MODEL.log_prob(MODEL_PARAMS, TOKENS + 3),
        ValueError,
        "within 0..2, got 3",
    ),
    "prompt of another batch": (
        lambda: MODEL.sample(
            MODEL_PARAMS, jax.random.key(0), 3, prompt=TOKENS, batch_shape=(5,)
        ),
        ValueError,
        r"\(P, 5\), got \(5, 2\)",
    ),
    "prompt out of range": (
        lambda: MODEL.sample(MODEL_PARAMS, jax.random.key(0), 3, prompt=TOKENS + 7),
        ValueError,
        "within 0..2, got 7",
    ),
}
MISTAKES |= {
    "mask for a head that knows nothing missing": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS, mask=NUMBERS > 0),
        ValueError,
        "with missing=True",
    ),
    "mask of other steps": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS, mask=NUMBERS[1:] > 0),
        ValueError,
        r"mask of the shape of the values, \(5, 2, 3\)",
    ),
    "mask of numbers for values": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS, mask=NUMBERS),
        TypeError,
        "True where a value is known",
    ),
    "number that is none": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS.at[2, 1, 0].set(jnp.nan)),
        ValueError,
        r"got nan at position \(2, 1, 0\); mark missing values",
    ),
    "numbers of another size": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS[..., :2]),
        ValueError,
        r"shape \(..., 3\).*got \(5, 2, 2\)",
    ),
    "token ids for a head of numbers": (
        lambda: REAL.log_prob(REAL_PARAMS, TOKENS),
        TypeError,
        "xs of a floating type",
    ),
    "numbers without steps": (
        lambda: REAL.log_prob(REAL_PARAMS, NUMBERS[0, 0]),
        ValueError,
        r"\(T, \*batch, 3\), got shape \(3,\)",
    ),
    "value between the levels": (
        lambda: jrnn.supervised_model(
            CELL, jrnn.heads.mixture(2, jrnn.heads.discretised_logistic(0.0, 1.0, 8))
        ).log_prob(
            jrnn.supervised_model(
                CELL,
                jrnn.heads.mixture(2, jrnn.heads.discretised_logistic(0.0, 1.0, 8)),
            ).init(jax.random.key(0)),
            XS,
            jnp.full((5, 2), 2.5),
        ),
        ValueError,
        "the 8 levels from 0.0 in steps of 1.0.*got 2.5",
    ),
    "kernel by name": (
        lambda: jrnn.heads.mixture(3, kernel="logistic"),
        TypeError,
        "kernel to be jrnn.heads.gaussian_kernel",
    ),
    "kernel of one level": (
        lambda: jrnn.heads.discretised_logistic(0.0, 1.0, 1),
        ValueError,
        "levels to be at least 2, got 1",
    ),
    "kernel without a step": (
        lambda: jrnn.heads.discretised_logistic(0.0, 0.0, 4),
        ValueError,
        "step to be finite and above 0, got 0.0",
    ),
    "covariance of one number": (
        lambda: jrnn.gaussian(full=True),
        ValueError,
        "a size for full=True",
    ),
    "missing values as an array": (
        lambda: jrnn.gaussian(missing=1),
        TypeError,
        "log_prob takes the mask that says which ones are",
    ),
    "scale that may be zero": (
        lambda: jrnn.heads.student_t(least_scale=0),
        ValueError,
        "least_scale to be finite and above 0, got 0",
    ),
    "mean of categories": (
        lambda: NAMES.mean(),
        TypeError,
        "which have no mean",
    ),
    "distribution function of categories": (
        lambda: NAMES.cdf(jnp.array(0)),
        TypeError,
        "which have no cdf",
    ),
    "variance of categories": (
        lambda: NAMES.variance(),
        TypeError,
        "which have no variance",
    ),
    "quantile of categories": (
        lambda: NAMES.quantile(0.5),
        TypeError,
        "which have no quantiles",
    ),
    "quantile of a coin": (
        lambda: COIN.quantile(0.5),
        TypeError,
        "0 up to a probability of 1 - mean",
    ),
    "probability in percent": (
        lambda: REAL.predictive(REAL_PARAMS, NUMBERS)[1].quantile(5.0),
        ValueError,
        "probability within 0..1, got 5.0",
    ),
    "probabilities of another shape": (
        lambda: REAL.predictive(REAL_PARAMS, NUMBERS)[1].quantile(jnp.full(3, 0.5)),
        ValueError,
        r"probability of shape \(5, 2, 3\).*got \(3,\)",
    ),
    "values beside predictions of another shape": (
        lambda: REAL.predictive(REAL_PARAMS, NUMBERS)[1].log_prob(NUMBERS[..., :1]),
        ValueError,
        r"x, the values, of shape \(5, 2, 3\).*got \(5, 2, 1\); it is not broadcast",
    ),
    "prompt with a gap": (
        lambda: REAL.sample(
            REAL_PARAMS, jax.random.key(0), 3, prompt=NUMBERS.at[1, 0, 0].set(jnp.nan)
        ),
        ValueError,
        "prompt to hold finite numbers.*missing values by False in prompt_mask",
    ),
    "gaps in no prompt": (
        lambda: REAL.sample(REAL_PARAMS, jax.random.key(0), 3, prompt_mask=NUMBERS > 0),
        ValueError,
        "a prompt together with prompt_mask",
    ),
    "sample from a state of another batch": (
        lambda: REAL.sample(
            REAL_PARAMS,
            jax.random.key(0),
            3,
            batch_shape=(4,),
            state=REAL.init_state(REAL_PARAMS, (2,)),
        ),
        ValueError,
        r"state.cell.h of shape \(4, 4\).*got \(2, 4\)",
    ),
    "step of a kernel that is an array": (
        lambda: jrnn.heads.discretised_logistic(0.0, jnp.ones(()), 4),
        TypeError,
        "step to be a number",
    ),
    "distribution function of a coin": (
        lambda: COIN.cdf(jnp.array(0.0)),
        TypeError,
        "P.X <= 0. = 1 - mean",
    ),
}
NAMES = jrnn.heads.Distribution(jrnn.categorical(3).family, jnp.zeros(3))
COIN = jrnn.heads.Distribution(jrnn.heads.bernoulli().family, jnp.array(0.0))
REAL = jrnn.sequence_model(CELL, jrnn.gaussian(3))
REAL_PARAMS = REAL.init(jax.random.key(0))
NUMBERS = jnp.ones((5, 2, 3), jnp.float32)
MODEL = jrnn.sequence_model(CELL, jrnn.categorical(3))
MODEL_PARAMS = MODEL.init(jax.random.key(0))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name):
    call, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words):
        call()


def messages():
    """Every message, as a user reads it."""
    told = {}
    for name, (call, kind, _) in MISTAKES.items():
        with pytest.raises(kind) as caught:
            call()
        told[name] = f"{kind.__name__}: {caught.value}"
    return told


def test_every_message_is_the_committed_one_and_its_own():
    told = messages()
    assert told == json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert len(set(told.values())) == len(told) >= 25


def test_under_jit_a_foreign_token_gives_nan_and_lengths_are_clipped():
    bad = TOKENS.at[1, 0].set(9).at[2, 1].set(-1)
    ys = jax.jit(lambda xs: jrnn.unroll(CELL, PARAMS, xs)[1])(bad)
    assert jnp.isnan(ys[1:, 0]).all()
    assert jnp.isnan(ys[2:, 1]).all()
    assert jnp.isfinite(ys[0]).all()
    run = jax.jit(lambda n: jrnn.unroll(CELL, PARAMS, XS, lengths=n)[1])
    expected = jrnn.unroll(CELL, PARAMS, XS, lengths=jnp.array([5, 0]))[1]
    assert (run(jnp.array([9, -2])) == expected).all()


def test_padding_may_hold_foreign_tokens():
    bad = TOKENS.at[4].set(99)
    ys = jrnn.unroll(CELL, PARAMS, bad, lengths=jnp.array([4, 4]))[1]
    assert jnp.isfinite(ys).all()


if __name__ == "__main__":
    written = json.dumps(messages(), indent=1, ensure_ascii=False)
    SNAPSHOT.write_text(written + "\n", encoding="utf-8")

"""The overhead of an eager call is small: it checks by look-up and formats no text."""

import json

import jax
import jax.numpy as jnp
import pytest

import jrnn
from experiments.benchmarks import eager
from experiments.benchmarks.eager import EAGER, JITTED, python_calls
from jrnn.core import cell as _base

# With the shapes in annotations checked, as they are in tests, which enters some more,
# and of the oldest jaxtyping and beartype the most.
MOST = {"inputs": 230, "inputs, state": 270, "inputs, state, lengths": 280}
OF_LENGTHS = 10  # what lengths add to that; 20 where their devices were asked for


slow = pytest.mark.slow


@pytest.mark.longer
@pytest.mark.parametrize("layers", [1, pytest.param(4, marks=slow)])
def test_a_warm_eager_call_enters_few_python_functions(layers, tmp_path, capsys):
    """Where each call of 4 layers was checked anew, 412, and 3177 with a state."""
    out = tmp_path / "eager.json"
    assert (
        eager.main(["--rounds", "2", "--layers", str(layers), "--out", str(out)]) == 0
    )
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["given"] for row in rows] == list(MOST)
    shown = capsys.readouterr().out
    for row in rows:
        assert f"{row['python_calls'][EAGER]}" in shown
        assert len(row["seconds_per_round"][EAGER]) == 2
        counts = row["python_calls"]
        assert 0 < counts[EAGER] - counts[JITTED] <= MOST[row["given"]]
    calls = [row["python_calls"] for row in rows]
    _, without, given = (count[EAGER] - count[JITTED] for count in calls)
    assert given - without <= OF_LENGTHS


@pytest.mark.parametrize("given", ["layers", "rounds"])
def test_none_is_refused(given, capsys):
    assert eager.main([f"--{given}", "0"]) == 2
    assert f"Expected --{given} of 1 or more, got 0" in capsys.readouterr().err


def test_python_calls_are_counted():
    once = lambda: None
    assert python_calls(lambda: [once(), once()]) == 3


@pytest.mark.longer
def test_no_text_is_made_of_a_call_without_mistakes(monkeypatch):
    def refuse(spec):
        raise AssertionError(spec)

    cell = jrnn.stack(jrnn.gru(3, 5), jrnn.dropout(jrnn.gru(5, 5), 0.5))
    model = jrnn.sequence_model(jrnn.gru(7, 5), jrnn.categorical(7))
    params, key = cell.init(jax.random.key(0)), jax.random.key(1)
    own = model.init(jax.random.key(2))
    monkeypatch.setattr(_base, "describe", refuse)
    with pytest.raises(AssertionError):
        repr(cell)
    xs, state = jnp.ones((3, 2, 3)), cell.init_state(params, (2,))
    jax.eval_shape(lambda: jrnn.unroll(cell, params, xs, state, key=key))
    tokens = jnp.ones((3, 2), int)
    jax.eval_shape(lambda: model.log_prob(own, tokens, model.init_state(own, (2,))))


def test_what_is_wrong_is_refused_again_and_again():
    cell = jrnn.gru(3, 5)
    params = cell.init(jax.random.key(0))
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected xs of shape"):
            jrnn.unroll(cell, params, jnp.ones((3, 2, 4)))
        jax.eval_shape(lambda: jrnn.unroll(cell, params, jnp.ones((3, 2, 3))))
        whole = jax.tree.map(lambda leaf: leaf.astype(int), params)
        with pytest.raises(TypeError, match="Expected floating parameters"):
            jrnn.unroll(cell, whole, jnp.ones((3, 2, 3)))
        with pytest.raises(ValueError, match=r"Expected lengths within 0\.\.3"):
            jrnn.unroll(cell, params, jnp.ones((3, 2, 3)), lengths=jnp.array([4, 1]))

"""The example of a recurrent agent: its task, replay, and that it learns."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "examples/recurrent_ppo.py"


@pytest.fixture(scope="module")
def ppo():
    spec = importlib.util.spec_from_file_location("recurrent_ppo", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclass
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


@pytest.fixture
def as_users_have_it():
    """JAX's own settings, which the example is written for."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("right", [True, False])
def test_an_episode_asks_for_its_cue_and_another_follows(ppo, right):
    episode = ppo.begin(jax.random.key(3))
    seen, keys = [], jax.random.split(jax.random.key(4), 20)
    for key in keys[: int(episode.asked) + 1]:
        seen.append(np.asarray(ppo.observe(episode)))
        cue = episode.cue
        action = jnp.where((cue > 0) == right, 1, 0)
        episode, (reward, done) = ppo.act(key, episode, action)
    assert [bool(row[0]) for row in seen] == [True] + [False] * (len(seen) - 1)
    assert [bool(row[1]) for row in seen] == [False] * (len(seen) - 1) + [True]
    assert (float(reward), bool(done)) == (1.0 if right else -1.0, True)
    assert int(episode.time) == 0
    assert ppo.DELAY[0] <= int(episode.asked) - 1 <= ppo.DELAY[1]


@pytest.mark.usefixtures("as_users_have_it")
def test_advantages_are_those_of_a_loop(ppo):
    rng = np.random.default_rng(0)
    draw = lambda: rng.normal(size=(5, 2)).astype("f4")
    reward, value, last = draw(), draw(), draw()[0]
    done = rng.random((5, 2)) < 0.3
    steps = ppo.Steps(*[None] * 5, value, reward, done)
    settings = ppo.Settings()
    total, following, expected = 0.0, last, []
    for t in reversed(range(5)):
        on = settings.discount * (1 - done[t])
        total = reward[t] + on * following - value[t] + settings.smoothing * on * total
        following = value[t]
        expected.insert(0, total)
    found = ppo.advantages(settings, steps, jnp.asarray(last))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.longer
@pytest.mark.usefixtures("as_users_have_it")
def test_replay_equals_acting(ppo):
    settings = ppo.Settings(hidden=4, environments=3, steps=16)
    cell = ppo.cells(settings)["GRU"]
    assert ppo.replay_error(cell, settings, jax.random.key(0)) < 1e-6


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_it")
def test_windows_start_from_the_states_that_acting_had(ppo):
    settings = ppo.Settings(hidden=2, environments=1, steps=8, window=4, burn_in=3)
    times = jnp.arange(8.0)[:, None]
    steps = ppo.Steps(*[times] * 2, (times,), *[times] * 5)
    recorded, gains, state = ppo.windows(settings, steps, times)
    assert recorded.observed[..., 0].tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert gains.shape == (1, 7, 1)
    assert state[0].tolist() == [[1]]
    whole = ppo.windows(settings.__class__(steps=8, window=4, burn_in=0), steps, times)
    assert whole[1][..., 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_have_it")
def test_memory_is_learned_and_needed(ppo, request):
    # The check of keys takes a scan within a scan, mapped over seeds, for a reuse.
    before = jax.config.jax_debug_key_reuse
    jax.config.update("jax_debug_key_reuse", False)
    request.addfinalizer(lambda: jax.config.update("jax_debug_key_reuse", before))
    settings = ppo.Settings(rollouts=40, seeds=1, environments=32)
    keys = lambda: jax.random.split(jax.random.key(0), 1)  # the same for each cell
    cells = ppo.cells(settings)
    rewards = {
        name: ppo.train(cell, settings, keys())[1] for name, cell in cells.items()
    }
    found = {name: float(reward[0, -5:].mean()) for name, reward in rewards.items()}
    assert found["GRU"] > 0.9
    assert found["LRU"] > 0.9
    assert abs(found["feed-forward"]) < 0.2

"""python examples/recurrent_ppo.py [--help]: an agent that must remember.

A cue, +1 or -1, is shown in the first step of an episode. After a delay of 4 to 12
blank steps a flag asks for it: the action that names the cue earns 1, the other -1.
Without a memory nobody does better than chance, a mean of 0.

PPO (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) with a recurrent network,
all of it one jitted function, and by `vmap` all seeds at once:

- acting takes `cell.step(..., reset=done)` in a scan, over environments side by side;
- learning replays what was acted with `jrnn.unroll(..., resets=done)`: the same
  numbers, and the difference is printed;
- updates read windows that start from the state that acting had there. Weights have
  moved since, so the first `burn_in` steps only bring the state up to date (Kapturowski
  et al. 2019, https://openreview.net/forum?id=r1lyTjAqYX).
"""

import dataclasses
import functools
import json
import operator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import jrnn
from jrnn.cells import feedforward

DELAY = (4, 12)  # blank steps between cue and question
OBSERVED, ACTIONS = 3, 2  # cue, question, always 1; name -1 or +1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the agent learns."""

    hidden: int = 32
    environments: int = 64
    steps: int = 64  # of a rollout, in each environment
    window: int = 32  # of an update; divides `steps`
    burn_in: int = 8  # steps that a window reads first, without learning from them
    rollouts: int = 150
    epochs: int = 4
    rate: float = 3e-3
    discount: float = 0.95
    smoothing: float = 0.95  # lambda of the advantages
    clip: float = 0.2
    entropy: float = 0.01
    seeds: int = 3
    out: Path = Path("runs/recurrent_ppo")


class Episode(NamedTuple):
    """An environment: the cue, the steps gone by, and at which step it is asked."""

    cue: jax.Array
    time: jax.Array
    asked: jax.Array


def begin(key: jax.Array) -> Episode:
    """Draws an episode."""
    key_cue, key_delay = jax.random.split(key)
    cue = jax.random.rademacher(key_cue, (), jnp.float32)
    delay = jax.random.randint(key_delay, (), DELAY[0], DELAY[1] + 1)
    return Episode(cue, jnp.int32(0), 1 + delay)


def observe(episode: Episode) -> jax.Array:
    """Returns what the agent sees, (3,)."""
    shown = jnp.where(episode.time == 0, episode.cue, 0.0)
    asked = jnp.where(episode.time == episode.asked, 1.0, 0.0)
    return jnp.stack([shown, asked, jnp.ones_like(shown)])


def act(key: jax.Array, episode: Episode, action: jax.Array) -> tuple[Episode, Any]:
    """Returns the next state, with (reward, done); a new episode follows the last."""
    done = episode.time == episode.asked
    right = 2.0 * action - 1.0 == episode.cue
    reward = jnp.where(done, jnp.where(right, 1.0, -1.0), 0.0)
    on = episode._replace(time=episode.time + 1)
    following = jax.tree.map(lambda a, b: jnp.where(done, a, b), begin(key), on)
    return following, (reward, done)


class Params(NamedTuple):
    """A cell, and linear maps from its outputs to logits and value."""

    cell: Any
    W: jax.Array  # (hidden, ACTIONS + 1)
    b: jax.Array


class Steps(NamedTuple):
    """What acting recorded, each (T, environments, ...)."""

    observed: jax.Array
    fresh: jax.Array  # whether an episode begins with this step
    state: Any  # of the cell, before this step
    action: jax.Array
    log_p: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


def init(cell: jrnn.Cell, key: jax.Array) -> Params:
    """Draws parameters; the first policy is nearly uniform."""
    key_cell, key_W = jax.random.split(key)
    size = cell.spec.output_size
    W = 0.01 * jax.random.normal(key_W, (size, ACTIONS + 1))
    return Params(cell.init(key_cell), W, jnp.zeros(ACTIONS + 1))


def read_out(params: Params, ys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns log-probabilities of the actions, and values."""
    out = ys @ params.W + params.b
    return jax.nn.log_softmax(out[..., :-1]), out[..., -1]


def chosen(log_ps: jax.Array, action: jax.Array) -> jax.Array:
    """Returns the log-probability of each action."""
    return jnp.take_along_axis(log_ps, action[..., None], axis=-1)[..., 0]


def set_out(
    cell: jrnn.Cell, settings: Settings, key: jax.Array
) -> tuple[Params, tuple[Any, Episode, jax.Array]]:
    """Draws parameters, and begins an episode in every environment."""
    key_params, key_episodes = jax.random.split(key)
    params, count = init(cell, key_params), settings.environments
    episodes = jax.vmap(begin)(jax.random.split(key_episodes, count))
    state = cell.init_state(params.cell, (count,))
    return params, (state, episodes, jnp.ones(count, bool))


def rollout(
    cell: jrnn.Cell, settings: Settings, params: Params, carry: Any, key: jax.Array
) -> tuple[Any, Steps]:
    """Acts for some steps in every environment."""

    def step(carry: Any, key: jax.Array) -> tuple[Any, Steps]:
        state, episodes, fresh = carry
        key_action, key_next = jax.random.split(key)
        observed = jax.vmap(observe)(episodes)
        after, y = cell.step(params.cell, state, observed, reset=fresh)
        log_ps, value = read_out(params, y)
        action = jax.random.categorical(key_action, log_ps)
        log_p = chosen(log_ps, action)
        keys = jax.random.split(key_next, len(action))
        episodes, (reward, done) = jax.vmap(act)(keys, episodes, action)
        seen = Steps(observed, fresh, state, action, log_p, value, reward, done)
        return (after, episodes, done), seen

    return jax.lax.scan(step, carry, jax.random.split(key, settings.steps))


def advantages(settings: Settings, steps: Steps, last: jax.Array) -> jax.Array:
    """Returns generalised advantages: https://arxiv.org/abs/1506.02438."""
    following = jnp.concatenate([steps.value[1:], last[None]])
    on = settings.discount * (1.0 - steps.done)
    errors = steps.reward + on * following - steps.value

    def back(total: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        error, on = one
        total = error + settings.smoothing * on * total
        return total, total

    return jax.lax.scan(back, jnp.zeros_like(last), (errors, on), reverse=True)[1]


def part(tree: Any, start: int, stop: int) -> Any:
    """Returns some of the steps of every array."""
    return jax.tree.map(lambda a: a[start:stop], tree)


def loss(cell: jrnn.Cell, settings: Settings, params: Params, window: Any) -> jax.Array:
    """Returns the clipped objective of PPO, replayed from a stored state."""
    steps, gains, state = window
    burn, end = settings.burn_in, len(gains)
    if burn:
        early = part(steps, 0, burn)
        given = {"state": state, "resets": early.fresh}
        state, _ = jrnn.unroll(cell, params.cell, early.observed, **given)
    steps, gains = part((steps, gains), burn, end)
    given = {"state": jax.lax.stop_gradient(state), "resets": steps.fresh}
    ys = jrnn.unroll(cell, params.cell, steps.observed, **given)[1]
    log_ps, value = read_out(params, ys)
    ratio = jnp.exp(chosen(log_ps, steps.action) - steps.log_p)
    scaled = (gains - gains.mean()) / (gains.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - settings.clip, 1 + settings.clip)
    policy = -jnp.minimum(ratio * scaled, clipped * scaled).mean()
    entropy = -(jnp.exp(log_ps) * log_ps).sum(axis=-1).mean()
    error = jnp.square(value - (gains + steps.value)).mean()
    return policy + 0.5 * error - settings.entropy * entropy


def windows(settings: Settings, steps: Steps, gains: jax.Array) -> Any:
    """Returns windows with the steps before them, and the state stored there.

    The first window of a rollout has no steps before it: with a burn-in it is left out.
    """
    burn, size = settings.burn_in, settings.window
    starts = range(size if burn else 0, settings.steps, size)
    recorded = (steps._replace(state=()), gains)
    each = [
        (
            *part(recorded, start - burn, start + size),
            jax.tree.map(operator.itemgetter(start - burn), steps.state),
        )
        for start in starts
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0))
def train(cell: jrnn.Cell, settings: Settings, key: jax.Array) -> tuple[Params, Any]:
    """Returns trained parameters, and the mean reward of an episode by rollout."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(settings.rate, eps=1e-5)
    )
    key, key_start = jax.random.split(key)
    params, carry = set_out(cell, settings, key_start)

    def one(run: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, moments, carry = run
        carry, steps = rollout(cell, settings, params, carry, key)
        observed = jax.vmap(observe)(carry[1])
        y = cell.step(params.cell, carry[0], observed, reset=carry[2])[1]
        gains = advantages(settings, steps, read_out(params, y)[1])
        cut = windows(settings, steps, gains)

        def update(state: Any, window: Any) -> tuple[Any, None]:
            params, moments = state
            slope = jax.grad(functools.partial(loss, cell, settings))(params, window)
            change, moments = optimizer.update(slope, moments, params)
            return (optax.apply_updates(params, change), moments), None

        def epoch(state: Any, _: None) -> tuple[Any, None]:
            return jax.lax.scan(update, state, cut)

        (params, moments), _ = jax.lax.scan(
            epoch, (params, moments), length=settings.epochs
        )
        reward = steps.reward.sum() / steps.done.sum()
        return (params, moments, carry), reward

    start = params, optimizer.init(params), carry
    keys = jax.random.split(key, settings.rollouts)
    (params, _, _), rewards = jax.lax.scan(one, start, keys)
    return params, rewards


def replay_error(cell: jrnn.Cell, settings: Settings, key: jax.Array) -> float:
    """Returns by how much replay differs from acting, the largest of all outputs."""
    key, key_start = jax.random.split(key)
    params, carry = set_out(cell, settings, key_start)
    params = params._replace(
        W=jnp.eye(len(params.W), ACTIONS + 1)
    )  # so that outputs matter
    _, steps = rollout(cell, settings, params, carry, key)
    given = {"state": carry[0], "resets": steps.fresh}
    log_ps, value = read_out(
        params, jrnn.unroll(cell, params.cell, steps.observed, **given)[1]
    )
    log_p = chosen(log_ps, steps.action)
    errors = jnp.abs(log_p - steps.log_p), jnp.abs(value - steps.value)
    return float(jnp.maximum(*map(jnp.max, errors)))


def cells(settings: Settings) -> dict[str, jrnn.Cell]:
    """Returns the networks: two that remember, and one that does not."""
    k, h = OBSERVED, settings.hidden
    layers = jrnn.cells.lru(h, h), feedforward(h, h, activation=jax.nn.gelu)
    return {
        "GRU": jrnn.gru(k, h),
        "LRU": jrnn.stack(feedforward(k, h), *layers),
        "feed-forward": feedforward(k, h, activation=jnp.tanh),
    }


def main(settings: Settings) -> None:
    """Trains every network with every seed; prints, writes and draws the curves."""
    keys = jax.random.split(jax.random.key(0), settings.seeds)
    figure, found = Figure((7, 4), layout="constrained"), {}
    axes = figure.add_subplot()
    for name, cell in cells(settings).items():
        error = replay_error(cell, settings, jax.random.key(1))
        rewards = np.asarray(train(cell, settings, keys)[1])
        ends = ", ".join(f"{r:.2f}" for r in rewards[:, -10:].mean(axis=1))
        print(f"{name}: replay differs from acting by at most {error:.1e}")
        print(f"{name}: mean reward of the last 10 rollouts, by seed: {ends}")
        found[name] = {"replay_error": error, "rewards": rewards.tolist()}
        (line,) = axes.plot(rewards.mean(axis=0), label=name)
        spread = rewards.min(axis=0), rewards.max(axis=0)
        shade = {"color": line.get_color(), "alpha": 0.2}
        axes.fill_between(range(settings.rollouts), *spread, **shade)
    axes.set(xlabel="rollout", ylabel="mean reward of an episode")
    axes.legend()
    settings.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.out / "recurrent_ppo.png", dpi=130)
    content = {
        "settings": {**dataclasses.asdict(settings), "out": None},
        "found": found,
    }
    (settings.out / "recurrent_ppo.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))

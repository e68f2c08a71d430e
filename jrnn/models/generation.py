"""Drawing symbols one after another, a fixed number of them or up to an end symbol."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from jrnn.core.cell import Key
from jrnn.heads.sampling import Truncation


class Start(NamedTuple):
    """What a model draws symbols from.

    Attributes:
      key: Split into one key for each symbol.
      state: The state after the prompt.
      temperature: One number, or one for each sequence.
      truncation: Which symbols may be drawn.
      inputs: The inputs of each symbol, (length, *batch, k); None: there are none.
    """

    key: Key
    state: Any
    temperature: Num[Array, "..."]
    truncation: Truncation
    inputs: Array | None = None


class Sampled(NamedTuple):
    """Token ids up to an end symbol.

    Attributes:
      tokens: (length, *batch); the end symbol also fills what follows it.
      lengths: How many tokens of each sequence were drawn, its end symbol included;
        `length` where there is none. `log_prob(params, tokens, lengths=lengths)` scores
        exactly those.
    """

    tokens: Int[Array, "length *batch"]
    lengths: Int[Array, "*batch"]


Step = Callable[[Any, tuple[Key, Array | None]], tuple[Any, Array]]


def draw_all(step: Step, length: int, start: Start, params: Any) -> Array:
    """Draws `length` symbols, (length, *batch).

    Args:
      step: (state, (key, inputs)) -> (state, symbol).
      length: How many.
      start: What they follow.
      params: What `step` reads besides.
    """
    state = _varying(start.state, params, start)
    keys = jax.random.split(start.key, length)
    return jax.lax.scan(step, state, (keys, start.inputs))[1]


class _Progress(NamedTuple):
    t: Array
    state: Any
    sampled: Sampled
    ended: Array


def draw_until(
    step: Step,
    length: int,
    start: Start,
    params: Any,
    end: Array,
    batch: tuple[int, ...],
) -> Sampled:
    """Draws the symbols of `draw_all`, until every sequence has drawn the end symbol.

    The loop stops there, at the longest sequence.

    Args:
      step: As in `draw_all`.
      length: How many symbols at most.
      start: What they follow.
      params: What `step` reads besides.
      end: The end symbol.
      batch: The shape of the batch.
    """
    keys = jax.random.split(start.key, length)
    # As numbers: a key that a loop takes from an array looks like one that is reused.
    kind, raw = jax.random.key_impl(keys), jax.random.key_data(keys)
    tokens = jnp.broadcast_to(end.astype(jnp.int32), (length, *batch))
    sampled = Sampled(tokens, jnp.zeros(batch, jnp.int32))
    if not length:
        return sampled
    begun = _Progress(jnp.int32(0), start.state, sampled, jnp.zeros(batch, bool))
    begun = _varying(begun, params, start)

    def goes_on(now: _Progress) -> Array:
        return (now.t < length) & ~now.ended.all()

    def draw(now: _Progress) -> _Progress:
        numbers, inputs = jax.tree.map(lambda a: a[now.t], (raw, start.inputs))
        key = jax.random.wrap_key_data(numbers, impl=kind)
        state, symbol = step(now.state, (key, inputs))
        symbol = jnp.where(now.ended, end.astype(symbol.dtype), symbol)
        tokens, lengths = now.sampled
        lengths = lengths + (~now.ended).astype(jnp.int32)
        sampled = Sampled(tokens.at[now.t].set(symbol), lengths)
        return _Progress(now.t + 1, state, sampled, now.ended | (symbol == end))

    return jax.lax.while_loop(goes_on, draw, begun).sampled


def _varying(carry: Any, params: Any, start: Start) -> Any:
    """Gives a loop's carry the varying axes of all that the loop reads.

    As `jrnn.core.mesh.align` does: inside `jax.shard_map` the type of an array tells
    over which axes of the mesh it varies, and a loop may not change that of its carry.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return carry
    read = params, start._replace(key=jax.random.key_data(start.key))
    zeros = [jnp.zeros_like(leaf, jnp.float32).sum() for leaf in jax.tree.leaves(read)]
    zero = sum(zeros[1:], zeros[0])

    def add(leaf: Array) -> Array:
        flag = leaf.dtype == bool
        return leaf ^ (zero > 0) if flag else leaf + zero.astype(leaf.dtype)

    return jax.tree.map(add, carry)

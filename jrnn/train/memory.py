"""Buffer donation of a train state: clones keys, copies aliased arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jrnn.train.check import check_arrays

State = Any  # a pytree; its arrays are donated


def cloned_keys(tree: Any) -> Any:
    """Returns a pytree with its keys cloned, so that `jax.debug_key_reuse` allows them.

    For a function that is evaluated again on purpose with the same random numbers.
    """
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.clone(x) if is_key(x) else x, tree)


def copied(tree: Any) -> Any:
    """Returns a pytree whose arrays are copies, each with its own buffer."""
    copy = lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
    return jax.tree.map(copy, tree)


def unaliased(tree: Any) -> Any:
    """Returns a pytree in which no array occurs twice: repeated ones are copied.

    JAX cannot donate the same buffer twice.
    """
    leaves, structure = jax.tree.flatten(tree)
    if len({id(leaf) for leaf in leaves}) == len(leaves):
        return tree
    seen: set[int] = set()
    for i, leaf in enumerate(leaves):
        if id(leaf) in seen:
            leaves[i] = copied(leaf)
        seen.add(id(leaf))
    return jax.tree.unflatten(structure, leaves)


class Donating:
    """A jitted step(state, batch) that donates the buffers of any state.

    `check` raises unless its argument is a state.
    """

    def __init__(self, step: Callable[..., Any], check: Callable[[Any], None]) -> None:
        self._check = check
        self._jitted = jax.jit(step, donate_argnums=0)
        self.lower, self.trace = self._jitted.lower, self._jitted.trace
        self.eval_shape = self._jitted.eval_shape

    def __call__(self, state: State, batch: Any) -> Any:
        """Takes a step; arrays of the state may share buffers."""
        self._check(state)
        try:
            return self._jitted(unaliased(state), batch)
        except TypeError:  # raised by wrong arguments, or by the loss
            check_arrays("state", state)
            check_arrays("batch", batch)
            raise
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            if "donate the same buffer twice" not in str(error):
                raise
        return self._jitted(copied(state), batch)  # two arrays shared one buffer

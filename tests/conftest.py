"""Strictness for every test: x64 on, no silent promotion of types or ranks."""

import jax
import jax.export  # older jax does not bring it along by itself
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def standard_promotion():
    """For tests through optax, which counts on promotion of its own numbers."""
    with jax.numpy_dtype_promotion("standard"):
        yield

"""Checks of the arrays that users bring from other libraries, and their way to JAX."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jrnn.core.arguments import tell
from jrnn.core.check import check_array, is_traced
from jrnn.interop._layout import Shapes


def check_arrays(
    arrays: Any, expected: Shapes, of: str, hint: str = ""
) -> dict[str, Any]:
    """Returns copies as NumPy arrays, or as they are where they are traced.

    Args:
      arrays: What the user gave.
      expected: The shape of each array by name.
      of: What they are the parameters of, for an error.
      hint: What to do if names differ, for an error.

    Raises:
      TypeError: `arrays` is no dictionary, or one of its values is no array.
      ValueError: An array is missing, unexpected or of another shape; or JAX would
        convert it from float64 to float32.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"Expected arrays to be a dictionary of parameters, got {tell(arrays)}."
        )
    got = {name: shape_of(array) for name, array in arrays.items()}
    names = expected.keys() | got.keys()
    wrong = sorted(n for n in names if expected.get(n) != got.get(n))
    if wrong:
        raise ValueError(
            f"Expected the parameters of {of}, and "
            f"{ {name: expected.get(name) for name in wrong} }, got "
            f"{ {name: got.get(name) for name in wrong} }"
            f"{_remedy(wrong, expected, got, hint)}."
        )
    return {name: to_host(array, name) for name, array in arrays.items()}


def shape_of(array: Any) -> tuple[int, ...]:
    """Returns the shape of an array, a tensor or a list."""
    shape = getattr(array, "shape", None)
    return tuple(np.shape(array) if shape is None else shape)


def _remedy(wrong: list[str], expected: Shapes, got: Shapes, hint: str) -> str:
    swapped = [n for n in wrong if n in expected and n in got]
    swapped = [n for n in swapped if expected[n] == got[n][::-1]]
    if swapped:
        return f"; the axes of {swapped[0]} are swapped: pass its transpose"
    return f"; {hint}" if hint else ""


def to_host(array: Any, name: str) -> Any:
    """Returns a copy as a NumPy array; a traced array as it is.

    Raises:
      TypeError: It cannot be an array.
      ValueError: JAX would convert it from float64 to float32.
    """
    if is_traced(array):
        return array
    host = _to_numpy(array)
    moved = check_array(name, host)
    if moved.dtype != host.dtype:
        raise ValueError(
            f"Expected JAX to keep {host.dtype} of {name}, got {moved.dtype}; call "
            'jax.config.update("jax_enable_x64", True) first, or cast to float32.'
        )
    return host


def _to_numpy(array: Any) -> np.ndarray:
    """Returns a copy, as JAX could otherwise share memory that PyTorch writes to."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # NumPy cannot read bfloat16 tensors; float32 represents all their values.
        if str(array.dtype) == "torch.bfloat16":
            return array.float().numpy().astype(jnp.bfloat16)
        array = array.numpy()
    return np.array(array)


def to_jax(array: Any, name: str) -> Array:
    """Moves an array or a tensor to JAX; raises as `to_host`."""
    return jnp.asarray(to_host(array, name))

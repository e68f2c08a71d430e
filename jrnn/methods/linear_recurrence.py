"""The linear recurrence as a public function: checks and dtypes.

The evaluation is in `jrnn.methods._recurrence`, the kernel in `jrnn.kernels.linear`.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from jrnn.core.arguments import check_size, check_switch
from jrnn.core.check import check_array
from jrnn.core.products import expand
from jrnn.kernels._pallas import Target, check_target
from jrnn.methods._recurrence import recurrence


def linear_recurrence(
    a: Inexact[Array, "..."],
    b: Inexact[Array, "..."],
    h0: Inexact[Array, "..."] | None = None,
    *,
    full: bool = False,
    chunk: int | None = None,
    kernel: str | None = None,
    interpret: bool = False,
) -> Inexact[Array, "T *batch n"]:
    r"""Returns every h_t of a linear recurrence, evaluated in parallel over time.

    .. math:: h_t = a_t \odot h_{t-1} + b_t, \quad t = 1 \dots T

    or, with `full`, a row vector times a matrix, h_t = h_{t-1} a_t + b_t. Rounding
    errors grow as in a loop, at any length. All values must be finite; with several
    blocks also the product of the coefficients of a block, as it is if |a| <= 1.
    bfloat16 and float16 are computed in float32. Reverse mode is a recurrence of the
    same kind, and keeps only a and h.

    Args:
      a: Coefficients, real or complex: (T, *batch, n), with `full` (T, *batch, n, n).
        Axes before the last (two) may be 1, or all of them left out: a is then the
        same at every step, and is never repeated in memory.
      b: Terms to add, real or complex, (T, *batch, n).
      h0: Initial state (*batch, n); None: zeros.
      full: Whether a contains matrices.
      chunk: Steps per block, at most; a number that divides T is preferred. None: on a
        CPU all steps, one block, elsewhere about sqrt(T); for a kernel all steps,
        unless there are few lanes.
      kernel: "cuda" or "tpu" uses a kernel for that machine, in 32 bits and not with
        `full`; unmeasured. None: no kernel.
      interpret: Whether JAX itself runs the kernel step by step, for tests.

    Returns:
      h_1..h_T, (T, *batch, n), in the common type of a, b and h0.

    Raises:
      TypeError: An array contains integers or booleans.
      ValueError: Shapes do not fit together, `chunk` is below 1, or there is no such
        kernel.

    Example:
      >>> import jax.numpy as jnp, jrnn
      >>> a, b = jnp.full((4, 1), 0.5), jnp.ones((4, 1))
      >>> jrnn.methods.linear_recurrence(a, b)[:, 0].tolist()
      [1.0, 1.5, 1.75, 1.875]
    """
    a, b = check_array("a", a), check_array("b", b)
    check_switch("full", full)
    start = None if h0 is None else check_array("h0", h0)
    a = _check(a, b, start, full)
    start = jnp.zeros_like(b[0]) if start is None else start
    dtype = jnp.result_type(a, b, start)
    wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
    if chunk is not None:
        chunk = check_size("chunk", chunk)
    target = kernel_target(kernel, interpret, full)
    given = a.astype(wide), b.astype(wide), start.astype(wide)
    hs: Array = recurrence(full, chunk, target, *given, None)
    return hs.astype(dtype)


def _check(a: Array, b: Array, h0: Array | None, full: bool) -> Array:
    """Returns a with the rank of b (one more if `full`), or raises."""
    for name, array in (("a", a), ("b", b), ("h0", h0)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.inexact):
            raise TypeError(
                f"Expected {name} to be real or complex, got {array.dtype}; cast it "
                f"with {name}.astype(jnp.float32)."
            )
    own = 2 if full else 1
    leading, size = b.shape[:-1], b.shape[-1:]
    if b.ndim < 2 or b.shape[0] == 0:
        raise ValueError(f"Expected b of shape (T, *batch, n), T >= 1, got {b.shape}.")
    if a.ndim == own:
        a = expand(a, b.ndim - 1 + own)
    fits = a.ndim == b.ndim - 1 + own and a.shape[-own:] == size * own
    pairs = zip(a.shape, leading, strict=False)
    if not fits or any(one not in (1, all_) for one, all_ in pairs):
        expected = f"(T, *batch, {'n, n' if full else 'n'})"
        raise ValueError(
            f"Expected a of shape {expected} for b of shape {b.shape}, its axes before "
            f"the last {'two' if full else 'one'} equal to b's, or 1, or left out, got "
            f"{a.shape}."
        )
    if h0 is not None and h0.shape != b.shape[1:]:
        raise ValueError(f"Expected h0 of shape {b.shape[1:]}, got {h0.shape}.")
    return a


def kernel_target(kernel: Any, interpret: Any, full: bool) -> Target | None:
    """Returns the target of a kernel, None without one, or raises."""
    check_target(kernel, interpret, "a linear recurrence", "kernel")
    if kernel is None and interpret:
        raise ValueError(
            'Expected a kernel to interpret, "cuda" or "tpu", got kernel=None; name '
            "one, or leave out interpret."
        )
    if kernel is not None and full:
        raise ValueError(
            "Expected coefficients that are not matrices for a kernel, got full; leave "
            "kernel=None."
        )
    return None if kernel is None else Target(kernel, interpret)

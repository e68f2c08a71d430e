"""Lays out one long sequence as parallel streams, and cuts it into windows."""

from collections.abc import Iterator

from jaxtyping import Array, Num

from jrnn.core.arguments import check_size, check_switch
from jrnn.core.constants import own_constants
from jrnn.train.check import check_long


@own_constants
def streams(tokens: Num[Array, " N"], batch_size: int) -> Num[Array, "T B"]:
    """Splits one long sequence into `batch_size` consecutive pieces, as columns.

    Args:
      tokens: The sequence.
      batch_size: B, the number of pieces; leftover tokens at the end are dropped.

    Returns:
      An array (T, B), T = N // B: column b holds piece b, time first.

    Raises:
      ValueError: The sequence is shorter than `batch_size`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.train import streams
      >>> streams(jnp.arange(7), 2).tolist()
      [[0, 3], [1, 4], [2, 5]]
    """
    batch_size = check_size("batch_size", batch_size)
    tokens = check_long("tokens", tokens)
    steps = tokens.shape[0] // batch_size
    if steps == 0:
        raise ValueError(
            f"Expected at least {batch_size} tokens, one per stream, got "
            f"{tokens.shape[0]}; take fewer streams."
        )
    return tokens[: steps * batch_size].reshape(batch_size, steps).T


def windows(
    xs: Array, length: int, *, start: int = 0, keep_last: bool = False
) -> Iterator[Array]:
    """Yields consecutive windows of a long sequence, for truncated backpropagation.

    Args:
      xs: (T, ...), time first.
      length: Steps per window; T or more gives one window, without truncation.
      start: The number of windows to skip, to resume a run.
      keep_last: Whether to yield a shorter window at the end too; its shape costs a
        second compilation.

    Yields:
      xs[0:length], xs[length:2 * length], ...

    Example:
      >>> import jax.numpy as jnp
      >>> from jrnn.train import windows
      >>> [w.tolist() for w in windows(jnp.arange(5), 2, keep_last=True)]
      [[0, 1], [2, 3], [4]]
    """
    length = check_size("length", length)
    start = check_size("start", start, least=0)
    check_switch("keep_last", keep_last)
    xs = check_long("xs", xs)
    for first in range(start * length, xs.shape[0], length):
        window = xs[first : first + length]
        if keep_last or window.shape[0] == length or first == 0:
            yield window

"""Launching a kernel on a GPU or TPU: trees of arrays in, trees of arrays out.

The platforms are "cuda", by Pallas' Triton backend, where values in a kernel are
tensors in registers with sizes that are powers of two; and "tpu", where blocks are in
vector memory in tiles of 8 x 128. With `interpret` JAX runs the same kernel step by
step.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jrnn.core.arguments import check_switch, tell

PLATFORMS = ("cuda", "tpu")
# The bytes that a kernel may use of a TPU's vector memory: a v7x core has 64 MiB, v5e
# and v6e 128 MiB (https://docs.jax.dev/en/latest/pallas/tpu/details.html), of which the
# compiler needs a share.
VECTOR_MEMORY = 48 * 2**20


# Programs that run at the same time on a GPU, if none is present to ask: an A100 has
# 108 multiprocessors.
PROGRAMS = 100


class Target(NamedTuple):
    """Which machine a kernel is for.

    Attributes:
      platform: Its name.
      interpret: Whether JAX itself runs the kernel.
      programs: The least number of programs that a GPU runs at the same time.
    """

    platform: str
    interpret: bool = False
    programs: int = PROGRAMS


class Launch(NamedTuple):
    """The parameters of one launch.

    Attributes:
      name: Shown by profilers.
      target: The machine.
      grid: The number of programs along each axis; a TPU runs the last one in order.
      warps: Warps of 32 threads per program, on a GPU.
      stages: How many loads of a loop are in flight, on a GPU.
    """

    name: str
    target: Target
    grid: tuple[int, ...]
    warps: int = 4
    stages: int = 1


def check_target(
    platform: Any,
    interpret: Any,
    method: str,
    name: str = "platform",
    known: tuple[str, ...] = PLATFORMS,
) -> None:
    """Raises unless there are kernels for the platform, of those `known`."""
    found = isinstance(platform, str) and platform in known
    if platform is not None and not found:
        *first, last = (f'"{one}"' for one in known)
        raise ValueError(
            f"Expected {name} to be None, {', '.join(first)} or {last} for {method}, "
            f"got {tell(platform)}; elsewhere there are no kernels: take jrnn.bptt()."
        )
    check_switch("interpret", interpret)


def find_target(platform: str | None, interpret: bool) -> Target:
    """Returns the target of the named platform, or of the default backend.

    Raises:
      ValueError: There are no kernels for the default backend.
    """
    programs = PROGRAMS
    if platform is None and interpret:
        platform = "cuda"
    if platform is None:
        backend = jax.default_backend()
        names = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "tpu": "tpu"}
        platform = names.get(backend)
        if platform is None:
            raise ValueError(
                f"Expected a CPU, a GPU or a TPU for jrnn.fused(), got the backend "
                f"{backend!r}, for which there is no kernel; run it with jrnn.bptt(), "
                'name the machine with platform="cpu", "cuda" or "tpu" where it is '
                "compiled for another, or test with interpret=True."
            )
        # The number of multiprocessors of the GPU, or of a slice of one.
        programs = getattr(jax.devices()[0], "core_count", None) or PROGRAMS
    return Target(platform, interpret, programs)


def launch(
    how: Launch,
    body: Callable[[Any, Any], None],
    inputs: Any,
    outputs: Any,
    block: Callable[[str, Any], Any],
    aliased: str | None = None,
) -> Any:
    """Runs `body(ins, outs)`, trees of references like `inputs` and `outputs`.

    Args:
      how: The launch.
      body: The kernel.
      inputs: A dict of trees of arrays, keyed by the kind of block to cut them into.
      outputs: A dict of trees of `jax.ShapeDtypeStruct`, keyed in the same way.
      block: (kind, array) -> its `BlockSpec`.
      aliased: A kind whose outputs share memory with its inputs, and start as these.

    Returns:
      A tree like `outputs`, of arrays.
    """
    pl, params = _pallas(how)
    given, inputs_like = jax.tree.flatten(inputs)
    wanted, outputs_like = jax.tree.flatten(outputs)
    blocks = [
        block(kind, leaf)
        for tree in (inputs, outputs)
        for kind in sorted(tree)
        for leaf in jax.tree.leaves(tree[kind])
    ]

    aliases = {}
    if aliased is not None:
        start = [_leaves_before(tree, aliased) for tree in (inputs, outputs)]
        for i in range(len(jax.tree.leaves(inputs[aliased]))):
            aliases[start[0] + i] = start[1] + i

    def kernel(*references: Any) -> None:
        ins, outs = references[: len(given)], references[len(given) :]
        body(jax.tree.unflatten(inputs_like, ins), outputs_like.unflatten(outs))

    results = pl.pallas_call(
        kernel,
        out_shape=wanted,
        grid=how.grid,
        in_specs=blocks[: len(given)],
        out_specs=blocks[len(given) :],
        input_output_aliases=aliases,
        interpret=how.target.interpret,
        compiler_params=params,
        name=how.name,
    )(*given)
    return outputs_like.unflatten(results)


def _leaves_before(tree: dict, kind: str) -> int:
    """Returns how many arrays come before those of a kind."""
    return sum(len(jax.tree.leaves(tree[other])) for other in tree if other < kind)


def _pallas(how: Launch) -> tuple[Any, Any]:
    """Returns the module and the compiler's parameters."""
    try:
        from jax.experimental import pallas as pl
        from jax.experimental.pallas import tpu, triton
    except ImportError as error:
        raise ImportError(
            "Expected jax.experimental.pallas with its backends for TPUs and Triton, "
            f"got {error}; install jax with its extra for the accelerator, or run it "
            "with jrnn.bptt()."
        ) from error
    if how.target.platform == "cuda":
        return pl, triton.CompilerParams(num_warps=how.warps, num_stages=how.stages)
    order = ("parallel",) * (len(how.grid) - 1) + ("arbitrary",)
    return pl, tpu.CompilerParams(
        dimension_semantics=order, vmem_limit_bytes=2 * VECTOR_MEMORY
    )


def barrier(target: Target) -> None:
    """Makes writes of a GPU's program to memory visible to all of its threads."""
    if target.platform == "cuda" and not target.interpret:
        from jax.experimental.pallas import triton

        triton.debug_barrier()


def refusal(what: str, remedy: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns two rules for a `jax.custom_vjp` that raise if it is differentiated."""

    def refuse(*_: Any) -> Any:
        raise ValueError(
            f"Expected first derivatives of {what}, got a derivative of its backward "
            f"pass; {remedy} for second ones."
        )

    return refuse, refuse


def round_up(size: int, multiple: int) -> int:
    """Returns `size` rounded up to a multiple."""
    return -(-size // multiple) * multiple


def power_of_two(size: int) -> int:
    """Returns `size` rounded up to a power of two."""
    return 2 ** math.ceil(math.log2(size))


def like(*shape: int, dtype: DTypeLike) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of an output."""
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

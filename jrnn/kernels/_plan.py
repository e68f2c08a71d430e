"""The plan of a launch: where the matrix is stored, blocks, and padding.

Units are padded gate by gate and rows at the end, with zeros; steps are not padded.

  - On a GPU a program takes 16 rows, the fewest of a tensor core's product. The matrix
    stays in the program if it takes at most `RESIDENT` bytes, of the 227 KiB of shared
    memory and 256 KiB of registers that a multiprocessor of an H100 has. Otherwise
    programs share it, each with `SHARED` of its columns, if these fit; otherwise it is
    read from the cache at each step, in tiles of `TILE` x `TILE`.
  - On a TPU matrix and state stay in vector memory, and the rest streams through it in
    blocks of as many steps as fit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jrnn.core.cell import Gated, State
from jrnn.kernels._gates import saved_like, shares_gates
from jrnn.kernels._pallas import (
    VECTOR_MEMORY,
    Target,
    like,
    power_of_two,
    round_up,
)

RESIDENT = 128 * 2**10
TILE = 64
GPU_ROWS = 16
GPU_BLOCKS = 16, 32, 64  # rows of a block that several programs share
SHARED = (
    64,
    32,
)  # columns of each program: rows of a transposed product of tensor cores
HELD = 160 * 2**10  # bytes of these columns and of h, which fit an A100's shared memory
PRODUCT = 2**14  # numbers of a product, in half of the registers of 128 threads
TPU_LANES, TPU_SUBLANES, TPU_ROWS = 128, 8, 128
MOST_STEPS = 128  # of a block: beyond, its start-up time is negligible. Not measured.


class Plan(NamedTuple):
    """The static description of a launch.

    Attributes:
      gated: The cell's seam.
      target: The machine.
      steps: T.
      rows: The number of rows of the batch, and the padded number.
      units: The number of units of a gate, and the padded number.
      block: Steps and rows of a block.
      tile: Units of a tile, if the matrix is read at each step; None: it stays on chip.
      programs: How many programs share the units of a block of rows.
    """

    gated: Gated
    target: Target
    steps: int
    rows: tuple[int, int]
    units: tuple[int, int]
    block: tuple[int, int]
    tile: int | None
    programs: int = 1

    @property
    def share(self) -> int:
        """How many units of each gate a program has."""
        return self.units[1] // self.programs

    @property
    def blocks(self) -> int:
        """How many blocks the steps are cut into."""
        return -(-self.steps // self.block[0])

    @property
    def grid(self) -> tuple[int, int]:
        """The number of blocks of rows, then of blocks of steps."""
        return self.rows[1] // self.block[1], self.blocks

    def timed(self, leaf: Any, gates: int = 1) -> jax.ShapeDtypeStruct:
        """Returns the shape of an output of every step, like a padded state's leaf."""
        return like(self.steps, leaf.shape[0], gates * leaf.shape[1], dtype=leaf.dtype)


def make_plan(gated: Gated, target: Target, steps: int, W: Array, state: State) -> Plan:
    """Returns the plan for a matrix (n, gates * n) and a state of leaves (rows, n).

    Raises:
      ValueError: The cell's arrays are not of one size, the type has no product on the
        machine, or the matrix does not fit.
    """
    leaves = jax.tree.leaves(state)
    rows, size = leaves[0].shape
    saved = jax.tree.leaves(saved_like(gated, state))
    if any(leaf.shape != (rows, size) for leaf in (*leaves, *saved)):
        raise ValueError(
            f"Expected a cell whose state and gates have {size} units each for "
            f"jrnn.fused(), got {[leaf.shape[1:] for leaf in (*leaves, *saved)]}; run "
            "it with jrnn.bptt()."
        )
    if leaves[0].dtype == jnp.float64 and not target.interpret:
        raise ValueError(
            "Expected parameters and inputs of at most 32 bits for jrnn.fused(), got "
            "float64, for which there is no kernel; cast them, or run it with "
            "jrnn.bptt()."
        )
    if target.platform == "cuda":
        return _for_gpu(gated, target, steps, (rows, size), W)
    return _for_tpu(gated, target, steps, (rows, size), W, state)


def _for_gpu(
    gated: Gated, target: Target, steps: int, shape: tuple[int, int], W: Array
) -> Plan:
    rows, size = shape
    units = max(power_of_two(size), 16)
    stays = gated.gates * units**2 * W.dtype.itemsize <= RESIDENT
    shared = None if stays else _share(gated, target, (rows, size), W.dtype.itemsize)
    if shared is not None:
        units, share, block = shared
        return Plan(
            gated=gated,
            target=target,
            steps=steps,
            rows=(rows, round_up(rows, block)),
            units=(size, units),
            block=(steps, block),
            tile=None,
            programs=units // share,
        )
    return Plan(
        gated=gated,
        target=target,
        steps=steps,
        rows=(rows, round_up(rows, GPU_ROWS)),
        units=(size, units if stays else round_up(size, TILE)),
        block=(steps, GPU_ROWS),
        tile=None if stays else TILE,
    )


def _share(
    gated: Gated, target: Target, shape: tuple[int, int], itemsize: int
) -> tuple[int, int, int] | None:
    """Returns padded units, units per program and rows of a block; None: no fit."""
    rows, size = shape
    units = round_up(size, SHARED[0])
    for columns in SHARED:
        share = columns // power_of_two(gated.gates)
        found = None
        for block in GPU_BLOCKS:
            held = (columns + block) * units * itemsize
            programs = units // share
            fits = held <= HELD and units * block <= PRODUCT
            if programs > target.programs or not fits:
                break
            found = units, share, block
            if programs * -(-rows // block) <= target.programs:
                break
        if found is not None:
            return found
    return None


def _for_tpu(
    gated: Gated,
    target: Target,
    steps: int,
    shape: tuple[int, int],
    W: Array,
    state: State,
) -> Plan:
    rows, size = shape
    units, padded = round_up(size, TPU_LANES), round_up(rows, TPU_SUBLANES)
    if padded > TPU_ROWS:
        padded = round_up(rows, TPU_ROWS)
    block_rows = min(padded, TPU_ROWS)
    saved = saved_like(gated, state)
    # The backward pass has the most arrays: the state before and after, its direct
    # gradient, what was saved, and du and dv; each twice, one in use and one in flight.
    arrays = 3 * len(jax.tree.leaves(state)) + len(jax.tree.leaves(saved))
    arrays += gated.gates * (1 if shares_gates(gated, state, saved) else 2)
    array = 2 * block_rows * units * jax.tree.leaves(state)[0].dtype.itemsize
    step = arrays * array + 2 * block_rows * TPU_LANES * 4  # and the flags
    matrix = 2 * gated.gates * units**2 * W.dtype.itemsize
    room = (VECTOR_MEMORY - matrix - 4 * len(jax.tree.leaves(state)) * array) // step
    if room < 1:
        raise ValueError(
            f"Expected a recurrent matrix that stays in a TPU's vector memory, "
            f"{VECTOR_MEMORY} bytes, with a step beside it, got {size} units, of "
            f"which the matrix takes {matrix}; run it with jrnn.bptt()."
        )
    return Plan(
        gated=gated,
        target=target,
        steps=steps,
        rows=(rows, padded),
        units=(size, units),
        block=(min(steps, room, MOST_STEPS), block_rows),
        tile=None,
    )


def pad(array: Array, plan: Plan, gates: int = 1, rows: bool = True) -> Array:
    """Pads (..., rows, gates * units) gate by gate, and its rows if `rows`."""
    size, units = plan.units
    more = plan.rows[1] - plan.rows[0] if rows else 0
    if more:
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, more), (0, 0)])
    if units == size:
        return array
    lead = array.shape[:-1]
    array = array.reshape(*lead, gates, size)
    array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, units - size)])
    return array.reshape(*lead, gates * units)


def unpad(array: Array, plan: Plan, gates: int = 1) -> Array:
    """Removes the padding of (..., rows, gates * units)."""
    size, units = plan.units
    array = array[..., : plan.rows[0], :]
    if units == size:
        return array
    array = array.reshape(*array.shape[:-1], gates, units)[..., :size]
    return array.reshape(*array.shape[:-2], gates * size)


def pad_matrix(W: Array, plan: Plan) -> Array:
    """Pads both axes of (n, gates * n) to the units of the plan."""
    more = plan.units[1] - plan.units[0]
    return pad(jnp.pad(W, [(0, more), (0, 0)]), plan, plan.gated.gates, rows=False)

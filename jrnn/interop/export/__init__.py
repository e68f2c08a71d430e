"""Programs that run without jrnn: `jax.export` of a cell or model, in a folder.

    unroll.jax, step.jax, ...   each a function, serialised by `jax.export`
    params.npz                  the parameters, by name
    state.npz                   the state of one sequence at its start
    signature.json              names, shapes and types of arguments and results
    README.txt                  the same, and code that runs it, to read

A process that reads it needs jax and flatbuffers. Sizes are symbols: one program serves
every batch and every number of steps.
"""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export  # older jax does not import it
import numpy as np

from jrnn.core.arguments import check_size, check_switch, tell
from jrnn.core.cell import Params
from jrnn.core.check import check_method
from jrnn.core.disk import resolve, told_leaf
from jrnn.core.lazy import needed_by
from jrnn.core.method import Method
from jrnn.interop.export.functions import Settings, functions, initial_state
from jrnn.interop.export.signature import FORMAT, readme, signature
from jrnn.interop.files.errors import FileError
from jrnn.interop.files.tensors import check_kept, named, to_tensors

__all__ = ["Export", "export"]

PLATFORMS = ("cpu", "cuda", "tpu")
SIGNATURE, README = "signature.json", "README.txt"


class Export(NamedTuple):
    """Where a program was written; printed, it shows how to call it.

    Attributes:
      path: The folder.
      text: The content of its README.txt.
    """

    path: Path
    text: str

    def __repr__(self) -> str:
        """Shows the text."""
        return self.text


def export(
    cell_or_model: Any,
    params: Params,
    path: str | os.PathLike[str],
    *,
    platforms: Sequence[str] = PLATFORMS,
    method: Method | None = None,
    vjp_order: int = 0,
    batch: int | None = None,
    steps: int | None = None,
    tokens: bool = False,
) -> Export:
    """Writes programs that run a cell or model without jrnn, by `jax.export`.

    Of a cell these are `unroll`, `step`, if it has a step, and `start`; of a sequence
    model `log_prob`, `step`, `predict`, `sample` and `start`; of a supervised model
    `predict`. Parameters and states are dictionaries of arrays. The state of one
    sequence at its start is stored beside them, and `start` computes it of the
    parameters, which trains a learned one. A sequence model's `log_prob` takes two
    steps or more.

    Args:
      cell_or_model: A cell, sequence model or supervised model.
      params: Its parameters.
      path: The folder; one that `export` wrote is replaced.
      platforms: On which the programs run: "cpu", "cuda", "rocm", "tpu".
      method: How to run the cell; None takes `jrnn.bptt()`. For any number of steps it
        is this, `jrnn.scan()` or `jrnn.associative()`.
      vjp_order: How often the programs can be differentiated, in reverse mode.
      batch: The number of sequences; None: any, a symbol b.
      steps: The number of steps; None: any, a symbol t.
      tokens: Whether a cell reads token ids, not features.

    Returns:
      The folder; printed, it shows the functions, their arguments and how to call them.

    Raises:
      FileError: There is something else at `path`; or parameters are 64-bit and
        `jax_enable_x64` is off. A ValueError.
      ModuleNotFoundError: flatbuffers is not installed.
      OSError: The folder cannot be written.
      TypeError: An argument has the wrong type; Markov models and heads are not
        exported.
      ValueError: `params` are not those of the cell or model, a platform is unknown,
        `method` needs fixed sizes, or `steps` is 1 for a sequence model.

    Example:
      >>> import jax, jrnn, tempfile
      >>> cell = jrnn.elman(3, 4)
      >>> params, folder = cell.init(jax.random.key(0)), tempfile.mkdtemp()
      >>> exported = jrnn.export(cell, params, folder, platforms=["cpu"])
      >>> sorted(file.name for file in exported.path.glob("*.jax"))
      ['start.jax', 'step.jax', 'unroll.jax']
    """
    place = resolve(path, "folder", FileError)
    tensors = to_tensors(cell_or_model, params)
    for name, array in tensors.items():
        check_kept(f"{name} of {cell_or_model}", array)
    settings = Settings(
        _checked(method), check_switch("tokens", tokens), *_sizes(batch, steps)
    )
    vjp_order = check_size("vjp_order", vjp_order, least=0)
    platforms = _checked_platforms(platforms)
    found = functions(cell_or_model, params, settings)
    if found is None:
        raise TypeError(
            "Expected cell_or_model to be a cell, a sequence model or a supervised "
            f"model, got {told_leaf(cell_or_model)}, whose functions are not exported."
        )
    _check_replaceable(place)
    with needed_by("jrnn.export", "flatbuffers"):
        import flatbuffers  # noqa: F401 that jax needs
    exported = {
        name: jax.export.export(jax.jit(one.call), platforms=platforms)(
            *one.arguments.values()
        )
        for name, one in found.items()
    }
    told = signature(cell_or_model, found, exported, settings, vjp_order)
    text = readme(place.name, told)
    start = jax.device_get(initial_state(cell_or_model, params))
    with _Writing(place) as folder:
        for name, one in exported.items():
            raw = one.serialize(vjp_order=vjp_order)
            (folder / f"{name}.jax").write_bytes(raw)
        np.savez(folder / "params.npz", **_storable(tensors))
        np.savez(folder / "state.npz", **_storable(named(start)))
        content = json.dumps(told, indent=1)
        (folder / SIGNATURE).write_text(content, encoding="utf-8")
        (folder / README).write_text(text, encoding="utf-8")
    return Export(place, text)


def _checked(method: Any) -> Method | None:
    if method is not None:
        check_method(method)
    return method


def _sizes(batch: Any, steps: Any) -> tuple[int | None, int | None]:
    batch = batch if batch is None else check_size("batch", batch)
    return batch, steps if steps is None else check_size("steps", steps)


def _checked_platforms(platforms: Any) -> list[str]:
    if isinstance(platforms, str) or not isinstance(platforms, Sequence):
        raise TypeError(
            'Expected platforms to be several names, such as ["cpu", "cuda"], got '
            f"{tell(platforms)}."
        )
    known = (*PLATFORMS, "rocm")
    if not platforms or any(one not in known for one in platforms):
        raise ValueError(
            f"Expected platforms among {', '.join(known)}, got {tell(platforms)}."
        )
    return list(dict.fromkeys(platforms))


def _storable(arrays: Any) -> dict[str, Any]:
    """Returns arrays that NumPy can store; float32 holds each narrower type exactly."""
    found = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        known = array.dtype.kind in "biufc"  # not bfloat16 or float8
        found[name or "value"] = array if known else array.astype(np.float32)
    return found


def _check_replaceable(place: Path) -> None:
    """Raises FileError if there is something that `export` did not write."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    file = place / SIGNATURE
    if not file.is_file() or FORMAT not in file.read_text("utf-8", "replace"):
        raise FileError(
            f"Expected a new path or a folder of jrnn.export to replace, got {place}, "
            "which is something else; choose another path."
        )


class _Writing:
    """A folder beside its place, moved there when it is complete."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._beside = place.with_name(f".{place.name}.partial-{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        self._beside.mkdir(parents=True)
        return self._beside

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                if self._place.exists():
                    shutil.rmtree(self._place)
                os.replace(self._beside, self._place)
        finally:
            shutil.rmtree(self._beside, ignore_errors=True)

"""What every experiment needs around its question: a run folder, files, a table.

A run folder is claimed before any long work starts, so that an unwritable disk is found
in the first seconds and not in the last. Every file in it but the metrics appears whole
or not at all: it is written beside its place and then moved there.
"""

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
PACKAGES = ("jax", "jaxlib", "numpy", "optax")


def claim_run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """The folder this run writes to, proven writable.

    Args:
      out: the folder, or None for `runs/NAME/0001`, `0002`, ...: the next free
        number, or with `resume` the highest that holds a run.
      name: the experiment's name.
      resume: whether the folder holds a run to go on with.

    Returns:
      The folder, which exists.

    Raises:
      ValueError: nothing to resume, a folder that holds another run, or a folder in
        which no file can be made.
    """
    folder = _numbered_folder(Path("runs") / name, resume) if out is None else out
    taken = (folder / CONFIG_FILE).exists()
    if resume and not taken:
        raise ValueError(
            f"Expected a run to resume in {folder}, got no {CONFIG_FILE} there. "
            "Start without --resume, or name the run's folder with --out."
        )
    if taken and not resume:
        raise ValueError(
            f"{folder} already holds a run. Add --resume to go on with it, or choose "
            "another --out."
        )
    _prove_writable(folder)
    return folder


def _numbered_folder(parent: Path, resume: bool) -> Path:
    found = [p for p in parent.glob("[0-9]*") if p.name.isdigit()]
    if resume:  # the newest that holds a run
        held = [p for p in found if (p / CONFIG_FILE).exists()]
        return max(held, key=lambda p: int(p.name), default=parent)
    return parent / f"{max((int(p.name) for p in found), default=0) + 1:04d}"


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, deepest first."""
    return [p for p in (folder, *folder.parents) if not p.exists()]


@contextmanager
def new_run_folder(
    out: Path | None, name: str, worth_keeping: Callable[[Path], bool]
) -> Iterator[Path]:
    """`claim_run_folder` for a new run, which leaves nothing if the block fails early.

    Args:
      out: as for `claim_run_folder`.
      name: as for `claim_run_folder`.
      worth_keeping: asked of the folder when the block has failed; if it says no,
        what this run has put there goes, and the folders it made.

    Yields:
      The folder.

    Raises:
      ValueError: as `claim_run_folder`.
    """
    folder = _numbered_folder(Path("runs") / name, False) if out is None else out
    made = _missing(folder)
    before = set(folder.iterdir()) if folder.is_dir() else set()
    claim_run_folder(folder, name, resume=False)
    try:
        yield folder
    except BaseException:  # Ctrl-C is one
        if not worth_keeping(folder):
            for path in set(folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in made:
                with suppress(OSError):  # another run has begun beside this one
                    path.rmdir()
        raise


def _prove_writable(folder: Path) -> None:
    made = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        for path in made:  # deepest first; leave nothing half-made behind
            if path.is_dir():
                path.rmdir()
        raise ValueError(
            f"Expected a run folder that can be written to, got {folder}: "
            f"{error.strerror}. Choose another with --out."
        ) from error


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it only if the block succeeds."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_results(
    out: Path,
    experiment: str,
    settings: Any,
    rows: Sequence[object],
    environment: Mapping[str, object],
) -> None:
    """Write the results file of a command whose `settings` are a dataclass."""
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "experiment": experiment,
        "environment": environment,
        # Where it went says nothing.
        "settings": {**dataclasses.asdict(settings), "out": None},
        "rows": rows,
    }
    write_json(out, content)


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
      ValueError: no such file, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected a JSON file, got {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected a JSON object in {path}, got a {type(content)}.")
    return content


def append_metrics(folder: Path, row: Mapping[str, object]) -> None:
    """Add one line to the run's metrics; closed again at once, so never half-lost."""
    with (folder / METRICS_FILE).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_metrics(folder: Path) -> list[dict[str, object]]:
    """Every line of the run's metrics; none if there is no such file yet.

    A last line that is not JSON is left out: a crash tore it.

    Raises:
      ValueError: another line is not a JSON object.
    """
    path = folder / METRICS_FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(dict(json.loads(line.decode("utf-8"))))
        except (ValueError, TypeError) as error:
            if number < len(lines):
                raise ValueError(
                    f"Expected a JSON object in {path}, line {number}, got "
                    f"{line[:60]!r}: {error}. Remove that line."
                ) from error
    return rows


def keep_metrics(folder: Path, model: str, last_step: int) -> None:
    """Drop `model`'s lines after `last_step`: a resumed run writes them once more."""
    rows = [
        row
        for row in read_metrics(folder)
        if row["model"] != model or int(str(row["step"])) <= last_step
    ]
    with atomically(folder / METRICS_FILE) as temporary:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        temporary.write_text(lines, encoding="utf-8", newline="\n")


def environment() -> dict[str, object]:
    """What a number depends on beside its settings: versions, machine, commit."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _described("/proc/cpuinfo", "model name") or platform.processor(),
        "memory": _described("/proc/meminfo", "MemTotal"),
        "cores": _cores(),
        "device": jax.devices()[0].device_kind,
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _described(file: str, field: str) -> str:
    """The first value of a field in a list of the Linux kernel; elsewhere nothing."""
    with suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # no git, or not a clone
    return done.stdout.strip()


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns: the first to the left, the others to the right.

    >>> print(format_table(("model", "bits"), [("gru", "2.1"), ("uniform", "6.1")]))
    model    bits
    gru       2.1
    uniform   6.1
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    shown = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


class StopRequest:
    """Whether the user asked to stop; a training loop looks at it between steps."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: note the first, and let a second one interrupt at once."""
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: the signal may have come in the middle of another print.
        with suppress(OSError):  # there may be no screen
            os.write(2, b"\nStopping soon; press Ctrl-C again to stop at once.\n")


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn Ctrl-C (and SIGTERM, where there is one) into a request to stop.

    The old handlers come back at the end. Outside the main thread Python allows no
    handlers; there the request simply never comes.
    """
    request = StopRequest()
    names = [n for n in ("SIGINT", "SIGTERM") if hasattr(signal, n)]
    old = {}
    try:
        for name in names:
            number = getattr(signal, name)
            old[number] = signal.signal(number, request.ask)
    except ValueError:  # not in the main thread
        pass
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def mean_sd(values: Sequence[Any]) -> dict[str, Any]:
    """Returns values with the mean and (n - 1) standard deviation of those not None.

    >>> mean_sd([1.0, None, 3.0])["mean"], mean_sd([0.5])["sd"]
    (2.0, 0.0)
    """
    numbers = [None if value is None else float(value) for value in values]
    known = [value for value in numbers if value is not None]
    return {
        "values": numbers,
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else 0.0,
    }

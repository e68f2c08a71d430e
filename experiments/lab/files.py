"""Files of a run: each but the metrics appears whole or not at all.

It is written beside its place and then moved there.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

METRICS_FILE = "metrics.jsonl"


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


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys as a table with a header, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


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

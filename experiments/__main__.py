"""python -m experiments.

Lists the experiments and the benchmarks, one line each, without importing them.
"""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).parent


def commands() -> dict[str, str]:
    """Returns each command's name and the first sentence of its help, sorted."""
    found = {}
    for path in sorted(HERE.rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        usage, _, help_text = text.partition("\n\n")
        name = usage.removeprefix("python -m ").split()[0] if usage else ""
        if name.startswith("experiments.") and name != "experiments.":
            found[name] = first_sentence(help_text)
    return found


def first_sentence(text: str) -> str:
    """Returns the first sentence of a text, on one line.

    >>> first_sentence("Who knows? Nobody.")
    'Who knows?'
    """
    line = " ".join(text.split())
    ends = [line.find(mark) + 1 for mark in (". ", "? ", ": ") if mark in line]
    return line[: min(ends)].replace(":", ".") if ends else line


def main(arguments: list[str] | None = None) -> int:
    """Prints the list; returns 2 if there are arguments."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments not in ([], ["--help"], ["-h"]):
        name = arguments[0]
        print(
            f"error: Expected no arguments, got {name}; to run an experiment, write "
            f"python -m experiments.{name.removeprefix('experiments.')}",
            file=sys.stderr,
        )
        return 2
    rows = [(f"python -m {name}", line) for name, line in commands().items()]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {line}" for name, line in rows))
    print("\nEach explains itself and its settings with --help.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

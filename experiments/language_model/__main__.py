"""python -m experiments.language_model [train | sample | score | compare] --help.

How many bits does a character of text cost? Trains character-level language models
on real text and compares them on held-out text: uniform, Markov chains of order 1 to 6,
Elman, GRU and LSTM with equal numbers of parameters, and compressors. `train` is meant
where no command is named.
"""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from experiments.language_model import commands
from experiments.language_model.commands import Sample, Score
from experiments.language_model.compare import Compare, compare
from experiments.language_model.resume import stored_settings
from experiments.language_model.settings import Settings

COMMANDS = {"train": Settings, "sample": Sample, "score": Score, "compare": Compare}
RUNS: dict[type, Callable[[Any], int]] = {
    Settings: commands.run,
    Sample: commands.sample,
    Score: commands.score,
    Compare: compare,
}


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the command; returns the exit status."""
    first = arguments[0] if arguments else ""
    if first not in (*COMMANDS, "--help", "-h"):
        arguments = ["train", *arguments]
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=arguments, description=__doc__
    )
    try:
        if isinstance(command, Settings) and command.resume:
            command = stored_settings(command.out, arguments[1:])
        return RUNS[type(command)](command)
    except (ValueError, FloatingPointError, ModuleNotFoundError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return commands.STOPPED


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

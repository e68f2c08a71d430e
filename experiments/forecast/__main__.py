"""python -m experiments.forecast [train | predict | stream] --help.

What comes next in your own table of measurements? Reads a table, says what it found,
trains a GRU and a network of linear recurrent units, and compares their forecasts with
persistence, seasonal naive and autoregression on the latest part, which none of them
has seen. `train` is meant where no command is named, and reads a glucose monitor where
no table is named; `predict` forecasts on; `stream` answers rows of standard input.
"""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from experiments import lab
from experiments.forecast import commands
from experiments.forecast.settings import Predict, Settings, Stream

COMMANDS = {"train": Settings, "predict": Predict, "stream": Stream}
RUNS: dict[type, Callable[[Any], int]] = {
    Settings: commands.train,
    Predict: commands.predict,
    Stream: commands.stream,
}


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line and runs the command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first = arguments[0] if arguments else ""
    if first not in (*COMMANDS, "--help", "-h"):
        arguments = ["train", *arguments]
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=arguments, description=__doc__
    )

    def checked() -> int:
        lab.check(command)
        return RUNS[type(command)](command)

    return lab.exit_status(checked)


if __name__ == "__main__":
    raise SystemExit(main())

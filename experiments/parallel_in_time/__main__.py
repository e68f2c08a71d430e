"""python -m experiments.parallel_in_time [COMMAND] --help.

When is evaluation in parallel over time faster, is it right, and can it be trained?
`timing` (meant where no command is named) times every method against length and size;
`deer`, `min` and `pararnn` do so in the settings of three papers; `convergence`
tabulates Newton's method; `learning` trains cells whose sequences are evaluated so.
"""

import sys
from typing import Any

import tyro

from experiments import lab
from experiments.parallel_in_time import convergence, timing

COMMANDS: dict[str, Any] = {
    "timing": timing.Settings,
    "deer": timing.Deer,
    "min": timing.Min,
    "pararnn": timing.Pararnn,
    "convergence": convergence.Settings,
}
LEARNING = "learning"


def main(arguments: list[str]) -> int:
    """Reads the command line and runs the command; returns the exit status."""
    first = arguments[0] if arguments else ""
    if first == LEARNING:
        from experiments.parallel_in_time import learning  # pulls in its own data

        return learning.main(arguments[1:])
    if first not in (*COMMANDS, "--help", "-h"):
        arguments = ["timing", *arguments]
    settings = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=arguments, description=__doc__
    )
    own = convergence if isinstance(settings, convergence.Settings) else timing
    return lab.exit_status(lambda: own.run(settings))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

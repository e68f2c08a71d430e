"""Experiments: one question each, run as `python -m experiments.NAME --help`."""

import sys

from experiments._extras import COMMON, require

if sys.argv[:1] == ["-m"]:  # Python is looking for the command that it is to run
    try:
        require(*COMMON)
    except ModuleNotFoundError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None

"""Experiments: one question each, run as `python -m experiments.NAME --help`."""

import sys

from experiments._extras import COMMON, require

_listing = "-m" in sys.orig_argv and "experiments" in sys.orig_argv
if sys.argv[:1] == ["-m"] and not _listing:  # Python is looking for the command to run
    try:
        require(*COMMON)
    except ModuleNotFoundError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None

"""What experiments share, so that each of them is its question alone.

settings     bounds of settings, one check of them, presets
run          the command line, a run's folder, its results file
files        JSON and metrics, whole or not at all
machine      what a number depends on: versions, processor, other work
stopping     Ctrl-C as a request
intervals    means over seeds, 95% intervals, bootstraps
tables       tables and numbers on the screen
figures      colours, axes, PNG files
training     one loop that keeps what did best on validation; updates in a compiled loop
errors       normwise errors of arrays and trees
compressors  bz2, LZMA and PPMd as references

The names below are those that nearly every experiment uses.
"""
# ruff: noqa: F401  experiments use these names

from experiments.lab.files import read_json, write_json
from experiments.lab.intervals import mean_sd
from experiments.lab.machine import (
    compiled_anew,
    environment,
    load_average,
    parameter_count,
    x64,
)
from experiments.lab.run import (
    RESULTS_FILE,
    begin,
    claim_run_folder,
    command,
    exit_status,
    main_of,
    write_results,
)
from experiments.lab.settings import (
    ABOVE_0,
    FINITE,
    SOME,
    Count,
    Counts,
    Positive,
    Positives,
    Seeds,
    among,
    at_least,
    check,
    resolve,
    within,
)
from experiments.lab.tables import format_table, percent, span, spread, table_of

"""Experiments: one question each, run as `python -m experiments.NAME --help`."""

"""Glucose 30 and 60 minutes ahead, for `python -m experiments.glucose`."""

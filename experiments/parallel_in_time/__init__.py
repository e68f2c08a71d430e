"""Evaluation that is parallel in time: when it is faster, and whether it is right."""

"""The ways to run a cell along a sequence: one file each."""

"""One way to run a cell each."""

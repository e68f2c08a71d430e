"""jrnn and the libraries it is measured against, side by side in one process."""

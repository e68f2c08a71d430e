"""Weights of other libraries as cells and parameters of jrnn, one module for each."""

"""Gradients, Jacobians, gates and non-finite numbers."""

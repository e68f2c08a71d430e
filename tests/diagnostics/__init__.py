"""Gradients, Jacobians, gates and numbers that are not finite."""

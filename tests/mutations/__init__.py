"""Breaks the source on purpose, and asks which test notices."""

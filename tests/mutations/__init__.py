"""Breaks the source on purpose, and reports which test notices."""

"""Spoken digits of many lengths, with and without knowing the lengths."""

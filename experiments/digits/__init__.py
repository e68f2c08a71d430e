"""Digits read by recurrent networks: as curves, row by row, and pixel by pixel."""

"""Contracts that every cell, method and argument fulfils."""

"""The methods that run a cell."""

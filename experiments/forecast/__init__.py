"""Forecasts of a user's own series, regular or not, with their uncertainty."""

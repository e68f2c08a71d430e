"""Daily returns of three stocks: volatility can be predicted, the mean cannot."""

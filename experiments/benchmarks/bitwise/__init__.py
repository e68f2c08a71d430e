"""Two commits side by side, bit for bit."""

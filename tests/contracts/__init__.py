"""What every cell, method and argument keeps to."""

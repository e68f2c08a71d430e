"""The notes' page on far back: gradients vanish or explode, measured and drawn."""

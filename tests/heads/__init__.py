"""What a state says about the next symbol."""

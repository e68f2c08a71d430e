"""The foundation of all other packages; independent of any cell or method."""

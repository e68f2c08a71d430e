"""Installation, imports and documentation."""

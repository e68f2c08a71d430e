"""What every other part stands on; nothing here knows a cell or a method."""

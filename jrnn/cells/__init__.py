"""The recurrent cells: one file each, all in the same order."""

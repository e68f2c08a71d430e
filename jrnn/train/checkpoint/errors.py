"""The exception raised when a checkpoint cannot be read or replaced."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, foreign, in use, or of another structure."""


CheckpointError.__module__ = "jrnn.train"  # where users find it

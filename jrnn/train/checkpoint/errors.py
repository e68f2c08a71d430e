"""The one exception that reading and replacing a checkpoint raises."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, foreign, in use, or of another structure."""


CheckpointError.__module__ = "jrnn.train"  # where users find it

"""The exception raised when a file cannot be read as `jrnn.save` writes it.

It is not `jrnn.train.CheckpointError`, because `jrnn.train` needs optax and orbax, and
files do not. Both are ValueErrors.
"""


class FileError(ValueError):
    """A file is damaged, altered, foreign, newer, or of another structure."""


FileError.__module__ = "jrnn.interop.files"  # where users find it

"""Ctrl-C as a request: the first is noted, the second interrupts."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class StopRequest:
    """Whether the user asked to stop; a training loop looks at it between steps."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: note the first, and let a second one interrupt at once."""
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: the signal may have come in the middle of another print.
        with suppress(OSError):  # there may be no screen
            os.write(2, b"\nStopping soon; press Ctrl-C again to stop at once.\n")


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn Ctrl-C (and SIGTERM, where there is one) into a request to stop.

    The old handlers come back at the end. Outside the main thread Python allows no
    handlers; there the request simply never comes.
    """
    request = StopRequest()
    names = [n for n in ("SIGINT", "SIGTERM") if hasattr(signal, n)]
    old = {}
    try:
        for name in names:
            number = getattr(signal, name)
            old[number] = signal.signal(number, request.ask)
    except ValueError:  # not in the main thread
        pass
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

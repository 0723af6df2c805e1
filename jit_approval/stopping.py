"""To be asked to end, and to sleep so that being asked wakes one up."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Says whether to go on. A signal asks to stop; a second one ends the process as if nobody listened."""

    def __init__(self) -> None:
        self.asked = False
        # Not a `threading.Event`: a handler that sets one while its thread waits on it may wait for itself.
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)

    def ask(self) -> None:
        """Ask to stop, and wake up who sleeps."""
        self.asked = True
        self._mouth.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Sleep, but not once asked to stop."""
        select.select([self._ear], [], [], max(0.0, seconds))

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT while the block runs. In the main thread alone, as Python wants it."""
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Give back what sleeping took."""
        self._ear.close()
        self._mouth.close()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.ask()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

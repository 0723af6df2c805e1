"""Progress on a terminal: one line that counts down, and stays when something happens."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Self, TextIO

from jit_approval.client.pending import Pending


class Progress:
    """Show a waiting call: `with Progress() as progress: httpx.Client(auth=ApprovalAuth(on_pending=progress))`.

    On a terminal the time left counts down each second; elsewhere a line is written when something changes.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, by default standard error."""
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None
        self._pending: Pending | None = None
        self._ends: float | None = None
        self._lock = threading.Lock()

    def __call__(self, pending: Pending) -> None:
        """Take what is new of the call."""
        with self._lock:
            if pending.status != "pending" or pending.expires_in is None:
                self._ends = None
            elif self._pending is None or self._pending.approval_id != pending.approval_id:
                self._ends = time.monotonic() + pending.expires_in
            self._pending = pending
            self._write(end="" if self._live else "\n")
        if self._live and self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        while not self._stop.wait(1):
            with self._lock:
                self._write(end="")

    def _write(self, *, end: str) -> None:
        pending = self._pending
        if pending is None:
            return
        left = None if self._ends is None else self._ends - time.monotonic()
        line = str(replace(pending, expires_in=left))
        start = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{start}{line}{end}")
        self._stream.flush()

    def __enter__(self) -> Self:
        """Show it from here."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal on a line of its own."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._live and self._pending is not None:
            self._stream.write("\n")
            self._stream.flush()

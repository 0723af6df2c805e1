"""An export as it lies on a disk: files that only ever grow. How they are named, and how they are read.

See docs/audit.md for the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jit_approval.audit import records
from jit_approval.audit.records import Record

CHECKPOINTS = "checkpoints.jsonl"
EVENTS_IN_A_FILE = 100_000

_EVENTS = re.compile(r"events-\d{12}\.jsonl", re.ASCII)


def events_file(index: int) -> str:
    """Return the name of the file that holds the event at this place."""
    return f"events-{index - index % EVENTS_IN_A_FILE:012d}.jsonl"


def note_line(note: str) -> bytes:
    """Return the line of a signed statement, its newline included."""
    text = json.dumps({"note": note}, ensure_ascii=False, separators=(",", ":"))
    return f"{text}\n".encode()


def parse_note(line: bytes) -> str | None:
    """Return the note that has exactly this line; None where there is none."""
    try:
        note = json.loads(line)["note"]
        return note if isinstance(note, str) and note_line(note) == line else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Folder:
    """An export that is being read, perhaps while it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = 0
        """Bytes of events read so far."""
        self.unfinished: list[str] = []
        """Files whose last line has no end: it is being written, or whoever wrote it died."""

    def size(self) -> int:
        """Return how many bytes of events there are now."""
        return sum((self.path / name).stat().st_size for name in self.event_files())

    def is_begun(self) -> bool:
        """Tell whether anything was exported there."""
        return (self.path / CHECKPOINTS).is_file() or bool(self.event_files())

    def event_files(self) -> list[str]:
        """Return the names of the files that hold events, in order."""
        return sorted(
            each.name
            for each in self.path.iterdir()
            # What is no file, a pipe perhaps, would be waited for.
            if _EVENTS.fullmatch(each.name) and each.is_file()
        )

    def events(self) -> Iterator[Record | None]:
        """Return the events in order; None for a line that holds none.

        Raises:
            OSError: a file cannot be read.
        """
        name = ""
        while True:
            # Looked for each time: the next one may not have been there at first.
            later = [each for each in self.event_files() if each > name]
            if not later:
                return
            name = later[0]
            for line in self._lines(name):
                yield records.parse(line)

    def statements(self) -> Iterator[str]:
        """Return the signed statements in order; nothing for a line that holds none.

        Raises:
            OSError: the file cannot be read.
        """
        if (self.path / CHECKPOINTS).is_file():
            for line in self._lines(CHECKPOINTS, is_events=False):
                yield parse_note(line) or ""

    def _lines(self, name: str, is_events: bool = True) -> Iterator[bytes]:
        with (self.path / name).open("rb") as file:
            while line := file.readline(records.MAX_LINE):
                if is_events:
                    self.done += len(line)
                if line.endswith(b"\n"):
                    yield line
                elif len(line) == records.MAX_LINE:
                    self.done += _skip_line(file) if is_events else 0
                    yield b""
                else:
                    self.unfinished.append(f"{name}: its last line is half-written")
                    return


def _skip_line(file: IO[bytes]) -> int:
    count = 0
    while piece := file.readline(records.MAX_LINE):
        count += len(piece)
        if piece.endswith(b"\n"):
            break
    return count

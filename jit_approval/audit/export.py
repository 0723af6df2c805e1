"""The trail as files that only grow, written as it is sealed. Nothing that is there is ever overwritten.

What is there is read before anything is written or signed: if it has what the database has not, the database was
restored or rewritten, and everything stops. See docs/audit.md for the format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jit_approval.audit import checkpoints, folder, notes, places, records
from jit_approval.models import Checkpoint

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two exports apart
    fcntl = None  # type: ignore[assignment]

_MODE = 0o640
_STEP = 64 * 1024


class ExportFailed(Exception):
    """Nothing is lost, and nothing is exported, until the directory can be written again."""


class ExportConflict(Exception):
    """The directory has what the database has not."""


class Exporter:
    """Writes to one directory."""

    def __init__(self, path: Path, alias: str) -> None:
        self._path, self._alias = path, alias

    def look(self) -> int:
        """Return the number of the next statement to be exported.

        Raises:
            ExportConflict: the last one exported is not in the database, or the directory cannot be read.
        """
        return self._begun()[0]

    def run(self) -> int:
        """Write what is not there yet; return how many statements.

        Raises:
            ExportFailed: the directory cannot be written.
            ExportConflict: there is something else where it should be written.
        """
        try:
            with self._locked():
                return self._write()
        except places.Damaged as error:
            raise ExportConflict(str(error)) from None
        except OSError as error:
            raise ExportFailed(f"The trail cannot be exported to {self._path}: {error}.") from None

    def _write(self) -> int:
        number, size = self._begun()
        rows = Checkpoint.objects.using(self._alias).filter(number__gte=number).order_by("number")
        count = 0
        events = _Events(self._path, size)
        with _Tail(self._path / folder.CHECKPOINTS) as statements:
            try:
                for row in rows.iterator():
                    for seal in places.sealed(self._alias, size, row.size):
                        events.write(seal.index, records.as_line(places.record(seal)))
                    events.flush()
                    size = max(size, row.size)
                    # Last: whoever has a checkpoint has the events before it.
                    statements.write(folder.note_line(row.note))
                    statements.flush()
                    count += 1
                events.ensure_at_end()
            finally:
                events.close()
        return count

    def _begun(self) -> tuple[int, int]:
        """Return the number of the next statement, and the events exported before it."""
        path = self._path / folder.CHECKPOINTS
        try:
            if not self._path.is_dir():
                raise ExportConflict(f"The directory {self._path} is not there. Is it mounted?")
            line = last_line(path) if path.exists() else b""
        except OSError as error:
            raise ExportConflict(f"The export in {self._path} cannot be read: {error}.") from None
        if not line:
            return 0, 0
        note = folder.parse_note(line)
        row = self._row(note) if note is not None else None
        if row is None:
            raise ExportConflict(
                f"The last statement exported to {self._path} is not in the database: it was restored, or rewritten."
            )
        return row.number + 1, row.size

    def _row(self, note: str) -> Checkpoint | None:
        try:
            statement = checkpoints.parse(notes.split(note)[0])
        except notes.NoteError:
            return None
        rows = Checkpoint.objects.using(self._alias).order_by("-number")
        if isinstance(statement, checkpoints.Checkpoint):
            rows = rows.filter(size=statement.size)
        else:
            rows = rows.filter(kind=Checkpoint.Kind.ROTATION)
        return next((row for row in rows if row.note == note), None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._path / ".lock").open("wb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Events:
    """The files of events, from one place on."""

    def __init__(self, path: Path, begin: int) -> None:
        self._path, self._begin = path, begin
        self._name, self._tail = "", None  # type: str, _Tail | None

    def write(self, index: int, line: bytes) -> None:
        """Write the line of the event at this place, the one after the one before."""
        name = folder.events_file(index)
        if name != self._name or self._tail is None:
            self.close()
            skip = index % folder.EVENTS_IN_A_FILE
            self._tail, self._name = _Tail(self._path / name, skip, index - 1), name
        self._tail.write(line)

    def flush(self) -> None:
        """Have all of it on the disk."""
        if self._tail is not None:
            self._tail.flush()

    def ensure_at_end(self) -> None:
        """Refuse what goes on where nothing was signed."""
        if self._tail is not None:
            self._tail.ensure_at_end()

    def close(self) -> None:
        """End the file."""
        if self._tail is not None:
            self._tail.flush()
            self._tail.close()
            self._tail = None


class _Tail:
    """The end of a file that grows. What a writer that died left there must be the beginning of what is written."""

    def __init__(self, path: Path, lines: int | None = None, last: int = -1) -> None:
        """Go on after the first `lines` lines, the last of which is that of event `last`.

        After the last line that is whole, where that is not said.
        """
        is_new = not path.exists()
        if lines and not is_new:
            # As a rule nothing follows, and the lines need not be counted.
            found = records.parse(last_line(path))
            lines = None if found is not None and found.index == last else lines
        self._path = path
        self._file: IO[bytes] = os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _MODE), "r+b"
        )
        if is_new and os.name == "posix":
            _sync_directory(path.parent)
        end = _end_of_lines(self._file, lines)
        if end is None:
            self._file.close()
            raise ExportConflict(f"{path} has fewer lines than were exported.")
        self._file.seek(end)
        self._left = self._file.read()

    def write(self, line: bytes) -> None:
        """Write a line, or as much of it as is not there."""
        there = self._left[: len(line)]
        if not line.startswith(there):
            raise ExportConflict(f"{self._path} has another line where this one should be written.")
        self._left = self._left[len(there) :]
        if len(there) < len(line):
            self._file.write(line[len(there) :])

    def flush(self) -> None:
        """Have it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def ensure_at_end(self) -> None:
        """Refuse what is there beyond what was written."""
        if self._left:
            raise ExportConflict(f"{self._path} has more than the database has sealed.")

    def close(self) -> None:
        """End it."""
        self._file.close()

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_line(path: Path) -> bytes:
    """Return the last line of a file that is whole, or nothing."""
    with path.open("rb") as file:
        end = _end_of_lines(file, None) or 0
        begin, found = end, b""
        while begin and b"\n" not in found[:-1]:
            step = min(_STEP, begin)
            begin -= step
            file.seek(begin)
            found = file.read(step) + found
        return found[:-1].rpartition(b"\n")[2] + found[-1:]


def _end_of_lines(file: IO[bytes], lines: int | None) -> int | None:
    """Return where the first `lines` lines end, or all whole lines; None where there are fewer."""
    if lines is None:
        place = file.seek(0, os.SEEK_END)
        while place:
            step = min(_STEP, place)
            place -= step
            file.seek(place)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                return place + newline + 1
        return 0
    file.seek(0)
    for _ in range(lines):
        line = file.readline()
        if not line.endswith(b"\n"):
            return None
    return file.tell()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Events that left the database one by one: a range that was exported, or what a log or a webhook has received.

Lines of three kinds, in any order, each perhaps more than once: a signed statement, an event with its proof, and an
event that left before it was sealed. Such a file says of each event whether it was signed; it cannot show that none
is missing from it, which is what an export in a directory is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jit_approval.audit import checkpoints, folder, notes, proofs, records
from jit_approval.audit.checkpoints import Checkpoint
from jit_approval.audit.findings import FORGED, Kind, NothingToCheck, Report, many
from jit_approval.audit.notes import NoteError, Verifier
from jit_approval.audit.origins import State
from jit_approval.audit.proofs import Proven
from jit_approval.audit.records import Record
from jit_approval.audit.spill import Spill
from jit_approval.audit.trust import Trust

STATEMENT = b'{"note":'


class Selection:
    """A file of such lines, read twice: who signed comes first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = 0
        """Bytes of events read so far."""

    def size(self) -> int:
        """Return its length in bytes."""
        return self.path.stat().st_size

    def verify(self, keys: Sequence[Verifier], events: Iterable[bytes] | None = None) -> Report:
        """Check all of it. `events`: its lines, where somebody wants to watch them being read.

        Raises:
            OSError: it cannot be read.
            LibraryMissing: no signature can be verified here.
            NothingToCheck: no line of it is of a selection.
        """
        report = Report(what="selection")
        trust, roots, strange = Trust(report, keys), dict[int, bytes](), set[int]()
        is_one = False
        for line in self._lines():
            if line.startswith(STATEMENT):
                is_one = True
                _read_statement(report, trust, line, roots, strange)
        trust.finish()
        reader = _Reader(report, roots, strange)
        try:
            for line in self.lines() if events is None else events:
                reader.read(line)
            if not is_one and not reader.is_any_read:
                raise NothingToCheck(self._why_not())
            reader.finish()
        finally:
            reader.close()
        return report

    def lines(self) -> Iterator[bytes]:
        """Return the lines that are no statements."""
        self.done = 0
        for line in self._lines():
            self.done += len(line)
            if not line.startswith(STATEMENT):
                yield line

    def _why_not(self) -> str:
        first = next(self._lines(), b"")
        if not first:
            return "it is empty"
        if b'"class_uid":' in first:
            return "these are events as OCSF has them: those with proofs are exported as jsonl"
        return "it is no selection of events, and no receipt"

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while line := file.readline(records.MAX_LINE):
                yield line


def unsealed_line(record: Record) -> bytes:
    """Return the line of an event that has no place yet."""
    found = {"previous": record.previous, "hash": record.hash, "body": record.body}
    if record.origin is not None:
        found["origin"] = record.origin
    return f"{json.dumps(found, ensure_ascii=False, separators=(',', ':'))}\n".encode()


def _parse_unsealed(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
        record = records.of(found, 0)
        sound = records.is_sound(record) and record.body is not None
        return record if sound and unsealed_line(record) == line else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read_statement(
    report: Report, trust: Trust, line: bytes, roots: dict[int, bytes], strange: set[int]
) -> None:
    """Read a statement: of what size the root is, or of what size nobody who is trusted says one."""
    note = folder.parse_note(line)
    if note is None:
        report.add(Kind.ALTERED, None, "a statement of the signer cannot be read")
        return
    statement = trust.read(note)
    if statement is None:
        strange.update(_size(note))
    if not isinstance(statement, Checkpoint):
        return
    if roots.setdefault(statement.size, statement.root) != statement.root:
        what = f"two checkpoints over {many(statement.size, 'event')} are not the same: the trail was split"
        report.add(Kind.ALTERED, None, what)


def _size(note: str) -> Iterator[int]:
    """Return the size that a note states, believed or not."""
    try:
        statement = checkpoints.parse(notes.split(note)[0])
    except NoteError:
        return
    if isinstance(statement, Checkpoint):
        yield statement.size


class _Reader:
    """The events of a selection, one after the other."""

    def __init__(self, report: Report, roots: dict[int, bytes], strange: set[int]) -> None:
        self._report, self._roots, self._strange = report, roots, strange
        self._known = Spill()
        self._waiting = self._verified = self._bare = 0
        self.is_any_read = False
        """Whether any line was an event, right or wrong."""

    def read(self, line: bytes) -> None:
        """Check one event."""
        self._report.events += 1
        if (proven := proofs.parse(line)) is not None:
            self.is_any_read = True
            self._check(proven)
        elif (record := _parse_unsealed(line)) is not None:
            self.is_any_read = True
            self._wait(record)
        else:
            what = f"line {self._report.events} of the events cannot be read"
            self._report.add(Kind.ALTERED, None, what)

    def finish(self) -> None:
        """Say how much is verified, and what is not."""
        report = self._report
        report.verified = self._verified
        report.unsealed = self._waiting
        if self._bare:
            have = "has" if self._bare == 1 else "have"
            bare = f"{many(self._bare, 'event')} {have} no content"
            report.unfinished.append(f"{bare}: the whole trail tells by whose authority")
        if not self._roots and not self._strange:
            report.unfinished.append("there is no checkpoint")

    def close(self) -> None:
        """Give back what reading took."""
        self._known.close()

    def _check(self, proven: Proven) -> None:
        record, root = proven.record, self._roots.get(proven.size)
        if record.body is None:
            self._bare += 1
        elif not proofs.is_content_of(record):
            what = "its content is not what its hash says"
            self._report.add(Kind.ALTERED, record.index, what)
            return
        if not self._has_its_origin(record, record.index):
            return
        if root is None and proven.size in self._strange:
            return  # of which it was said that nobody can judge it, or that it is not signed
        if root is None:
            what = f"the checkpoint over {many(proven.size, 'event')}, which it names, is not here"
            self._report.add(Kind.MISSING, record.index, what)
        elif not proven.is_under(root):
            self._report.add(Kind.ALTERED, record.index, "it is not in the tree that was signed")
        else:
            self._verified += 1
            self._waiting -= self._known.get(record.hash) == b"waiting"
            self._known.put(record.hash, b"sealed")

    def _wait(self, record: Record) -> None:
        if not proofs.is_content_of(record):
            what = "an event that was not sealed: its content is not what its hash says"
            self._report.add(Kind.ALTERED, None, what)
        elif self._has_its_origin(record, None) and self._known.get(record.hash) is None:
            self._waiting += 1
            self._known.put(record.hash, b"waiting")

    def _has_its_origin(self, record: Record, index: int | None) -> bool:
        """Tell whether the address that goes with it is the one it commits to, or was left out."""
        state = proofs.origin_state(record)
        if state is State.FORGED:
            self._report.add(Kind.ALTERED, index, FORGED)
        self._report.withheld += state is State.WITHHELD
        return state is not State.FORGED

"""The verification itself, over events and statements from wherever they come: an export, or the database.

It reads once, from the first event on, in little memory. Three things are checked: each event is what its hash says
and follows the event before it of the same request; all together are the tree that was signed; and each statement
follows the one before it and is vouched for by a key that was given, or that a trusted key named its successor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from jit_approval.audit import checkpoints, merkle, notes, origins, records
from jit_approval.audit.acts import Acts
from jit_approval.audit.checkpoints import Checkpoint
from jit_approval.audit.findings import FORGED, Kind, Report, many
from jit_approval.audit.links import digest
from jit_approval.audit.notes import NoteError, Verifier
from jit_approval.audit.origins import State
from jit_approval.audit.ranges import Ranges, total
from jit_approval.audit.records import Record
from jit_approval.audit.spill import Spill
from jit_approval.audit.statements import Statements

Source = Iterator[Record | None]
"""Events in order; None stands for one that cannot be read."""


def verify(
    events: Source,
    statements: Iterable[str],
    keys: Sequence[Verifier],
    kept: str | None = None,
    announced: Callable[[], Iterable[tuple[int, int]]] = tuple,
) -> Report:
    """Check a whole trail. `kept` is a checkpoint, as a note, that was kept elsewhere.

    `announced`, asked when all events were read, names what acts of erasure have emptied that are not signed yet.

    Raises:
        NoteError: `kept` is no checkpoint, or one of another trail.
        LibraryMissing: no signature can be verified here.
    """
    report = Report()
    elsewhere = _read_kept(kept)
    digest_kept = checkpoints.digest(elsewhere.text()) if elsewhere else None
    signed = Statements(report, keys, digest_kept)
    trail = Trail(report, elsewhere.size if elsewhere else None)
    last: Checkpoint | None = None
    try:
        for note in statements:
            statement = signed.read(note)
            if isinstance(statement, Checkpoint):
                trail.read(events, statement.size)
                trail.compare(statement)
                last = statement
            # Whoever believes a change of keys believes the checkpoint before it, which it names by its digest.
            if last is not None and signed.is_believed and trail.is_whole:
                _agree(report, last)
        signed.finish()
        report.unsealed = trail.read(events, None)
        # Where no key can judge, an act of erasure is taken at its word, and nothing is said to be right.
        believed = records.MOST if signed.is_strange else report.verified
        trail.finish(believed, announced())
        if signed.is_strange:
            report.erased, report.acts = 0, []
        if elsewhere is not None and kept is not None:
            _ensure_same_trail(elsewhere, signed.origin)
            _compare_kept(report, trail, signed, kept, elsewhere)
    finally:
        trail.close()
    report.origin = signed.origin
    report.keys = [str(key) for key in signed.trusted]
    return report


def _agree(report: Report, checkpoint: Checkpoint) -> None:
    """Take all before a believed checkpoint as verified, unless something was found to be wrong."""
    if report.is_sound:
        report.verified, report.root = checkpoint.size, checkpoint.root.hex()
        report.time = checkpoint.time


def _ensure_same_trail(kept: Checkpoint, origin: str) -> None:
    if origin and kept.origin != origin:
        raise NoteError(f"it is about another trail, {kept.origin}")


def _compare_kept(
    report: Report, trail: Trail, signed: Statements, note: str, kept: Checkpoint
) -> None:
    """Compare the trail with a checkpoint kept elsewhere, if somebody who is trusted vouches for that.

    So does who signed it; and, where it is among the statements, who vouches for these: a key that came later.
    """
    by_known = notes.is_signed_by_one_of(note, signed.trusted)
    if by_known and not _is_vouched_for(note, signed.trusted):
        report.add(Kind.UNSIGNED, None, "the checkpoint kept elsewhere: its signature is wrong")
    elif by_known or (signed.has_kept and not signed.is_strange):
        trail.compare_kept(kept, signed.has_kept)
        if signed.is_strange:
            # Somebody has replaced them all: a key that was given signed the one kept, and none of these.
            report.add(
                Kind.UNSIGNED, None, "the statements of the signer: no key given signed them"
            )
    else:
        what = "the checkpoint kept elsewhere: no key given, nor one that it named, signed it"
        report.unjudged.append(what)


def _is_vouched_for(note: str, keys: Sequence[Verifier]) -> bool:
    try:
        checkpoints.opened(note, keys)
    except NoteError:
        return False
    return True


def _read_kept(kept: str | None) -> Checkpoint | None:
    if kept is None:
        return None
    statement = checkpoints.parse(notes.split(kept)[0])
    if not isinstance(statement, Checkpoint):
        raise NoteError("it is no checkpoint")
    return statement


class Trail:
    """The events of a trail, one after the other, and the tree they make."""

    def __init__(self, report: Report, kept: int | None) -> None:
        self._report = report
        self._tree = merkle.Frontier()
        self._heads = Spill()
        self._next = 0
        self._gaps = Ranges()
        self._bare, self._authorised = Ranges(), Ranges()
        self._acts = Acts()
        self._kept, self._kept_root = kept, merkle.EMPTY_ROOT if kept == 0 else None
        self._compared = 0
        self.is_whole = True
        """Whether the tree is that of all events so far: each was there, in its place."""

    def read(self, events: Source, until: int | None) -> int:
        """Read the events before the place `until`, or all; return how many there were."""
        count = 0
        while until is None or self._next < until:
            try:
                record = next(events)
            except StopIteration:
                break
            count += 1
            self._take(record)
        self._report.events += count
        return count

    def compare(self, checkpoint: Checkpoint) -> None:
        """Compare the tree with what was signed of it."""
        if self._next < checkpoint.size:
            if self._report.counts[Kind.TRUNCATED] == 0:
                self._report.add(
                    Kind.TRUNCATED,
                    self._next,
                    f"it and all after it are gone: {checkpoint.size} were signed",
                )
            self.is_whole = False
        if not self.is_whole or checkpoint.size < self._compared:
            return
        if self._tree.root() != checkpoint.root or self._tree.size != checkpoint.size:
            self.is_whole = False
            self._report.add(
                Kind.ALTERED,
                self._compared,
                f"it, or one after it and before event {checkpoint.size}, is not what was signed",
                is_exact=False,
            )
        self._compared = checkpoint.size

    def compare_kept(self, kept: Checkpoint, is_there: bool) -> None:
        """Compare the tree with a checkpoint kept elsewhere: only that shows that its end was not cut off."""
        self._report.truncation_checked = True
        if kept.size > self._next:
            self._report.add(
                Kind.TRUNCATED,
                self._next,
                f"it and all after it are gone: the checkpoint kept elsewhere has {kept.size}",
            )
        elif self._kept_root is not None and self._kept_root != kept.root:
            self._report.add(
                Kind.ALTERED,
                0,
                f"it, or one after it and before event {kept.size}, is not what the checkpoint kept elsewhere has",
                is_exact=False,
            )
        elif not is_there:
            what = "the checkpoint kept elsewhere is not among these: their end was cut off, or is another"
            self._report.add(Kind.TRUNCATED, None, what)

    def finish(self, verified: int, announced: Iterable[tuple[int, int]]) -> None:
        """Say what is missing, and what was erased by authority, or waits for that to be signed."""
        for begin, end in self._gaps:
            self._report.add(Kind.MISSING, begin, _stretch(begin, end, "is not there"))
        # Before anything is believed of an act of erasure, it must itself have been signed.
        self._report.acts = [act for act in self._acts.found if act.index < verified]
        for act in self._report.acts:
            for begin, end in act.leaves:
                self._authorised.add(begin, min(end, act.index))
        unnamed = total(self._bare.without(self._authorised))
        self._report.erased = len(self._bare) - unnamed
        for begin, end in announced:
            self._authorised.add(begin, end)
        bare = list(self._bare.without(self._authorised))
        if waiting := unnamed - total(bare):
            have = "has" if waiting == 1 else "have"
            self._report.unfinished.append(
                f"{many(waiting, 'event')} {have} no content, and the act of erasure is not signed yet"
            )
        for begin, end in bare:
            self._report.add(
                Kind.MISSING,
                begin,
                _stretch(begin, end, "has no content, and no act of erasure names it"),
            )

    def close(self) -> None:
        """Give back what reading took."""
        self._heads.close()

    def _take(self, record: Record | None) -> None:
        if record is None:
            self._report.add(Kind.ALTERED, self._next, "it cannot be read")
            self._next += 1
            self.is_whole = False
            return
        if record.index != self._next and not self._place(record.index):
            return
        self._next = record.index + 1
        self._check(record)
        if self.is_whole:
            self._tree.append(merkle.leaf_hash(record.leaf))
            if self._tree.size == self._kept:
                self._kept_root = self._tree.root()

    def _place(self, index: int) -> bool:
        """Deal with an event that is not in its place; tell whether to go on from it."""
        self.is_whole = False
        if index > self._next:
            self._gaps.add(self._next, index)
            return True
        kind, what = (
            (Kind.REORDERED, "it comes too late")
            if self._gaps.discard(index)
            else (Kind.REORDERED, "it is there twice")
        )
        self._report.add(kind, index, f"{what}, where event {self._next} should be")
        return False

    def _check(self, record: Record) -> None:
        if record.body is None:
            self._bare.add(record.index, record.index + 1)
            if record.origin is not None:
                self._report.add(Kind.ALTERED, record.index, FORGED)
            self._heads.put(f"erased {record.hash}", b"")
            return
        try:
            matches = digest(record.previous, record.body) == record.hash
            body = json.loads(record.body)
            request, sequence, _ = body["request"], body["sequence"], body["kind"]
        except (ValueError, KeyError, TypeError, RecursionError):
            matches, request, sequence = False, None, 1
        if not matches:
            self._report.add(Kind.ALTERED, record.index, "its content is not what its hash says")
            return
        self._link(record, request, sequence)
        self._check_origin(record, body)
        self._acts.read(record.index, body)

    def _check_origin(self, record: Record, body: Any) -> None:
        """Check the address that goes with an event. A whole trail leaves none out: erasure takes it with all else."""
        state = origins.state(record.origin, body)
        if state is State.FORGED:
            self._report.add(Kind.ALTERED, record.index, FORGED)
        elif state is State.WITHHELD:
            self._report.add(Kind.MISSING, record.index, "the address that goes with it is gone")

    def _link(self, record: Record, request: Any, sequence: Any) -> None:
        """Check that an event follows the one before it of the same request."""
        if request is None:
            if sequence != 1 or record.previous:
                self._report.add(
                    Kind.ALTERED, record.index, "it belongs to no request, and follows another"
                )
            return
        name = str(request) if str(request).isascii() else ascii(request)
        found = self._heads.get(f"request {name}")
        last, place, head = _end(found) if found else (0, None, "")
        if type(sequence) is not int or not 0 < sequence < 2**63:
            self._report.add(Kind.ALTERED, record.index, "it has no number")
            return
        self._heads.put(
            f"request {name}", sequence.to_bytes(8) + record.index.to_bytes(8) + record.leaf
        )
        if (sequence, record.previous) == (last + 1, head):
            return
        # What was erased tells no more whose it was; it is still known by its hash.
        if sequence > last + 1 and record.previous and self._is_erased(record.previous):
            return
        which = f"of request {name}, number {sequence}, after number {last}"
        if sequence > last + 1:
            self._report.add(Kind.MISSING, record.index, f"those before it are not there: {which}")
        elif sequence <= last:
            self._report.add(Kind.REORDERED, record.index, f"it comes too late: {which}")
        else:
            what = (
                "it was changed"
                if place is None
                else f"it, or event {place} before it, was changed"
            )
            self._report.add(Kind.ALTERED, record.index, f"{what}: {which}")

    def _is_erased(self, previous: str) -> bool:
        return self._heads.get(f"erased {previous}") is not None


def _end(found: bytes) -> tuple[int, int, str]:
    """Return of a request's last event its number, its place in the trail, and its hash."""
    return int.from_bytes(found[:8]), int.from_bytes(found[8:16]), found[16:].hex()


def _stretch(begin: int, end: int, what: str) -> str:
    more = end - begin - 1
    return f"it {what}" + (f", nor the {more} after it" if more else "")


def moment(time: int) -> str:
    """Return seconds since 1970 as people read them, in UTC."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(time)

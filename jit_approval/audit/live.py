"""The same verification on the live database, and what only the database can tell: what was never sealed.

An export shows what was signed. Here, too, the columns that lists and filters read are compared with the events that
were hashed, and each request with the end of its chain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from django.db.models import Exists, F, Max, Min, OuterRef, Q

from jit_approval import clock, conf
from jit_approval.audit import acts, checking, columns, legible, marks, merkle, places, rows
from jit_approval.audit.findings import Kind, Report, many
from jit_approval.audit.links import digest
from jit_approval.audit.notes import Verifier
from jit_approval.audit.records import Record, is_hash
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead

_CHUNK = 1000
_MOST = 10_000

Found = tuple[Kind, int | None, str]
_Row = TypeVar("_Row")


@legible.reading
def verify(
    keys: Sequence[Verifier],
    kept: str | None = None,
    *,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Check the trail in the database, sealed and not; `kept` is a checkpoint that was kept elsewhere.

    `watch` is told again and again how many events are done, of how many.

    Raises:
        NoteError: `kept` is no checkpoint, or one of another trail.
        LibraryMissing: no signature can be verified here.
    """
    alias = places.database()
    # Before the events are read: what is sealed meanwhile is looked at the next time.
    last = Checkpoint.objects.using(alias).order_by("-number").values_list("number", "size").first()
    number, size = last or (-1, 0)
    uncovered = _uncovered(alias, size)
    found: list[Found] = []
    head, beyond = _ends(alias, found)
    report = checking.verify(
        # Not as far as a row says, which may be any number, but as there are places.
        _events(size, head, found, _sealed(alias, min(max(size, head), beyond), watch)),
        _statements(alias, number, found),
        keys,
        kept,
        lambda: _announced(alias, size),
    )
    for each in [*found, *_unlinked(alias), *_orphaned(alias), *_unsealed(alias)]:
        report.add(*each)
    for each in rows.differing(alias):
        report.add(*each)
    report.unsealed, report.unsealed_since = uncovered
    report.unfinished += _late(alias, size)
    report.warnings += _unapproved(report)
    return report


def _uncovered(alias: str, size: int) -> tuple[int, int | None]:
    """Return how many events no signature covers, sealed or not, and the time of the oldest in seconds since 1970."""
    waiting = places.waiting(alias).order_by()
    sealed = AuditEvent.objects.using(alias).filter(seal__gte=size)
    count = waiting.count() + sealed.count()
    try:
        oldest = [each.aggregate(since=Min("at"))["since"] for each in (waiting, sealed)]
    except (ValueError, TypeError, AttributeError):
        return count, None  # it cannot be read, which is found elsewhere
    times = [int(at.timestamp()) for at in oldest if at is not None]
    return count, min(times, default=None)


def _unapproved(report: Report) -> Iterator[str]:
    """Say of how many acts of erasure nobody's approval is known, where that is asked for now; before, it was not."""
    config = conf.get()
    if config.GATE_ERASURE or config.GATE_POLICY_CHANGES:
        for act in report.acts:
            if not act.is_approved:
                yield f"erased without an approval that this trail shows: {act}"


def _late(alias: str, size: int) -> Iterator[str]:
    """Say what should have been sealed, or signed, by now; not asking the row that says up to where all is sealed."""
    minutes = f"more than {int(marks.LATE.total_seconds() // 60)} minutes"
    now = clock.now(alias)
    if waiting := places.waiting(alias).filter(marks.is_late(now)).count():
        have = "has" if waiting == 1 else "have"
        yield f"{many(waiting, 'event')} {have} waited for {minutes} to be sealed"
    unsigned = (
        Seal.objects.using(alias).filter(pk__gte=size, event__at__lt=now - marks.LATE).count()
    )
    if unsigned:
        have = "has" if unsigned == 1 else "have"
        yield f"{many(unsigned, 'event')} {have} waited for {minutes} to be signed"


def _announced(alias: str, size: int) -> Iterator[tuple[int, int]]:
    """Return the places that acts of erasure name which no signature covers yet."""
    rows = AuditEvent.objects.using(alias).filter(kind=acts.ERASED)
    for event in rows.filter(Q(seal=None) | Q(seal__gte=size)):
        if columns.are_hashed(event) and columns.are_of_event(event):
            yield from acts.leaves(json.loads(event.body))


def _ends(alias: str, found: list[Found]) -> tuple[int, int]:
    """Return how far it is sealed, signed or not, and the place after the last one; which may not be beyond that."""
    last = Seal.objects.using(alias).aggregate(last=Max("pk"))["last"]
    head = TreeHead.objects.using(alias).values_list("size", flat=True).first() or 0
    if last is not None and last >= head:
        found.append((Kind.ALTERED, last, f"it has a place, and no more than {head} were given"))
    return head, 0 if last is None else last + 1


def _statements(alias: str, last: int, found: list[Found]) -> Iterator[str]:
    """Return what was stated, in order; note what an export would not show."""
    rows = Checkpoint.objects.using(alias).filter(number__lte=last).order_by("number")
    size = 0
    for number, row in enumerate(_readable(rows.iterator(), found)):
        if len(found) < _MOST and not columns.are_of_statement(row, number, size):
            what = f"statement {number + 1} of the signer: its columns are not what it says"
            found.append((Kind.ALTERED, None, what))
        size = row.size
        yield row.note


def _readable(rows: Iterator[_Row], found: list[Found]) -> Iterator[_Row]:
    """Return the rows up to one that cannot be read: SQLite keeps whatever is written."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except (ValueError, TypeError, AttributeError) as error:
            found.append((Kind.ALTERED, None, f"a row of the database cannot be read: {error}"))
            return
        yield row


def _events(
    size: int, head: int, found: list[Found], rows: Iterator[Seal]
) -> Iterator[Record | None]:
    """Return what is signed, in order; note what an export would not show, up to what is sealed."""
    tree: merkle.Frontier | None = merkle.Frontier()
    expected = 0
    for row in _readable(rows, found):
        if row.index > max(expected, size):
            found.append((Kind.MISSING, max(expected, size), "it has lost its place"))
        expected = row.index + 1
        if not is_hash(row.event.hash):
            tree = None
            if row.index < size:
                yield None
            continue
        if tree is not None and row.index == tree.size:
            completed = tree.append(places.leaf(row.event))
            if b"".join(completed) != bytes(row.nodes):
                found.append(
                    (Kind.ALTERED, row.index, "its seal has not the hashes that it should")
                )
                tree = None
        else:
            tree = None
        # Where all of it was changed, so many are enough.
        if len(found) < _MOST and not columns.are_of_event(row.event):
            found.append((Kind.ALTERED, row.index, "its columns are not what its content says"))
        if row.index < size:
            yield places.record(row)
    if size <= expected < head:
        found.append((Kind.MISSING, expected, "it, and all after it, have lost their places"))


def _sealed(alias: str, end: int, watch: Callable[[int, int], None]) -> Iterator[Seal]:
    for first in range(0, end, _CHUNK):
        watch(first, end)
        rows = Seal.objects.using(alias).filter(pk__gte=first, pk__lt=min(first + _CHUNK, end))
        yield from rows.select_related("event").order_by("pk")


def _unlinked(alias: str) -> Iterator[Found]:
    """Check each request's chain, sealed or not, up to the head that the request has."""
    rows = (
        AuditEvent.objects.using(alias)
        .filter(approval_request__isnull=False)
        .order_by("approval_request_id", "sequence")
        .values_list(
            "approval_request_id",
            "sequence",
            "previous_hash",
            "hash",
            "body",
            F("approval_request__audit_seq"),
            F("approval_request__audit_head"),
        )
    )
    request: Any = None
    sequence, head, end = 0, "", (0, "")
    is_broken = False
    found: list[Found] = []
    for row in _readable(rows.iterator(), found):
        if row[0] != request:
            if not is_broken and (sequence, head) != end:
                yield _short(request, sequence, end[0])
            request, sequence, head, end, is_broken = row[0], 0, "", (row[5], row[6]), False
        sequence += 1
        # Whether what is empty was erased by authority is looked at where it is sealed: see `_unsealed`.
        is_own = not row[4] or digest(row[2], row[4]) == row[3]
        sound = row[1] == sequence and row[2] == head and is_own
        if not sound and not is_broken:
            is_broken = True
            yield Kind.ALTERED, None, f"the chain of request {request} breaks at number {sequence}"
        head = row[3]
    if not is_broken and (sequence, head) != end:
        yield _short(request, sequence, end[0])
    for pk in (
        ApprovalRequest.objects.using(alias).filter(audit_events=None).values_list("pk", flat=True)
    ):
        yield Kind.MISSING, None, f"request {pk} has no events"
    yield from found


def _orphaned(alias: str) -> Iterator[Found]:
    """Name requests of which only events are left."""
    request = ApprovalRequest.objects.using(alias).filter(pk=OuterRef("approval_request_id"))
    rows = AuditEvent.objects.using(alias).filter(~Exists(request), approval_request__isnull=False)
    found: list[Found] = []
    keys = rows.order_by().values_list("approval_request_id", flat=True).distinct()
    for pk in _readable(keys.iterator(), found):
        yield Kind.MISSING, None, f"request {pk} is gone; its events are there"
    yield from found


def _unsealed(alias: str) -> Iterator[Found]:
    """Check events that were never sealed. What has no content is named by nothing that is signed."""
    found: list[Found] = []
    for event in _readable(places.waiting(alias).defer(None).iterator(), found):
        name = f"event number {event.pk} of the database, which is not sealed"
        if not event.body:
            yield Kind.MISSING, None, f"{name}, was emptied"
        elif not columns.are_of_event(event):
            yield Kind.ALTERED, None, f"{name}: its columns are not what its content says"
        elif event.approval_request_id is None and (
            event.previous_hash or not columns.are_hashed(event)
        ):
            yield Kind.ALTERED, None, f"{name}: its content is not what its hash says"
    yield from found


def _short(request: Any, sequence: int, end: int) -> Found:
    text = f"the chain of request {request} ends at number {sequence}, and should at {end}"
    return (Kind.MISSING if sequence < end else Kind.ALTERED), None, text

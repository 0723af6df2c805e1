"""The same verification on the live database, and what only the database can tell: what was never sealed.

An export shows what was signed. Here, too, the columns that lists and filters read are compared with the events that
were hashed, and each request with the end of its chain.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from typing import Any

from django.db.models import F

from jit_approval.audit import checking, merkle, places
from jit_approval.audit.findings import Kind, Report, many
from jit_approval.audit.links import digest
from jit_approval.audit.notes import Verifier
from jit_approval.audit.records import Record, is_hash
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal

_CHUNK = 1000
_MOST = 10_000


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
    found: list[tuple[Kind, int | None, str]] = []
    report = checking.verify(
        _events(alias, size, found, watch), _statements(alias, number), keys, kept
    )
    for each in [*found, *_unlinked(alias), *_bare(alias)]:
        report.add(*each)
    waiting = places.late(alias)
    if waiting:
        minutes = int(places.LATE.total_seconds() // 60)
        have = "has" if waiting == 1 else "have"
        report.unfinished.append(
            f"{many(waiting, 'event')} {have} waited for more than {minutes} minutes to be sealed"
        )
    return report


def _statements(alias: str, last: int) -> Iterator[str]:
    rows = Checkpoint.objects.using(alias).filter(number__lte=last).order_by("number")
    return (row.note for row in rows.iterator())


def _events(
    alias: str,
    size: int,
    found: list[tuple[Kind, int | None, str]],
    watch: Callable[[int, int], None],
) -> Iterator[Record | None]:
    """Return what is sealed, in order; note what an export would not show."""
    tree: merkle.Frontier | None = merkle.Frontier()
    for first in range(0, size, _CHUNK):
        watch(first, size)
        rows = Seal.objects.using(alias).filter(pk__gte=first, pk__lt=min(first + _CHUNK, size))
        for row in rows.select_related("event").order_by("pk"):
            if not is_hash(row.event.hash):
                tree = None
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
            if len(found) < _MOST and row.event.body and not _agrees(row.event):
                found.append((Kind.ALTERED, row.index, "its columns are not what its content says"))
            yield places.record(row)


def _agrees(event: AuditEvent) -> bool:
    """Tell whether the columns of an event say what its content says."""
    at = event.at.astimezone(UTC).isoformat(timespec="microseconds")
    request = str(event.approval_request_id) if event.approval_request_id else None
    columns = (event.sequence, event.kind, at, event.actor_label, event.source, event.target)
    try:
        said = json.loads(event.body)
        by = said["by"] or {"pk": "", "label": ""}
        content = (said["sequence"], said["kind"], said["at"], by["label"])
        # An account that was removed is not named by a key any more.
        same_actor = event.actor_id is None or str(event.actor_id) == by["pk"]
        return bool(
            columns == (*content, said.get("from", ""), said.get("to", ""))
            and said["request"] == request
            and same_actor
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _unlinked(alias: str) -> Iterator[tuple[Kind, int | None, str]]:
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
    for row in rows.iterator():
        if row[0] != request:
            if not is_broken and (sequence, head) != end:
                yield _short(request, sequence, end[0])
            request, sequence, head, end, is_broken = row[0], 0, "", (row[5], row[6]), False
        sequence += 1
        # Whether what is empty was erased by authority is looked at where it is sealed: see `_bare`.
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


def _bare(alias: str) -> Iterator[tuple[Kind, int | None, str]]:
    """Name events without content that were never sealed: nothing that is signed names them as erased."""
    rows = AuditEvent.objects.using(alias).filter(body="", seal=None).values_list("pk", flat=True)
    for pk in rows.iterator():
        yield (
            Kind.MISSING,
            None,
            f"event number {pk} of the database was emptied before it was sealed",
        )


def _short(request: Any, sequence: int, end: int) -> tuple[Kind, int | None, str]:
    text = f"the chain of request {request} ends at number {sequence}, and should at {end}"
    return (Kind.MISSING if sequence < end else Kind.ALTERED), None, text

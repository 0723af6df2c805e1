"""Which events somebody asks for, page by page and as a file. Never counted, never skipped over: by index alone.

Events are read in the order of their time and key, on from the last one that was seen, so that page ten thousand costs
what the first one does. See `AuditEvent.Meta.indexes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from jit_approval.audit import folder, issuing, ocsf, places, proofs, records, selection
from jit_approval.audit.records import Record
from jit_approval.models import AuditEvent, Checkpoint

FORMATS = ("jsonl", "ocsf")
WINDOW = 20_000
"""Events that are looked through for a text in one go."""

_CHUNK = 500

Events = QuerySet[AuditEvent]


@dataclass(frozen=True)
class Wanted:
    """What is asked for; all of it together. `until` is not among it."""

    kind: str = ""
    by: str = ""
    request: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    place: int | None = None

    def rows(self, alias: str) -> Events:
        """Return the events, in no order."""
        found = AuditEvent.objects.using(alias).order_by()
        if self.kind:
            found = found.filter(kind=self.kind)
        if self.by:
            found = found.filter(actor_label=self.by)
        if self.request is not None:
            found = found.filter(approval_request=self.request)
        if self.since is not None:
            found = found.filter(at__gte=self.since)
        if self.until is not None:
            found = found.filter(at__lt=self.until)
        if self.place is not None:
            found = found.filter(seal__index=self.place)
        return found


@dataclass(frozen=True)
class Mark:
    """Where a page ends: the time and the key of an event."""

    at: datetime
    pk: int

    @classmethod
    def of(cls, event: AuditEvent) -> Mark:
        """Return the mark of an event."""
        return cls(event.at, event.pk)


def older(rows: Events, mark: Mark | None, most: int) -> list[AuditEvent]:
    """Return the newest events before the mark, newest first."""
    if mark is not None:
        # The first half alone tells the database where in the index to begin.
        rows = rows.filter(Q(at__lte=mark.at), Q(at__lt=mark.at) | Q(pk__lt=mark.pk))
    return list(rows.order_by("-at", "-pk")[:most])


def containing(
    rows: Events, text: str, mark: Mark | None, most: int
) -> tuple[list[AuditEvent], AuditEvent | None]:
    """Return the newest events before the mark whose content has this text, of the next `WINDOW` events.

    And the last event of these, if there are more: no index finds text, so that a page of it is looked for only so far.
    """
    before = rows
    if mark is not None:
        before = rows.filter(Q(at__lte=mark.at), Q(at__lt=mark.at) | Q(pk__lt=mark.pk))
    plain = before.select_related(None).only("at", "pk").order_by("-at", "-pk")
    ends = plain[WINDOW - 1 : WINDOW + 1]
    found = list(ends)
    last = found[0] if len(found) > 1 else None
    if last is not None:
        before = before.filter(Q(at__gte=last.at), Q(at__gt=last.at) | Q(pk__gte=last.pk))
    has_it = Q(body__icontains=text) | Q(origin__icontains=text)
    inside = before.filter(has_it).order_by("-at", "-pk")
    return list(inside[:most]), last


def newer(rows: Events, mark: Mark | None, most: int) -> list[AuditEvent]:
    """Return the oldest events after the mark, oldest first."""
    if mark is not None:
        rows = rows.filter(Q(at__gte=mark.at), Q(at__gt=mark.at) | Q(pk__gt=mark.pk))
    return list(rows.order_by("at", "pk")[:most])


def lines(wanted: Wanted, form: str) -> Iterator[bytes]:
    """Return the events as a file: oldest first, as JSON Lines each with its proof, or as `ocsf`.

    JSON Lines begin with the statements they are proven by: the file is verified by the offline command. An event that
    has no place yet says so. In little memory, however many there are.

    Raises:
        Damaged: an event cannot be proven.
    """
    alias = places.database()
    row = Checkpoint.objects.using(alias).filter(kind=Checkpoint.Kind.CHECKPOINT).last()
    size = row.size if row is not None else 0
    if row is not None and form == "jsonl":
        for note in [*issuing.rotations(row, alias), row.note]:
            yield folder.note_line(note)
    mark: Mark | None = None
    rows = wanted.rows(alias).select_related("seal")
    while chunk := newer(rows, mark, _CHUNK):
        yield from _chunk(chunk, size, form, alias)
        mark = Mark.of(chunk[-1])


def _chunk(events: list[AuditEvent], size: int, form: str, alias: str) -> Iterator[bytes]:
    is_in = [event for event in events if _place(event, size) is not None]
    proven = dict(
        zip(
            (event.pk for event in is_in),
            issuing.prove([event.seal for event in is_in], size, alias),
            strict=True,
        )
    )
    for event in events:
        found = proven.get(event.pk)
        record = found.record if found is not None else _unsealed(event)
        if form == "ocsf":
            sealed = found is not None
            yield ocsf.as_line(ocsf.event(found or record, at=event.at, is_sealed=sealed))
        else:
            yield proofs.as_line(found) if found is not None else selection.unsealed_line(record)


def _place(event: AuditEvent, size: int) -> int | None:
    seal = getattr(event, "seal", None)
    return seal.index if seal is not None and seal.index < size else None


def _unsealed(event: AuditEvent) -> Record:
    if not records.is_hash(event.hash):
        raise places.Damaged(f"Event number {event.pk} of the database has no hash.")
    return Record(0, event.hash, event.previous_hash, event.body, event.origin or None)

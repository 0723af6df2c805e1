"""What of the trail is next, as lines of the format that is set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jit_approval import conf
from jit_approval.audit import folder, issuing, ocsf, places, proofs, records, selection
from jit_approval.audit.records import Record
from jit_approval.models import AuditEvent, Checkpoint, Seal

_CHUNK = 500
# Statements looked at in one go: each of them may stand for no event at all.
_STATEMENTS = 100


@dataclass(frozen=True)
class Next:
    """A line, and where the cursor stands once it was taken."""

    line: bytes
    statement: int
    index: int


def sealed(alias: str, statement: int, index: int) -> Iterator[Next]:
    """Return the next lines from a place on: events, each with its proof, then what signs them. Not all there are.

    Raises:
        Damaged: one of them is not there, or cannot be proven.
    """
    rows = Checkpoint.objects.using(alias).filter(number__gte=statement).order_by("number")
    for row in rows[:_STATEMENTS]:
        while row.kind == Checkpoint.Kind.CHECKPOINT and index < row.size:
            end = min(index + _CHUNK, row.size)
            yield from _events(list(places.sealed(alias, index, end)), row, alias)
            index = end
        yield Next(statement_line(row), row.number + 1, index)


def _events(seals: list[Seal], row: Checkpoint, alias: str) -> Iterator[Next]:
    for seal, proven in zip(seals, issuing.prove(seals, row.size, alias), strict=True):
        yield Next(event_line(proven, seal.event), row.number, seal.index + 1)


def event_line(proven: proofs.Proven, event: AuditEvent) -> bytes:
    """Return the line of a sealed event."""
    if conf.get().AUDIT_FORMAT == "ocsf":
        return ocsf.as_line(ocsf.event(proven, at=event.at))
    return proofs.as_line(proven)


def unsealed_line(event: AuditEvent) -> bytes:
    """Return the line of an event that has no place yet.

    Raises:
        Damaged: it cannot be one.
    """
    if not records.is_hash(event.hash):
        raise places.Damaged(f"Event number {event.pk} of the database has no hash.")
    record = Record(0, event.hash, event.previous_hash, event.body, event.origin or None)
    if conf.get().AUDIT_FORMAT == "ocsf":
        return ocsf.as_line(ocsf.event(record, at=event.at, is_sealed=False))
    return selection.unsealed_line(record)


def statement_line(row: Checkpoint) -> bytes:
    """Return the line of a signed statement."""
    if conf.get().AUDIT_FORMAT == "ocsf":
        return ocsf.as_line(ocsf.statement(row.note, number=row.number, at=row.at))
    return folder.note_line(row.note)

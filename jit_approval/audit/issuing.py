"""Receipts from the database: only of calls that ran and ended, and only once all of their events are sealed.

What is handed out was checked like whoever receives it will check it, but for the signature: this process may have
no key. So no receipt leaves that does not verify, unless the database's statements themselves were forged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from jit_approval.audit import checkpoints, notes, places, proofs, receipts
from jit_approval.audit.findings import Report
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal
from jit_approval.states import Outcome, Status


class Why(StrEnum):
    """Why there is no receipt."""

    NOT_RUN = "not_run"
    RUNNING = "running"
    NOT_SEALED = "not_sealed"
    ERASED = "erased"
    DAMAGED = "damaged"

    @property
    def is_for_now(self) -> bool:
        """Whether there may be one later."""
        return self in (Why.RUNNING, Why.NOT_SEALED)


_TEXTS = {
    Why.NOT_RUN: "There is no receipt: the call has not run.",
    Why.RUNNING: "There is no receipt yet: the end of the run is not recorded.",
    Why.NOT_SEALED: "There is no receipt yet: not all of its events are sealed and signed.",
    Why.ERASED: "There is no receipt any more: contents of its events were erased.",
    Why.DAMAGED: "There is no receipt: the events in the database are not those that were signed.",
}


class NoReceiptNow(Exception):
    """There is no receipt, for the reason in `why`."""

    def __init__(self, why: Why) -> None:
        super().__init__(_TEXTS[why])
        self.why = why


def _nothing(event: AuditEvent) -> bool:
    return False


def receipt(
    approval_request: ApprovalRequest, *, shows: Callable[[AuditEvent], bool] = _nothing
) -> dict[str, Any]:
    """Return the receipt of a call that ran, over all of its events until now.

    `shows` tells of which events it says from where they came; what it leaves out is committed to all the same.

    Raises:
        NoReceiptNow: there is none, or none yet.
    """
    if (why := has_not_ended(approval_request)) is not None:
        raise NoReceiptNow(why)
    alias = places.database()
    events = list(_events(approval_request, alias))
    row = _checkpoint(events, alias)
    if any(event.body is None or event.body == "" for event in events):
        raise NoReceiptNow(Why.ERASED)
    try:
        statement = checkpoints.parse(notes.split(row.note)[0])
        if not isinstance(statement, checkpoints.Checkpoint) or statement.size != row.size:
            raise NoReceiptNow(Why.DAMAGED)
        found = prove([event.seal for event in events], row.size, alias)
        made = receipts.compose(found, row.note, rotations(row, alias))
        report = Report(what="receipt")
        receipts.check(report, made, statement)
    except (notes.NoteError, places.Damaged, receipts.NoReceipt):
        raise NoReceiptNow(Why.DAMAGED) from None
    is_whole = len(events) == approval_request.audit_seq
    if not report.is_sound or not is_whole or events[-1].hash != approval_request.audit_head:
        raise NoReceiptNow(Why.DAMAGED)
    for event, found_in in zip(events, made["events"], strict=True):
        # Last: what is not shown was checked as well.
        if not shows(event):
            found_in.pop("origin", None)
    return made


def why_not(approval_request: ApprovalRequest) -> Why | None:
    """Return why there is no receipt, as far as it can be told at a glance; None where there should be one."""
    if (why := has_not_ended(approval_request)) is not None:
        return why
    alias = places.database()
    try:
        _checkpoint(list(_events(approval_request, alias).defer("body", "origin")), alias)
    except NoReceiptNow as error:
        return error.why
    return None


def has_not_ended(approval_request: ApprovalRequest) -> Why | None:
    """Return why there can be no receipt before more happens to the call; None once it ran and ended."""
    if approval_request.status != Status.CONSUMED:
        return Why.NOT_RUN
    if approval_request.outcome in ("", Outcome.RUNNING):
        return Why.RUNNING
    return None


def prove(seals: Sequence[Seal], size: int, alias: str) -> list[proofs.Proven]:
    """Return sealed events with the proofs that they are among the first `size`.

    Raises:
        Damaged: one cannot be proven.
    """
    steps = places.inclusion_proofs(alias, [each.index for each in seals], size)
    return [
        proofs.Proven(places.record(each), size, tuple(proof))
        for each, proof in zip(seals, steps, strict=True)
    ]


def rotations(row: Checkpoint, alias: str) -> list[str]:
    """Return the statements by which the trail came to the key that signed this one."""
    rows = Checkpoint.objects.using(alias).filter(kind=Checkpoint.Kind.ROTATION)
    return list(
        rows.filter(number__lt=row.number).order_by("number").values_list("note", flat=True)
    )


def _events(approval_request: ApprovalRequest, alias: str) -> Any:
    rows = AuditEvent.objects.using(alias).filter(approval_request=approval_request.pk)
    return rows.select_related("seal").order_by("sequence")


def _checkpoint(events: list[AuditEvent], alias: str) -> Checkpoint:
    """Return the newest checkpoint, which must be over all of the events."""
    rows = Checkpoint.objects.using(alias).filter(kind=Checkpoint.Kind.CHECKPOINT)
    row = rows.order_by("-number").first()
    indices = [getattr(getattr(event, "seal", None), "index", None) for event in events]
    if row is None or not indices or any(i is None or i >= row.size for i in indices):
        raise NoReceiptNow(Why.NOT_SEALED)
    return row

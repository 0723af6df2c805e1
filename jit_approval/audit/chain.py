"""Build the next event of a request's hash chain, and check a chain."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jit_approval.audit import origins
from jit_approval.audit.links import canonical, digest
from jit_approval.calls import Origin
from jit_approval.models import ApprovalRequest, AuditEvent

__all__ = ["canonical", "digest", "first_broken", "next_event", "single_event"]


def next_event(
    approval_request: ApprovalRequest,
    kind: str,
    *,
    at: datetime,
    by: Any = None,
    source: str = "",
    target: str = "",
    data: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> AuditEvent:
    """Return the unsaved event that follows the request's head. `by` is None for the system itself."""
    sequence = approval_request.audit_seq + 1
    label = str(by.get_username()) if by is not None else ""
    who, where = _who(str(by.pk), label, origin) if by is not None else (None, "")
    body = canonical(
        {
            "v": 2,
            "request": str(approval_request.pk),
            "salt": _salt(),
            "sequence": sequence,
            "kind": kind,
            "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
            "by": who,
            "from": source,
            "to": target,
            "data": dict(data or {}),
        }
    )
    return AuditEvent(
        approval_request_id=approval_request.pk,
        sequence=sequence,
        kind=kind,
        at=at,
        actor_id=getattr(by, "pk", None),
        actor_label=label,
        source=source,
        target=target,
        body=body,
        origin=where,
        previous_hash=approval_request.audit_head,
        hash=digest(approval_request.audit_head, body),
    )


def single_event(
    kind: str,
    *,
    at: datetime,
    by: Any = None,
    label: str = "",
    data: Mapping[str, Any],
    origin: Origin | None = None,
) -> AuditEvent:
    """Return the unsaved event of something that belongs to no request: a chain of one.

    `label` names who did it where there is no account to name.
    """
    label = str(by.get_username()) if by is not None else label
    who, where = _who(str(getattr(by, "pk", "")), label, origin) if label else (None, "")
    body = canonical(
        {
            "v": 2,
            "request": None,
            "salt": _salt(),
            "sequence": 1,
            "kind": kind,
            "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
            "by": who,
            "data": dict(data),
        }
    )
    return AuditEvent(
        sequence=1,
        kind=kind,
        at=at,
        actor_id=getattr(by, "pk", None),
        actor_label=label,
        body=body,
        origin=where,
        hash=digest("", body),
    )


def _salt() -> str:
    """Return what makes a body impossible to guess from its hash, which stays when the body is erased.

    128 random bits, as hex. It makes two like events at one instant two, besides.
    """
    return secrets.token_hex(16)


def _who(pk: str, label: str, origin: Origin | None) -> tuple[dict[str, str], str]:
    """Return who acted, as the body says it; and from where, which it only commits to."""
    who = {"pk": pk, "label": label}
    if origin is None:
        return who, ""
    if origin.person:
        who["person"] = origin.person
    if origin.credential:
        who["credential"] = origin.credential
    if where := origins.written(origin.ip, origin.user_agent):
        who[origins.COMMITTED] = origins.commitment(where)
    return who, where


def first_broken(events: Iterable[AuditEvent]) -> AuditEvent | None:
    """Return the first event, in order, that does not follow from the one before; None when all do."""
    previous = ""
    for number, event in enumerate(events, start=1):
        sound = (
            event.sequence == number
            and event.previous_hash == previous
            # What was erased is known by its hash alone; by whose authority, the verifier tells.
            and (not event.body or event.hash == digest(previous, event.body))
            and origins.state_in(event.origin, event.body) in origins.WHOLE
        )
        if not sound:
            return event
        previous = event.hash
    return None

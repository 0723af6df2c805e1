"""How a request changes state: a durable transaction, a lock, one conditional UPDATE, and the event that says so.

Private to `services`, which holds the rules, with `opening` and `voting`; to `overdue`, which records what time alone
has ended, and `escalating`, which takes steps before it has, both in `batches`. Nothing else writes `status`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, models, transaction
from django.dispatch import Signal

from jit_approval import clock, conf, policies, prepared, signals, waking
from jit_approval.audit import chain
from jit_approval.calls import Origin
from jit_approval.exceptions import CommentTooLong, IllegalTransition, NotDurable
from jit_approval.models import ApprovalRequest, Notification, StoredCall
from jit_approval.notifications import outbox
from jit_approval.redaction import visible
from jit_approval.states import Execution, Outcome, Status, is_legal

CLOSED: Mapping[str, Any] = {"open_key": None, "due_at": None, "wake_at": None}
_SIGNALS = {
    Status.APPROVED: signals.request_approved,
    Status.REJECTED: signals.request_rejected,
    Status.CANCELLED: signals.request_cancelled,
    Status.REVOKED: signals.request_revoked,
    Status.EXPIRED: signals.request_expired,
    Status.CONSUMED: signals.request_consumed,
}


def now_extra(alias: str) -> prepared.Extra:
    """Return the database's time as a further column, `now`."""
    return "now", clock.now_sql(alias), models.DateTimeField()


_WITH_NOW = prepared.Select(ApprovalRequest, extras=lambda alias: (now_extra(alias),))


@contextmanager
def durable() -> Iterator[str]:
    """Open the transaction of a service: the outermost one, or an error.

    Inside a caller's transaction a rollback would bring a spent approval back to life; with autocommit off
    nothing would be committed at all.
    """
    alias = policies.database()
    ensure_durable(alias)
    with transaction.atomic(using=alias, durable=True):
        yield alias


def ensure_durable(alias: str) -> None:
    """Refuse to go on where a commit would not be one. The wrapping of Django's own TestCase is allowed.

    Raises:
        NotDurable: a transaction is open on `alias`, or autocommit is off.
    """
    connection = connections[alias]
    blocks = connection.atomic_blocks
    if blocks and not getattr(blocks[-1], "_from_testcase", False):
        raise NotDurable(f"A transaction is open on database {alias!r}.")
    if not blocks and not connection.get_autocommit():
        raise NotDurable(f"Autocommit is off on database {alias!r}.")


def locked(pk: UUID, alias: str) -> ApprovalRequest:
    """Read a request with the database's time, and lock it until the transaction ends."""
    return the(_WITH_NOW.rows(using=alias, where={"id": pk}, tail=for_update(alias)))


def is_alive(alias: str) -> bool:
    """Tell whether the connection, and with it the transaction, has survived an error."""
    connection = connections[alias]
    return connection.connection is not None and not connection.needs_rollback


def for_update(alias: str) -> str:
    """Return what makes a SELECT lock its rows on this database."""
    # SQLite locks the whole database: IMMEDIATE did so when the transaction began.
    return "FOR UPDATE" if connections[alias].features.has_select_for_update else ""


def the(rows: list[ApprovalRequest]) -> ApprovalRequest:
    """Return the one row there is; raise DoesNotExist where there is none."""
    if not rows:
        raise ApprovalRequest.DoesNotExist("There is no such approval request.")
    return rows[0]


def ensure_legal(row: ApprovalRequest, target: Status) -> None:
    """Refuse a move the table of states does not have, or that comes too late or too soon."""
    if not is_legal(row.status, target):
        raise IllegalTransition(f"The request is {row.status}; it cannot become {target.value}.")
    late = row.is_overdue(row.now)
    if late is not (target is Status.EXPIRED):
        raise IllegalTransition(
            "The time for this is over." if late else "The request's time is not up yet."
        )


def fit(comment: str) -> str:
    """Return the comment fit to be stored and shown."""
    if len(comment) > conf.get().MAX_REASON_LENGTH:
        raise CommentTooLong(f"A comment has at most {conf.get().MAX_REASON_LENGTH} characters.")
    return visible(comment)


def said(comment: str, by: Any) -> dict[str, str]:
    """Return a comment as part of an event's data, if there is one."""
    if not comment:
        return {}
    # What the system says is its own; it is cut, for nothing may fail for want of room.
    return {"comment": visible(comment)[:500] if by is None else fit(comment)}


def move(
    row: ApprovalRequest,
    *,
    to: Status,
    by: Any,
    alias: str,
    changes: Mapping[str, Any],
    where: Mapping[str, Any] | None = None,
    guards: tuple[str, ...] = (),
    data: Mapping[str, Any] | None = None,
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Write the new status if status, deadline and audit head are as read. Nothing else writes it."""
    ensure_legal(row, to)
    in_time = f"due_at {'<=' if to is Status.EXPIRED else '>'} {clock.now_sql(alias)}"
    source = Status(row.status)
    advance(
        row,
        to.value,
        by=by,
        alias=alias,
        at=row.now,
        data=data or {},
        source=source,
        where={"status": source, **(where or {})},
        guards=(in_time, *guards),
        changes={**changes, "status": to},
        origin=origin,
    )
    if row.execution == Execution.SERVER and to is not Status.APPROVED:
        # Spent or over: from here on nothing is left that could be run.
        StoredCall.objects.using(alias).filter(pk=row.pk).delete()
    event = _told(to)
    if event is not None:
        outbox.write(row, event, at=row.now, using=alias)
    announce(_SIGNALS[to], row, alias)
    return row


def end(
    row: ApprovalRequest,
    *,
    outcome: Outcome,
    alias: str,
    at: datetime,
    response_status: int | None = None,
    exception: str = "",
) -> ApprovalRequest:
    """Write down how a run ended, once; `at` is when, by the database's clock.

    The caller of an ordinary run has the answer and pays for this: its message is left to the next sweep, which
    `wake_at` calls (`escalating`). Others are told by a message of their own at once.

    Raises:
        IllegalTransition: the end of this run has been recorded before.
    """
    exception = exception[:200]
    is_urgent = outcome is Outcome.UNKNOWN or row.execution == Execution.SERVER
    advance(
        row,
        "outcome",
        alias=alias,
        at=at,
        data={"outcome": outcome.value, "status": response_status, "exception": exception},
        where={"status": Status.CONSUMED, "outcome": Outcome.RUNNING},
        changes={
            "outcome": outcome,
            "response_status": response_status,
            "exception": exception,
            "finished_at": at,
            "due_at": None,
            "wake_at": None if is_urgent else at,
        },
    )
    if is_urgent:
        unknown = outcome is Outcome.UNKNOWN
        event = Notification.Event.UNKNOWN if unknown else Notification.Event.CONSUMED
        outbox.write(row, event, at=at, using=alias)
    announce(signals.outcome_recorded, row, alias)
    return row


def advance(
    row: ApprovalRequest,
    kind: str,
    *,
    alias: str,
    at: datetime,
    data: Mapping[str, Any],
    where: Mapping[str, Any],
    guards: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    by: Any = None,
    source: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Change the row and add the event that says so; the audit head is compared, so one writer wins.

    Raises:
        IllegalTransition: the row is not as it was read.
    """
    changes = dict(changes or {})
    target = str(changes.get("status", ""))
    event = chain.next_event(
        row, kind, at=at, by=by, source=source, target=target, data=data, origin=origin
    )
    changes.update(audit_seq=event.sequence, audit_head=event.hash)
    as_read = {"id": row.pk, "audit_seq": row.audit_seq, **where}
    if not prepared.update(ApprovalRequest, changes, using=alias, where=as_read, guards=guards):
        raise IllegalTransition("The request has moved on, or its time is over.")
    prepared.insert(event, using=alias, along=waking.along(row, event.sequence, alias))
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def _told(to: Status) -> Notification.Event | None:
    """Return what people are told of a move. That a call runs is told when it has."""
    return {
        Status.APPROVED: Notification.Event.DECIDED,
        Status.REJECTED: Notification.Event.DECIDED,
        Status.CANCELLED: Notification.Event.CANCELLED,
        Status.EXPIRED: Notification.Event.EXPIRED,
        Status.REVOKED: Notification.Event.REVOKED,
    }.get(to)


def announce(signal: Signal, row: ApprovalRequest, alias: str) -> None:
    """Send a signal once the transaction is committed; a receiver that fails stops nothing."""
    send = partial(signal.send_robust, sender=ApprovalRequest, approval_request=row)
    transaction.on_commit(send, using=alias, robust=True)

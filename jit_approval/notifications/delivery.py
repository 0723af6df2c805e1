"""From the outbox to people: a row per recipient, and each row claimed before it is sent.

The claim is one conditional UPDATE that counts the attempt and moves `next_attempt_at` on by `LEASE`; of tasks
that are doubled or late, one wins it. A message is sent once, with two exceptions: a process that dies, or loses
its database, between sending and writing that down leaves the row waiting, and it is sent again after the lease;
and a mail server that took a message and then reported an error is asked again.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from django.db import transaction
from django.db.models import Case, Exists, OuterRef, QuerySet, Value, When

from jit_approval import policies
from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import email, messages, recipients
from jit_approval.redaction import visible

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    class _Now(TypedDict):
        now: datetime

    Row = WithAnnotations[Notification, _Now]

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
# The first wait; each further one is twice as long, so that the last attempt is an hour after the first.
BACKOFF = timedelta(seconds=30)
# Longer than any one message should take; a claim older than this is taken for a crash.
LEASE = timedelta(minutes=5)

_BATCH = 1000

State = Notification.State


def deliver(pk: int) -> int:
    """Tell everybody an outbox row is for, or the one recipient whose row `pk` is; return how many were told.

    What goes wrong with one recipient is written on that row, and the others are still told.
    """
    close_pointless(_rows().filter(pk=pk))
    row = _waiting().filter(pk=pk).first()
    if row is not None and row.recipient:
        return int(_send(row))
    if row is not None:
        _fan_out(row)
    # One by one and read afresh: by the thousandth, an hour may have passed.
    return sum(deliver(recipient_pk) for recipient_pk in _recipients_due(pk))


def due_since(age: timedelta) -> list[int]:
    """Return the rows whose time came at least `age` ago by the database clock, oldest first."""
    rows = _rows().filter(state=State.WAITING, next_attempt_at__lte=DatabaseNow())
    in_order = rows.annotate(now=DatabaseNow()).order_by("next_attempt_at", "id")
    found = in_order.values_list("pk", "next_attempt_at", "now")[:_BATCH]
    return [pk for pk, due, now in found if now - due >= age]


def close_pointless(rows: QuerySet[Notification] | None = None) -> int:
    """Close the rows nobody needs or nobody can deliver, of `rows` or of all; return how many.

    A held call that is decided or overdue is not announced any more: FAILED if that was tried in vain,
    DROPPED if there was no attempt. A row whose attempts are used up has FAILED.
    """
    rows = _rows() if rows is None else rows
    rows = rows.filter(state=State.WAITING, next_attempt_at__lte=DatabaseNow())
    was_tried = When(attempts__gt=0, then=Value(State.FAILED))
    moot = rows.filter(~_still_pending(), event=Notification.Event.HELD)
    closed = moot.update(state=Case(was_tried, default=Value(State.DROPPED)))
    return closed + rows.filter(attempts__gte=MAX_ATTEMPTS).update(state=State.FAILED)


# --- the pieces ------------------------------------------------------------------------------------------


def _rows() -> QuerySet[Notification]:
    return Notification.objects.using(policies.database())


def _waiting() -> QuerySet[Row]:
    rows = _rows().filter(state=State.WAITING).select_related("approval_request")
    return rows.annotate(now=DatabaseNow())


def _still_pending() -> Exists:
    pending = ApprovalRequest.objects.using(policies.database()).pending()
    return Exists(pending.filter(pk=OuterRef("approval_request_id")))


def _fan_out(row: Row) -> None:
    """Make the recipients' rows; made twice, the second set is ignored by the unique constraint."""
    try:
        assert row.approval_request is not None  # noqa: S101 - alerts have their recipient from the start
        people = list(recipients.of(row.event, row.approval_request))
        if not people:
            logger.warning(
                "Nobody with an address is to be told: %s %s", row.event, row.approval_request_id
            )
        rows = [_for(person, row) for person in people]
        with transaction.atomic(using=policies.database()):
            _rows().bulk_create(rows, batch_size=500, ignore_conflicts=True)
            _rows().filter(pk=row.pk).update(state=State.SENT, sent_at=DatabaseNow())
    except Exception as error:
        row.attempts += 1
        _write_failure(row, error)


def _for(person: recipients.Recipient, row: Row) -> Notification:
    return Notification(
        approval_request_id=row.approval_request_id,
        event=row.event,
        recipient=person.pk,
        address=person.address,
        channel=email.NAME,
        created_at=row.now,
        next_attempt_at=row.now,
    )


def _recipients_due(pk: int) -> list[int]:
    """Return the recipients' rows of the transition whose outbox row is `pk`."""
    outbox_row = _rows().filter(pk=pk, recipient="").first()
    if outbox_row is None:
        return []
    rows = _waiting().exclude(recipient="").filter(next_attempt_at__lte=DatabaseNow())
    return list(
        rows.filter(approval_request_id=outbox_row.approval_request_id, event=outbox_row.event)
        .order_by("id")
        .values_list("pk", flat=True)
    )


def _send(row: Row) -> bool:
    if not _claim(row):
        return False
    try:
        email.send(messages.compose(row, now=row.now), row.address)
    except Exception as error:
        _write_failure(row, error)
        return False
    _rows().filter(pk=row.pk).update(state=State.SENT, sent_at=DatabaseNow(), error="")
    return True


def _claim(row: Row) -> bool:
    """Take the row for this process, if it is still waiting, due, as read, and worth telling."""
    unclaimed = _rows().filter(
        pk=row.pk,
        state=State.WAITING,
        attempts=row.attempts,
        attempts__lt=MAX_ATTEMPTS,
        next_attempt_at__lte=DatabaseNow(),
    )
    if row.event == Notification.Event.HELD:
        unclaimed = unclaimed.filter(_still_pending())
    row.attempts += 1
    return bool(unclaimed.update(attempts=row.attempts, next_attempt_at=row.now + LEASE))


def _write_failure(row: Row, error: Exception) -> None:
    """Note what went wrong, and when to try again, unless this was the last attempt."""
    logger.warning(
        "Could not deliver notification %s (attempt %s)", row.pk, row.attempts, exc_info=error
    )
    last = row.attempts >= MAX_ATTEMPTS
    # Not where a later attempt, by somebody else, has begun.
    unchanged = _rows().filter(pk=row.pk, state=State.WAITING, attempts__lte=row.attempts)
    unchanged.update(
        state=State.FAILED if last else State.WAITING,
        attempts=row.attempts,
        error=visible(f"{type(error).__name__}: {error}")[:500],
        next_attempt_at=row.now + BACKOFF * 2 ** (row.attempts - 1),
    )

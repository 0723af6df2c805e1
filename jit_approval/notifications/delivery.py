"""From the outbox to people: a row per recipient, and each row claimed before it is sent.

The claim is one conditional UPDATE that counts the attempt and moves `next_attempt_at` on by `LEASE`; of tasks
that are doubled or late, one wins it. A message is sent once, with two exceptions: a process that dies, or loses
its database, between sending and writing that down leaves the row waiting, and it is sent again after the lease;
and a mail server, or an endpoint, that took a message and then reported an error is asked again.

Mail is sent on one connection by the task that finds it due. Other channels may take long: each message is handed
to a task of its own.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from jit_approval import policies, prepared, queue
from jit_approval.audit import chain
from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import callbacks, channels, messages, outbox, routing
from jit_approval.notifications.channels import email
from jit_approval.notifications.recipients import ASKS, CHANNEL, EMAIL, Recipient
from jit_approval.notifications.transport import TransportError
from jit_approval.redaction import visible

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

    class _Now(TypedDict):
        now: datetime

    Row = WithAnnotations[Notification, _Now]

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
# The first wait, at most; each further one is twice as long, so that the last attempt is an hour after the first.
BACKOFF = timedelta(seconds=30)
# Longer than any one message should take; a claim older than this is taken for a crash.
LEASE = timedelta(minutes=5)
# The shortest first wait, for calls that are held for seconds, and the longest a receiver may ask for.
_SHORTEST = timedelta(seconds=1)
_LONGEST_ASKED = timedelta(hours=1)
# Attempts on a channel after which the deciders are told in person.
_IN_PERSON_AFTER = 3

_BATCH = 1000
# What is told only while its request stands where it stood.
_PASSING = ASKS | {Notification.Event.EXPIRING, Notification.Event.UNAVAILABLE}

State = Notification.State


def deliver(pk: int) -> int:
    """Tell everybody an outbox row is for, or the one recipient whose row `pk` is; return how many were told.

    What goes wrong with one recipient is written on that row, and the others are still told.
    """
    row = _waiting().filter(pk=pk).first()
    if row is not None and row.recipient:
        return int(_send(row))
    if row is not None and not close_pointless(_rows().filter(pk=pk)):
        _fan_out(row)
    mails, others = _recipients_due(pk)
    here = mails if _hand_over(others, alone=not mails) else mails + others
    with email.session():
        # One by one and read afresh: by the thousandth, an hour may have passed.
        return sum(deliver(recipient_pk) for recipient_pk in here)


def send_again(rows: QuerySet[Notification]) -> int:
    """Let those of these rows that have FAILED start anew, and queue them; return how many.

    A call that nobody has to decide any more is not announced all the same.
    """
    alias, again = policies.database(), 0
    for pk in list(rows.using(alias).filter(state=State.FAILED).values_list("pk", flat=True)):
        with transaction.atomic(using=alias):
            failed = _rows().filter(pk=pk, state=State.FAILED)
            fresh = {"attempts": 0, "error": "", "next_attempt_at": DatabaseNow()}
            if failed.update(state=State.WAITING, **fresh):
                queue.enqueue(outbox.DELIVER, pk, using=alias)
                again += 1
    return again


def due_since(age: timedelta) -> list[int]:
    """Return the rows whose time came at least `age` ago by the database clock, oldest first."""
    rows = _rows().filter(state=State.WAITING, next_attempt_at__lte=DatabaseNow())
    in_order = rows.annotate(now=DatabaseNow()).order_by("next_attempt_at", "id")
    found = in_order.values_list("pk", "next_attempt_at", "now")[:_BATCH]
    return [pk for pk, due, now in found if now - due >= age]


def close_pointless(rows: QuerySet[Notification] | None = None) -> int:
    """Close the rows nobody needs or nobody can deliver, of `rows` or of all; return how many.

    A held call that is decided or overdue is not announced any more, nor the end of what has ended: FAILED if
    that was tried in vain, DROPPED if there was no attempt. A row whose attempts are used up has FAILED.
    """
    rows = _rows() if rows is None else rows
    rows = rows.filter(state=State.WAITING, next_attempt_at__lte=DatabaseNow())
    is_moot = ~_worth_telling()
    closed = rows.filter(is_moot, attempts=0).update(state=State.DROPPED)
    in_vain = is_moot & Q(attempts__gt=0) | Q(attempts__gte=MAX_ATTEMPTS)
    return closed + _give_up(rows.filter(in_vain))


# --- the pieces ------------------------------------------------------------------------------------------


def _give_up(rows: QuerySet[Notification]) -> int:
    """Let rows that were tried in vain have FAILED, each with an event that says so; return how many."""
    count = 0
    for row in list(rows.annotate(now=DatabaseNow())):
        with transaction.atomic(using=policies.database()):
            if rows.filter(pk=row.pk).update(state=State.FAILED):
                _record(row, "message_failed")
                count += 1
    return count


def _record(row: Any, kind: str, error: str = "") -> None:
    """Write that a message was sent, or given up: in the transaction that says so of its row.

    In a chain of its own, for the request's must not move while its call is being decided or run.
    """
    data = {
        "request_id": str(row.approval_request_id or ""),
        "message": row.event,
        "occasion": row.occasion,
        "recipient": row.recipient,
        "address": row.address,
        "channel": row.channel,
        "attempts": row.attempts,
        "error": error,
    }
    event = chain.single_event(kind, at=row.now, data=data)
    prepared.insert(event, using=policies.database())


def _rows() -> QuerySet[Notification]:
    return Notification.objects.using(policies.database())


def _waiting() -> QuerySet[Row]:
    rows = _rows().filter(state=State.WAITING).select_related("approval_request")
    return rows.annotate(now=DatabaseNow())


def _worth_telling() -> Q:
    """Return the condition for messages whose request still stands where it stood when they were written."""
    requests = ApprovalRequest.objects.using(policies.database())
    of_row = {"pk": OuterRef("approval_request_id")}
    asks, nears_its_end = Q(event__in=ASKS), Q(event=Notification.Event.EXPIRING)
    # Of a call that was never opened, the news stays true.
    asks |= Q(event=Notification.Event.UNAVAILABLE, approval_request__isnull=False)
    return (
        ~(asks | nears_its_end)
        | (asks | nears_its_end & Q(occasion=0)) & Exists(requests.pending().filter(**of_row))
        | nears_its_end & Q(occasion=1) & Exists(requests.usable().filter(**of_row))
    )


def _fan_out(row: Row) -> None:
    """Make the recipients' rows; made twice, the second set is ignored by the unique constraint."""
    try:
        assert row.approval_request is not None  # noqa: S101 - alerts have their recipient from the start
        people = routing.of(row.event, row.approval_request, row.occasion)
        if not people and row.event in ASKS:
            logger.warning(
                "Nobody with an address is to be told: %s %s", row.event, row.approval_request_id
            )
        with transaction.atomic(using=policies.database()):
            _write_recipients(row, people)
            _rows().filter(pk=row.pk).update(**_fanned_out(row, people))
    except Exception as error:
        row.attempts += 1
        _write_failure(row, error)


def _fanned_out(row: Row, people: list[Recipient]) -> dict[str, Any]:
    """Return what the outbox row says from now on. A cry for help that nobody hears is a dead letter."""
    if people or row.event != Notification.Event.UNAVAILABLE:
        return {"state": State.SENT, "sent_at": DatabaseNow()}
    return {"state": State.FAILED, "error": outbox.NO_FALLBACK}


def _write_recipients(row: Row, people: list[Recipient]) -> None:
    rows = [_for(person, row) for person in people]
    _rows().bulk_create(rows, batch_size=500, ignore_conflicts=True)


def _for(person: Recipient, row: Row) -> Notification:
    return Notification(
        approval_request_id=row.approval_request_id,
        event=row.event,
        occasion=row.occasion,
        recipient=person.pk,
        address=person.address,
        channel=person.channel,
        # When it happened, however late it is told.
        created_at=row.created_at,
        next_attempt_at=row.now,
    )


def _recipients_due(pk: int) -> tuple[list[int], list[int]]:
    """Return the recipients' rows of the transition whose outbox row is `pk`: by e-mail, and by other ways."""
    outbox_row = _rows().filter(pk=pk, recipient="").first()
    if outbox_row is None:
        return [], []
    rows = _waiting().exclude(recipient="").filter(next_attempt_at__lte=DatabaseNow())
    rows = rows.filter(
        approval_request_id=outbox_row.approval_request_id,
        event=outbox_row.event,
        occasion=outbox_row.occasion,
    ).order_by("id")
    found = list(rows.values_list("pk", "channel"))
    mails = [key for key, channel in found if channel == EMAIL]
    return mails, [key for key, channel in found if channel != EMAIL]


def _hand_over(pks: list[int], *, alone: bool) -> bool:
    """Queue a task for each, so that none waits for another; tell whether that was done.

    What is all there is, is sent at once. What is queued in vain is sent by the sweeper.
    """
    if alone and len(pks) <= 1:
        return False
    alias = policies.database()
    return all([queue.enqueue(outbox.DELIVER, pk, using=alias) for pk in pks])


def _send(row: Row) -> bool:
    if not _claim(row):
        close_pointless(_rows().filter(pk=row.pk))
        return False
    try:
        kind, target = routing.target(row.channel, row.address)
        message = messages.compose(row, now=row.now)
        if callbacks.is_one(row.channel) and row.approval_request is not None:
            message = callbacks.brief(message, row.approval_request)
        channels.find(kind).notify(message, target)
    except Exception as error:
        _write_failure(row, error)
        return False
    with transaction.atomic(using=policies.database()):
        _rows().filter(pk=row.pk).update(state=State.SENT, sent_at=DatabaseNow(), error="")
        _record(row, "message_sent")
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
    if row.event in _PASSING:
        unclaimed = unclaimed.filter(_worth_telling())
    row.attempts += 1
    return bool(unclaimed.update(attempts=row.attempts, next_attempt_at=row.now + LEASE))


def _write_failure(row: Row, error: Exception) -> None:
    """Note what went wrong, and when to try again, unless no attempt is left or could help."""
    transport = error if isinstance(error, TransportError) else None
    # Where a transport fails it says why; anything else may be a fault of the code.
    said = f": {visible(str(error))}" if transport else ""
    logger.warning(
        "Could not deliver notification %s (attempt %s)%s",
        row.pk,
        row.attempts,
        said,
        exc_info=None if transport else error,
    )
    name = "" if transport else f"{type(error).__name__}: "
    text = visible(f"{name}{error}")[:500]
    last = row.attempts >= MAX_ATTEMPTS or (transport is not None and transport.permanent)
    asked = transport.retry_after if transport and transport.retry_after else timedelta(0)
    # Not where a later attempt, by somebody else, has begun.
    unchanged = _rows().filter(pk=row.pk, state=State.WAITING, attempts__lte=row.attempts)
    with transaction.atomic(using=policies.database()):
        is_written = unchanged.update(
            state=State.FAILED if last else State.WAITING,
            attempts=row.attempts,
            error=text,
            next_attempt_at=row.now + max(_wait(row), min(asked, _LONGEST_ASKED)),
        )
        if is_written and last:
            _record(row, "message_failed", text)
    if transport is not None and transport.gone:
        routing.disable(row.channel, text)
    if row.recipient == CHANNEL and (last or row.attempts >= _IN_PERSON_AFTER):
        _tell_in_person(row)


def _wait(row: Row) -> timedelta:
    """Return how long to wait for the next attempt: all of them fit into the time a call is held."""
    first = BACKOFF
    if row.event in _PASSING and row.approval_request is not None:
        held = row.approval_request.decide_by - row.approval_request.created_at
        first = max(_SHORTEST, min(BACKOFF, held / 2**MAX_ATTEMPTS))
    waits: int = 2 ** (row.attempts - 1)
    return first * waits


def _tell_in_person(row: Row) -> None:
    """Tell the deciders by e-mail what no channel of their policy has told them so far."""
    assert row.approval_request is not None  # noqa: S101 - a message to a channel is about a request
    rows = _rows().filter(
        approval_request_id=row.approval_request_id, event=row.event, occasion=row.occasion
    )
    if rows.filter(recipient=CHANNEL, state=State.SENT).exists():
        return
    _write_recipients(row, routing.in_person(row.event, row.approval_request, row.occasion))
    alias = policies.database()
    pks = rows.exclude(recipient__in=("", CHANNEL)).filter(state=State.WAITING)
    for pk in pks.values_list("pk", flat=True):
        queue.enqueue(outbox.DELIVER, pk, using=alias)

"""Who is told of an event: the people who can act on it, as far as they can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.states import Status

Event = Notification.Event
# What those are asked who may decide now; it is told no more once the call is decided or overdue.
ASKS = frozenset({Event.HELD, Event.REMINDER, Event.ESCALATED})
# What stands for the recipient of a message to a whole channel.
CHANNEL = "*"
EMAIL = "email"


@dataclass(frozen=True)
class Recipient:
    """One account and where it is reached; or a channel, where `pk` is `CHANNEL`."""

    pk: str
    address: str
    channel: str = EMAIL


def deciders(event: str, approval_request: ApprovalRequest) -> Iterator[Recipient]:
    """Return the deciders this event is news to."""
    if event in ASKS or event == Event.UNKNOWN or _is_running_out(event, approval_request):
        yield from _reachable(policies.deciders_of(approval_request))
    elif event == Event.DECIDED:
        yield from _reachable(_told_before(approval_request))


def requester(event: str, approval_request: ApprovalRequest) -> Iterator[Recipient]:
    """Return the requester, if this event is news to them: that a call is held, they know."""
    if event not in ASKS and approval_request.requester is not None:
        yield from _reachable([approval_request.requester])


def _is_running_out(event: str, approval_request: ApprovalRequest) -> bool:
    return event == Event.EXPIRING and approval_request.status == Status.PENDING


def _told_before(approval_request: ApprovalRequest) -> QuerySet[Any]:
    """Return those who were asked to decide, and did not: they need not look any more."""
    alias = policies.database()
    asked = Notification.objects.using(alias).filter(
        approval_request_id=approval_request.pk,
        event__in=ASKS,
        state=Notification.State.SENT,
    )
    names = asked.exclude(recipient__in=("", CHANNEL)).values_list("recipient", flat=True)
    decided = [decision.decider_id for decision in approval_request.decisions.all()]
    users = get_user_model()._default_manager.using(alias).filter(pk__in=set(names))
    return users.exclude(pk__in=[pk for pk in decided if pk is not None]).order_by("pk")


def _reachable(users: Any) -> Iterator[Recipient]:
    for user in users:
        address = getattr(user, user.get_email_field_name(), "")
        if address and user.is_active:
            yield Recipient(str(user.pk), address)

"""Write down, in the transition's transaction, that people are to be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jit_approval import prepared, queue
from jit_approval.models import ApprovalRequest, Notification

DELIVER = "jit_approval.tasks.deliver"
NO_FALLBACK = "No fallback address: neither the policy nor the settings name one."


def write(
    approval_request: ApprovalRequest,
    event: Notification.Event,
    *,
    at: datetime,
    using: str,
    occasion: int = 0,
) -> None:
    """Add the outbox row of this transition and queue its delivery.

    `occasion` tells apart what may come more than once: which step of the ladder it is.
    """
    notification = Notification(
        approval_request_id=approval_request.pk,
        event=event,
        occasion=occasion,
        created_at=at,
        next_attempt_at=at,
    )
    prepared.insert(notification, using=using)
    queue.enqueue(DELIVER, notification.pk, using=using)


def alert(facts: Mapping[str, Any], address: str, *, at: datetime, using: str) -> None:
    """Add a message about no request, to one address, and queue its delivery.

    With no address it is kept for the record, as one that could not be sent.
    """
    notification = Notification(
        event=Notification.Event.UNAVAILABLE,
        facts=dict(facts),
        recipient=address or "nobody",
        address=address,
        channel="email",
        state=Notification.State.WAITING if address else Notification.State.FAILED,
        error="" if address else NO_FALLBACK,
        created_at=at,
        next_attempt_at=at,
    )
    prepared.insert(notification, using=using)
    if address:
        queue.enqueue(DELIVER, notification.pk, using=using)

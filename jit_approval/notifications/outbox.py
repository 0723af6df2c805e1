"""Write down, in the transition's transaction, that people are to be told."""

from __future__ import annotations

from datetime import datetime

from jit_approval import prepared, queue
from jit_approval.models import ApprovalRequest, Notification

DELIVER = "jit_approval.tasks.deliver"


def write(
    approval_request: ApprovalRequest, event: Notification.Event, *, at: datetime, using: str
) -> None:
    """Add the outbox row of this transition and queue its delivery."""
    notification = Notification(
        approval_request_id=approval_request.pk, event=event, created_at=at, next_attempt_at=at
    )
    prepared.insert(notification, using=using)
    queue.enqueue(DELIVER, notification.pk, using=using)

"""Requesters' own endpoints: told that the state of their request has changed, and nothing else of it.

Sent as any message is, once per transition and endpoint, signed and retried as webhooks are, and to the open
Internet alone. Who is told fetches the rest, with a credential of their own.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from django.db.models import QuerySet

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Callback, Notification
from jit_approval.notifications.recipients import Recipient
from jit_approval.notifications.transport import Message, Target, TransportError
from jit_approval.secrets import SecretError

KIND = "webhook"
_PREFIX = "callback:"
_Event = Notification.Event
_TELLS = frozenset(
    {
        _Event.DECIDED,
        _Event.EXPIRED,
        _Event.CANCELLED,
        _Event.REVOKED,
        _Event.CONSUMED,
        _Event.UNKNOWN,
    }
)


def recipients(event: str, approval_request: ApprovalRequest) -> list[Recipient]:
    """Return the requester's endpoints, if this event changes the state they see."""
    user = approval_request.requester
    if event not in _TELLS or user is None or not user.is_active:
        return []
    rows = Callback.objects.using(policies.database()).filter(user=user.pk, enabled=True)
    return [Recipient(str(user.pk), "", f"{_PREFIX}{row.pk}") for row in rows]


def is_one(slug: str) -> bool:
    """Tell whether a message goes to such an endpoint. No slug of a channel has a colon."""
    return slug.startswith(_PREFIX)


def target(slug: str) -> Target:
    """Return where the message goes.

    Raises:
        TransportError: the endpoint is gone or disabled, or its secret cannot be decrypted here.
    """
    row = _rows(slug).filter(enabled=True).first()
    if row is None:
        raise TransportError("The callback was deleted or disabled.", permanent=True)
    try:
        return Target(configuration={"url": row.url}, secrets={"secret": row.open_secret()})
    except SecretError as error:
        raise TransportError(str(error)) from None


def brief(message: Message, approval_request: ApprovalRequest) -> Message:
    """Return the message with the id and the state for its only data."""
    data = {
        "approval_id": str(approval_request.pk),
        "status": approval_request.status,
        "outcome": approval_request.outcome or None,
    }
    return replace(message, data=data, subject="", body="", html="")


def disable(slug: str, because: str) -> None:
    """Take the endpoint out of use, for its requester to see why."""
    _rows(slug).update(enabled=False, disabled_because=because)


def _rows(slug: str) -> QuerySet[Callback]:
    return Callback.objects.using(policies.database()).filter(pk=UUID(slug.removeprefix(_PREFIX)))

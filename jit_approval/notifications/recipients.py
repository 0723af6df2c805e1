"""Who is told of an event: the people who can act on it, as far as they can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jit_approval import policies
from jit_approval.models import ApprovalRequest, Notification

Event = Notification.Event
_TELLS_DECIDERS = frozenset({Event.HELD, Event.UNKNOWN})


@dataclass(frozen=True)
class Recipient:
    """One account and where it is reached."""

    pk: str
    address: str


def of(event: str, approval_request: ApprovalRequest) -> Iterator[Recipient]:
    """Return whom to tell, as permissions stand now. A held call is news to its deciders alone."""
    if event in _TELLS_DECIDERS:
        yield from _deciders(approval_request)
    if event != Event.HELD:
        yield from _requester(approval_request)


def _deciders(approval_request: ApprovalRequest) -> Iterator[Recipient]:
    for user in policies.deciders_of(approval_request):
        yield from _reachable(user)


def _requester(approval_request: ApprovalRequest) -> Iterator[Recipient]:
    if approval_request.requester is not None:
        yield from _reachable(approval_request.requester)


def _reachable(user: Any) -> Iterator[Recipient]:
    address = getattr(user, user.get_email_field_name(), "")
    if address and user.is_active:
        yield Recipient(str(user.pk), address)

"""The mark of a call that the server makes itself: which approval it is for, and what came of it.

It is an attribute of the HttpRequest, set by `execution` alone. Nothing a client sends becomes one: headers go to
`META`, where nobody looks for it. It opens nothing by itself; it lets the gate spend one approval that has its mark
on it, after everything that is asked of any call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest

from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome

_MARK = "_jit_approval_ticket"


@dataclass(frozen=True)
class Ended:
    """How the handler ended: the status of its answer, or the class of its exception."""

    outcome: Outcome
    response_status: int | None = None
    exception: str = ""
    elapsed: timedelta | None = None


@dataclass
class Ticket:
    """One approval that one request may spend once. `refused`: why it must not be, for good."""

    approval_id: UUID
    grant: ApprovalRequest | None = None
    ended: Ended | None = None
    refused: str = ""


def mark(http: HttpRequest, ticket: Ticket) -> None:
    """Say that this request is the server's own."""
    vars(http)[_MARK] = ticket


def of(http: Any) -> Ticket | None:
    """Return the mark of a request; None for a caller's own."""
    found = vars(http).get(_MARK)
    return found if isinstance(found, Ticket) else None


def unspent(http: Any) -> Ticket | None:
    """Return the mark of a request whose approval is still to be spent. Afterwards it is like any other."""
    ticket = of(http)
    return ticket if ticket is not None and ticket.grant is None else None

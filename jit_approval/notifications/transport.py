"""What a channel is given, and what it raises. A channel returns when the message is out of our hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Message:
    """One message, in every form a channel may want. Whatever came from outside is escaped in all of them."""

    # The same at every attempt, so that a receiver can tell a repetition.
    id: str
    # `approval.held`, `approval.decided`, …, `approval.test`
    type: str
    # When it happened, and the time of this attempt; both the database's.
    at: datetime
    sent_at: datetime
    # One line, a plain text, and the text as HTML.
    subject: str
    body: str
    html: str = ""
    # For machines: ids, action, policy, requester, deadline, links. Fit for JSON.
    data: Mapping[str, Any] = field(default_factory=dict)
    # What the messages about one request have in common; "" where there is no request.
    thread: str = ""
    severity: str = "normal"


@dataclass(frozen=True)
class Target:
    """Where a message goes: one person's address, or what an administrator configured."""

    address: str = ""
    configuration: Mapping[str, str] = field(default_factory=dict)
    # Never shown, logged, or put into an error.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Field:
    """One thing an administrator tells a channel. `check` raises ValidationError."""

    name: str
    label: Any
    help_text: Any = ""
    required: bool = False
    secret: bool = False
    lines: int = 1
    check: Callable[[str], None] | None = None
    # A secret that can be made here, and where the one it replaces is kept.
    generate: Callable[[], str] | None = None
    previous: str = ""


class TransportError(Exception):
    """A message could not be handed over. The text is shown in the admin, and never names a secret."""

    def __init__(
        self,
        text: str,
        *,
        permanent: bool = False,
        retry_after: timedelta | None = None,
        gone: bool = False,
    ) -> None:
        """Say what went wrong, and whether trying again could help.

        Args:
            text: what went wrong, for an administrator.
            permanent: no further attempt can succeed.
            retry_after: how long the receiver wants to be left alone.
            gone: the receiver asks never to be called again; the channel is disabled. Implies `permanent`.
        """
        super().__init__(text)
        self.permanent = permanent or gone
        self.retry_after = retry_after
        self.gone = gone

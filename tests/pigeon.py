"""A project's own kind of channel, as docs/channels.md says to write one."""

from __future__ import annotations

from datetime import timedelta

from jit_approval.notifications.transport import Field, Message, Target, TransportError

LABEL = "carrier pigeon"
FIELDS = (
    Field("loft", "loft", required=True),
    Field("ring", "ring", required=True, secret=True),
)
flown: list[tuple[str, str, str]] = []


def notify(message: Message, target: Target) -> None:
    if target.configuration["loft"] == "stormy":
        raise TransportError("Not in this weather.", retry_after=timedelta(minutes=10))
    if target.configuration["loft"] == "hawks":
        raise ValueError("no pigeon came back\nat all")
    flown.append((target.configuration["loft"], target.secrets["ring"], message.subject))

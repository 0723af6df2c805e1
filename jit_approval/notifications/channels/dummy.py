"""Keeps messages in memory, for a project's own tests: `dummy.sent` is what was told, oldest first."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from jit_approval.notifications.transport import Field, Message, Target

LABEL = _("memory of this process (for tests)")
FIELDS: tuple[Field, ...] = ()

sent: list[Message] = []


def notify(message: Message, target: Target) -> None:
    """Keep the message."""
    sent.append(message)

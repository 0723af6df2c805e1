"""Mail backends that stand for a mail server in trouble, and the settings that select one."""

from __future__ import annotations

from collections.abc import Sequence
from smtplib import SMTPServerDisconnected
from typing import Any

import django
from django.core.mail import EmailMessage
from django.core.mail.backends.locmem import EmailBackend


class Refusing(EmailBackend):
    """Takes no message for an address that begins with `broken`."""

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        if any(to.startswith("broken") for message in messages for to in message.to):
            raise SMTPServerDisconnected("please run\nconnect() first")
        return super().send_messages(messages)


class Dying(EmailBackend):
    """Sends, and then ends the process before anybody can write that down."""

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        super().send_messages(messages)
        raise SystemExit


def using(backend: str, **options: Any) -> dict[str, Any]:
    """The settings of a mail backend, as this version of Django wants them."""
    if django.VERSION >= (6, 1):
        return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": backend, **{f"EMAIL_{name.upper()}": v for name, v in options.items()}}

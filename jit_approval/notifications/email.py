"""The e-mail channel, through whatever mail set-up the project has."""

from __future__ import annotations

from django.core.mail import EmailMessage

from jit_approval import conf
from jit_approval.notifications.messages import Message

NAME = "email"


def send(message: Message, address: str) -> None:
    """Send a message to one address, or raise what the mail backend raised."""
    EmailMessage(
        subject=message.subject,
        body=message.body,
        from_email=conf.get().FROM_EMAIL or None,
        to=[address],
        # RFC 3834: keeps holiday notices from answering.
        headers={"Auto-Submitted": "auto-generated"},
    ).send()

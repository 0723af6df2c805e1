"""E-mail, through whatever mail set-up the project has: text and HTML, one thread per request and reader.

A worker keeps one connection for all the messages of a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from email.utils import parseaddr
from smtplib import SMTPDataError, SMTPRecipientsRefused
from typing import Any

from django.conf import settings
from django.core import mail
from django.utils.translation import gettext_lazy as _

from jit_approval import conf
from jit_approval.models.validators import validate_addresses
from jit_approval.notifications.transport import Field, Message, Target, TransportError

NAME = "email"
LABEL = _("e-mail")
FIELDS = (
    Field(
        "to",
        _("addresses"),
        _("One per line. Without any, each decider is told at their own address."),
        lines=3,
        check=validate_addresses,
    ),
)

_TIMEOUT = 20
_session: ContextVar[Any] = ContextVar("jit_approval_mail_session", default=None)


def is_personal(target: Target) -> bool:
    """Tell whether the people themselves are reached, each at their own address."""
    return not target.configuration.get("to", "").split()


@contextmanager
def session() -> Iterator[None]:
    """Keep one connection for the messages of the block; it is opened by the first of them."""
    connection = _connection()
    token = _session.set(connection)
    try:
        yield
    finally:
        _session.reset(token)
        _close(connection)


def notify(message: Message, target: Target) -> None:
    """Send to the person's address, or to those of the configuration.

    Raises:
        TransportError: the server refused these addresses, or this message, for good.
        Exception: whatever else the mail backend raised.
    """
    to = [target.address] if target.address else target.configuration.get("to", "").split()
    if not to:
        raise TransportError("There is no address to send to.", permanent=True)
    connection = _session.get() or _connection()
    try:
        connection.open()
        connection.send_messages([_as_mail(message, to)])
    except BaseException as error:
        # The server may have hung up: the next message asks for a connection anew.
        _close(connection)
        if _is_final(error):
            raise TransportError(f"{type(error).__name__}: {error}", permanent=True) from error
        raise
    if _session.get() is None:
        _close(connection)


def _connection() -> Any:
    # Django 6.1 calls the one deprecated, and earlier ones do not know the other.
    mailers = getattr(mail, "mailers", None)
    connection: Any = mailers["default"] if mailers is not None else mail.get_connection()
    # A server that says nothing must not keep a worker for ever; the project may say how long.
    if getattr(connection, "timeout", _TIMEOUT) is None:
        connection.timeout = _TIMEOUT
    return connection


def _close(connection: Any) -> None:
    with suppress(Exception):  # a server that hung up has nothing to say to QUIT
        connection.close()


def _is_final(error: BaseException) -> bool:
    """Tell whether every recipient, or the message itself, was refused with a permanent reply (RFC 5321 §4.2.1)."""
    if isinstance(error, SMTPRecipientsRefused):
        return all(code >= 500 for code, _text in error.recipients.values())
    return isinstance(error, SMTPDataError) and error.smtp_code >= 500


def _as_mail(message: Message, to: list[str]) -> mail.EmailMultiAlternatives:
    sender = conf.get().FROM_EMAIL or settings.DEFAULT_FROM_EMAIL
    made = mail.EmailMultiAlternatives(
        subject=message.subject,
        body=message.body,
        from_email=sender,
        to=to,
        headers=_headers(message, sender, to),
    )
    if message.html:
        made.attach_alternative(message.html, "text/html")
    return made


def _headers(message: Message, sender: str, to: list[str]) -> dict[str, str]:
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    headers = {
        # RFC 3834: keeps holiday notices from answering.
        "Auto-Submitted": "auto-generated",
        # The same at every attempt: a mail program shows a message that came twice once.
        "Message-ID": f"<{message.id}@{domain}>",
    }
    if message.severity in ("high", "critical"):
        headers["Importance"] = "high"
    if message.thread:
        # Nobody was sent the root itself: threads are made of what the references have in common.
        reader = hashlib.sha256(" ".join(sorted(to)).encode()).hexdigest()[:12]
        root = f"<{message.thread}.{reader}@{domain}>"
        headers |= {"References": root, "In-Reply-To": root}
    return headers

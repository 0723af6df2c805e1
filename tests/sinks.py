"""A real SMTP server on this machine, which keeps what it is handed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.test import override_settings

from tests import mailers

SMTP_BACKEND = "django.core.mail.backends.smtp.EmailBackend"


class Sink:
    """Takes what it is given, refuses who is to be refused, hangs up when told to."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.at: list[float] = []
        self.sessions: set[int] = set()
        self.refuse: dict[str, str] = {}
        self.answer = "250 OK"
        self.hang_up_after = 0
        self.port = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        self.sessions.add(id(session))
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if not self.answer.startswith("2"):
            return self.answer
        assert isinstance(envelope.content, bytes)
        found = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.at.append(time.perf_counter())
        self.got.append(found)
        self.to.append(list(envelope.rcpt_tos))
        if self.hang_up_after and len(self.got) % self.hang_up_after == 0:
            assert server.transport is not None
            server.loop.call_soon(server.transport.close)
        return self.answer


@contextmanager
def sink() -> Iterator[Sink]:
    """A server on this machine, and the project's mail set up to use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Sink()
    found.port = port
    controller = Controller(found, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with override_settings(**mailers.using(SMTP_BACKEND, host="127.0.0.1", port=port)):
            yield found
    finally:
        controller.stop()

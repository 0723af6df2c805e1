"""Where the trail is sent: `send` returns once the lines are out of our hands, or raises."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from jit_approval import conf
from jit_approval.notifications import egress, public
from jit_approval.notifications.channels import webhook
from jit_approval.notifications.transport import TransportError

Lines = Sequence[bytes]
"""Each with its newline."""


class TargetFailed(Exception):
    """Not all lines were taken. The text is shown in the admin, and names no secret."""

    def __init__(self, text: str, *, taken: int = 0, retry_after: timedelta | None = None) -> None:
        """Say what went wrong, how many lines were taken before, and how long to leave the target alone."""
        super().__init__(text)
        self.taken = taken
        self.retry_after = retry_after


class Target(Protocol):
    """Somewhere that lines are sent to."""

    @property
    def name(self) -> str:
        """What its cursor is kept under. Another place has another name: it is sent all from the beginning."""

    @property
    def most(self) -> int:
        """How many lines it takes at once."""

    def send(self, lines: Lines, *, at: datetime) -> None:
        """Send the lines; `at` is the time of the attempt.

        Raises:
            TargetFailed: not all were taken.
        """


def configured() -> list[Target]:
    """Return the targets of the settings."""
    found = list[Target]()
    settings = conf.get()
    if settings.AUDIT_WEBHOOK_URL:
        found.append(Webhook(settings.AUDIT_WEBHOOK_URL, settings.AUDIT_FORMAT))
    if settings.AUDIT_LOGGER:
        found.append(Log(settings.AUDIT_LOGGER))
    return found


@dataclass(frozen=True)
class Webhook:
    """A signed POST of some lines: Standard Webhooks, under the rules of webhook channels."""

    url: str
    format: str
    most: int = 500

    @property
    def name(self) -> str:
        """The URL may hold a token, so not the URL itself."""
        return f"webhook:{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    def send(self, lines: Lines, *, at: datetime) -> None:
        """Post them all."""
        # The same lines have the same id, so that a receiver can tell a repetition.
        message_id = f"trail_{hashlib.sha256(b''.join(lines)).hexdigest()[:32]}"
        body = self._body(message_id, lines, at)
        given = conf.get().AUDIT_WEBHOOK_SECRETS
        secrets = dict(zip(("secret", "previous_secret"), given, strict=False))
        try:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "jit-approval",
                **webhook.signed(message_id, at, body, secrets),
            }
            webhook.ensure_taken(egress.post(self.url, body, headers), at)
        except (public.NotPublic, egress.Unreachable) as error:
            raise TargetFailed(str(error)) from None
        except TransportError as error:
            raise TargetFailed(str(error), retry_after=error.retry_after) from None

    def _body(self, message_id: str, lines: Lines, at: datetime) -> bytes:
        texts = [line.decode().removesuffix("\n") for line in lines]
        # As text, each line keeps the one form in which it can be verified.
        data = {"events": [json.loads(text) for text in texts]}
        if self.format == "jsonl":
            data = {"lines": texts}
        content = {
            "id": message_id,
            "type": "audit.trail",
            "timestamp": at.astimezone(UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "data": {"format": self.format, **data},
        }
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Log:
    """A logger of Python's: one record, of level INFO, for each line."""

    logger: str
    most: int = 500

    @property
    def name(self) -> str:
        """By the logger's name."""
        return f"log:{self.logger}"[:100]

    def send(self, lines: Lines, *, at: datetime) -> None:
        """Hand each line to every handler. Other than `logging` does, what a handler cannot write is an error."""
        logger = logging.getLogger(self.logger)
        handlers = [
            each
            for each in _handlers(logger)
            # What is thrown away has not left.
            if each.level <= logging.INFO and not isinstance(each, logging.NullHandler)
        ]
        if not logger.isEnabledFor(logging.INFO) or not handlers:
            raise TargetFailed(
                f"The logger {self.logger!r} has no handler for records of level INFO."
            )
        for taken, line in enumerate(lines):
            text = line.decode().removesuffix("\n")
            record = logger.makeRecord(
                logger.name, logging.INFO, "(trail)", 0, "%s", (text,), None, "send"
            )
            for handler in handlers:
                error = _emit(handler, record)
                if error is not None:
                    what = f"A handler of the logger {self.logger!r} failed: {error}"
                    raise TargetFailed(what, taken=taken)


def _handlers(logger: logging.Logger) -> list[logging.Handler]:
    found, each = list[logging.Handler](), logger
    while True:
        found += each.handlers
        if not each.propagate or each.parent is None:
            return found
        each = each.parent


def _emit(handler: logging.Handler, record: logging.LogRecord) -> str | None:
    """Have a handler write a record; return what went wrong, which `logging` alone would print and forget."""
    errors = list[str]()

    def handle_error(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        errors.append(f"{type(error).__name__}: {error}")

    if not handler.filter(record):
        return None
    handler.acquire()
    try:
        vars(handler)["handleError"] = handle_error
        handler.emit(record)
        handler.flush()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        vars(handler).pop("handleError", None)
        handler.release()
    return errors[0] if errors else None

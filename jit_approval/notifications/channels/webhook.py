"""A signed POST to an endpoint of the project's choice: Standard Webhooks (https://www.standardwebhooks.com).

Signed under the secret and, while receivers change over, under the one before it. Where it may go is decided in
`public`, anew for each message.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets as random
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from jit_approval import conf
from jit_approval.notifications import egress, public
from jit_approval.notifications.transport import Field, Message, Target, TransportError

LABEL = _("webhook")
PREFIX = "whsec_"
_GONE = 410
# Anything else of 4xx says that this message will never be taken. 404 is what a deployment looks like.
_WORTH_ANOTHER_TRY = frozenset({404, 408, 409, 425, 429})


def check_url(value: str) -> None:
    """Refuse a URL that would not be called."""
    try:
        public.parse(value, conf.get().WEBHOOK_PORTS)
    except public.NotPublic as error:
        raise ValidationError(str(error), code="url") from None


def check_secret(value: str) -> None:
    """Refuse what is no secret of 24 to 64 bytes, the size Standard Webhooks asks for."""
    if not 24 <= len(_key(value)) <= 64:
        raise ValidationError(_("whsec_ and then 24 to 64 random bytes in base64."), code="secret")


def make_secret() -> str:
    """Return a new secret of 32 random bytes."""
    return PREFIX + base64.b64encode(random.token_bytes(32)).decode()


FIELDS = (
    Field(
        "url",
        _("URL"),
        _("https, a public host name, and no user or password. Redirects are not followed."),
        required=True,
        check=check_url,
    ),
    Field(
        "secret",
        _("signing secret"),
        _(
            "whsec_… as the receiver has it, or made here. A new one leaves the one before it in use, too."
        ),
        required=True,
        secret=True,
        check=check_secret,
        generate=make_secret,
        previous="previous_secret",
    ),
    Field(
        "previous_secret",
        _("previous signing secret"),
        _("Messages are signed with it as well, until it is removed."),
        secret=True,
        check=check_secret,
    ),
)


def notify(message: Message, target: Target) -> None:
    """Post the message, signed.

    Raises:
        TransportError: it was not taken. With 410 the endpoint asked never to be called again.
    """
    body = _body(message)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "jit-approval",
        **signed(message.id, message.sent_at, body, target.secrets),
    }
    try:
        answer = egress.post(target.configuration.get("url", ""), body, headers)
    except public.NotPublic as error:
        raise TransportError(str(error), permanent=True) from None
    except egress.Unreachable as error:
        raise TransportError(str(error)) from None
    ensure_taken(answer, message.sent_at)


def signed(
    message_id: str, at: datetime, body: bytes, secrets: Mapping[str, str]
) -> dict[str, str]:
    """Return the headers that say who sent this, and when: one signature for each secret.

    Raises:
        TransportError: there is no secret to sign with.
    """
    timestamp = str(int(at.timestamp()))
    content = b".".join([message_id.encode(), timestamp.encode(), body])
    keys = [_key(secrets[name]) for name in ("secret", "previous_secret") if secrets.get(name)]
    if not keys or not all(keys):
        raise TransportError("The channel has no signing secret; nothing is sent unsigned.")
    signatures = [base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _body(message: Message) -> bytes:
    content = {
        "id": message.id,
        "type": message.type,
        "timestamp": message.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": message.data,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _key(secret: str) -> bytes:
    """Return the bytes of a secret, or nothing where it is none."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def ensure_taken(answer: egress.Answer, now: datetime) -> None:
    """Return where the endpoint took it.

    Raises:
        TransportError: it did not.
    """
    if 200 <= answer.status < 300:
        return
    if answer.status == _GONE:
        raise TransportError("The endpoint answered 410: it is gone for good.", gone=True)
    if 300 <= answer.status < 400:
        text = f"The endpoint answered {answer.status}; redirects are not followed."
        raise TransportError(text, permanent=True)
    final = 400 <= answer.status < 500 and answer.status not in _WORTH_ANOTHER_TRY
    raise TransportError(
        f"The endpoint answered {answer.status}.",
        permanent=final,
        retry_after=_wait(answer.retry_after, now),
    )


def _wait(text: str, now: datetime) -> timedelta | None:
    """Return what `Retry-After` asks for: seconds, or a date (RFC 9110 §10.2.3)."""
    if text.isascii() and text.isdecimal() and len(text) < 8:
        return timedelta(seconds=int(text))
    try:
        until = parsedate_to_datetime(text)
        return until - now if until.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None

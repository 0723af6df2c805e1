"""What the view answered, kept encrypted for the requester to fetch."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import datetime

from django.http.response import HttpResponseBase, StreamingHttpResponse

from jit_approval import conf, policies, secrets
from jit_approval.models import ApprovalRequest, StoredAnswer

logger = logging.getLogger(__name__)

# Never cookies, nor anything that authenticates: the answer goes to whoever holds another credential by then.
HEADERS = (
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "Link",
    "Location",
    "Retry-After",
)


@dataclass(frozen=True)
class Kept:
    """An answer as it was kept. `truncated`: only the beginning of its body was."""

    status: int
    headers: dict[str, str]
    body: bytes
    truncated: bool
    delete_at: datetime


def of_response(response: HttpResponseBase) -> str:
    """Return status, headers and as much of the body as is kept. A stream is read to its end all the same."""
    content, is_cut = _content(response)
    return json.dumps(
        {
            "status": response.status_code,
            "headers": {
                name: response.headers[name] for name in HEADERS if name in response.headers
            },
            "body": base64.b64encode(content).decode(),
            "truncated": is_cut,
        }
    )


def store(row: ApprovalRequest, text: str, alias: str) -> None:
    """Keep the answer to a run that has just been recorded, in the same transaction.

    Without a key it is not kept; what became of the run is.
    """
    try:
        sealed = secrets.seal(text, bound_to=_bound_to(row))
    except secrets.SecretError as error:
        logger.error("The answer to %s is not kept: %s", row.pk, error)
        return
    assert row.finished_at is not None  # noqa: S101 - recorded a moment ago
    until = row.finished_at + conf.get().RESULT_KEPT_FOR
    StoredAnswer(approval_request_id=row.pk, sealed=sealed, delete_at=until).save(
        using=alias, force_insert=True
    )


def kept_of(row: ApprovalRequest) -> Kept | None:
    """Return the answer to a run; None where none is kept, or not any more, or it cannot be opened here.

    For the requester alone. The row must have been read with the database's time.
    """
    found = StoredAnswer.objects.using(policies.database()).filter(pk=row.pk).first()
    # The sweeper may be late; what is over is over.
    if found is None or found.delete_at <= row.now:
        return None
    try:
        data = json.loads(secrets.unseal(found.sealed, bound_to=_bound_to(row)))
    except secrets.SecretError as error:
        logger.error("The answer to %s cannot be opened: %s", row.pk, error)
        return None
    return Kept(**{**data, "body": base64.b64decode(data["body"])}, delete_at=found.delete_at)


def _content(response: HttpResponseBase) -> tuple[bytes, bool]:
    limit = conf.get().MAX_RESULT_BYTES
    if not response.streaming:
        content = bytes(response.content)  # type: ignore[attr-defined]
        return content[:limit], len(content) > limit
    assert isinstance(response, StreamingHttpResponse)  # noqa: S101 - nothing else streams
    kept, size = bytearray(), 0
    for chunk in response:
        piece = response.make_bytes(chunk)
        kept += piece[: max(0, limit - size)]
        size += len(piece)
    return bytes(kept), size > limit


def _bound_to(row: ApprovalRequest) -> str:
    return f"stored answer {row.pk}"

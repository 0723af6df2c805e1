"""What was answered: a refusal of the gate, a result that the server kept, or the call's own answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from jit_approval.client.errors import is_problem

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: header names in lower case, the body parsed if it was JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True)
class Result:
    """What a call that the server ran was answered. `Approval-Result: truncated`: not all of the body was kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def result_of(answer: Answer) -> Result | None:
    """Return what the server kept of the answer; None where it is none that could be read."""
    kept = answer.body
    if answer.status != 200 or not isinstance(kept, dict):
        return None
    status, headers = kept.get("status"), kept.get("headers")
    if not isinstance(status, int) or not 100 <= status <= 599 or not isinstance(headers, dict):
        return None
    try:
        body = base64.b64decode(str(kept.get("body", "")), validate=True)
    except ValueError:
        return None
    named = {"Approval-Id": str(kept.get("id")), "Approval-Status": "consumed"}
    if kept.get("truncated"):
        named["Approval-Result"] = "truncated"
    return Result(status, {**{str(k): str(v) for k, v in headers.items()}, **named}, body)


def refusal_of(answer: Answer) -> Mapping[str, Any] | None:
    """Return the gate's refusal, if that is what the answer is; None for an answer of the call itself."""
    if answer.headers.get("approval-status") == "consumed":
        return None  # it ran: whatever it says is the view's own
    body = answer.body
    if not is_problem(body) or body.get("executed") is not False:
        return None
    if body["code"] == "approval_pending" and not body.get("approval_id"):
        return None
    return dict(body)


def same_origin(url: str, other: Any) -> str | None:
    """Return `other` resolved against `url`, if it leads to the same scheme, host and port; else None.

    Credentials go nowhere else, whatever an answer says.
    """
    if not isinstance(other, str) or not other or not other.isprintable() or "\\" in other:
        return None
    resolved = urljoin(url, other)
    here, there = urlsplit(url), urlsplit(resolved)
    try:
        same = _origin(here) == _origin(there)
    except ValueError:  # no number, as a port
        return None
    return resolved if same and "@" not in there.netloc else None


def _origin(parts: Any) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)

"""On whose behalf a program calls: what the call claims (`Approval-Agent`), or what its credential proves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.module_loading import import_string
from rest_framework.request import Request

from jit_approval import conf
from jit_approval.exceptions import UnbindableCall
from jit_approval.redaction import visible

MAX_LENGTH = 200
_KNOWN = "_jit_approval_agent"


class Agent(NamedTuple):
    """Who acts for the requester; `proven`: told by the credential (`REQUEST_AGENT`), not by a header."""

    name: str = ""
    proven: bool = False


def of(request: Request) -> Agent:
    """Return the agent behind a call; the credential's word goes before the caller's.

    Raises:
        UnbindableCall: the name is longer than `MAX_LENGTH` characters.
    """
    proven = _of_credential(request)
    name = proven or header_text(request.META, "Approval-Agent")
    if len(name) > MAX_LENGTH:
        raise UnbindableCall(f"Approval-Agent has at most {MAX_LENGTH} characters.")
    return Agent(visible(name)[:MAX_LENGTH], bool(proven))


def bound(request: Request) -> dict[str, str]:
    """Return what a call is bound to of its agent, beside other headers; nothing where there is none.

    The header is bound even where the credential says who it is: what was shown, and all that was sent.
    """
    found = {
        "approval-agent": request.META.get("HTTP_APPROVAL_AGENT"),
        "agent": _of_credential(request) or None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _of_credential(request: Request) -> str:
    """Ask once for each request: what is bound, shown and asked about must be one and the same."""
    path = conf.get().REQUEST_AGENT
    if not path:
        return ""
    known = vars(request)
    if _KNOWN not in known:
        known[_KNOWN] = str(import_string(path)(request) or "").strip()
    return str(known[_KNOWN])


def header_text(meta: Mapping[str, Any], name: str) -> str:
    """Return a header's text: UTF-8, or else latin-1."""
    raw = wsgi_bytes(str(meta.get("HTTP_" + name.upper().replace("-", "_"), ""))).strip()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def wsgi_bytes(text: str) -> bytes:
    """Undo PEP 3333's latin-1 disguise of raw bytes."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")

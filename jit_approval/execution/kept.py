"""An HTTP call as it is kept, and as it is made again: the same bytes, from the same address, under the same names.

What is kept is on a list: what identifies the call, the credential it came with, and what middleware reads to know
host, scheme, language and client; `REPLAY_HEADERS` adds to it. A call with a header that is neither on it nor known
to mean nothing to a view is not kept: a view that looks for `X-Dry-Run` must not miss it the second time.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from rest_framework.request import Request

from jit_approval import conf
from jit_approval.execution import forms

_ENVIRON = (
    "REQUEST_METHOD",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_PORT",
    # The path as it was sent: bound, where the server tells.
    "RAW_URI",
    "REQUEST_URI",
)
_HEADERS = (
    "Accept",
    "Accept-Language",
    "Approval-Agent",
    "Approval-Reason",
    "Authorization",
    "Content-Disposition",
    "Cookie",
    "Forwarded",
    "Host",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Origin",
    "Referer",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-HTTP-Method-Override",
    "X-Real-IP",
    "X-Requested-With",
)
# What is between a client and a server, or tells how to watch the call, not what it is.
_LEFT_OUT = frozenset(
    {
        "HTTP_ACCEPT_CHARSET",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_APPROVAL_ID",
        "HTTP_BAGGAGE",
        "HTTP_CACHE_CONTROL",
        "HTTP_CONNECTION",
        "HTTP_CONTENT_ENCODING",  # of a gated call: none, or "identity"
        "HTTP_DNT",
        "HTTP_EXPECT",
        "HTTP_KEEP_ALIVE",
        "HTTP_PRAGMA",
        "HTTP_PREFER",
        "HTTP_PRIORITY",
        "HTTP_TE",
        "HTTP_TRACEPARENT",
        "HTTP_TRACESTATE",
        "HTTP_UPGRADE_INSECURE_REQUESTS",
        "HTTP_VIA",
        "HTTP_X_AMZN_TRACE_ID",
        "HTTP_X_CLOUD_TRACE_CONTEXT",
        "HTTP_X_CORRELATION_ID",
        "HTTP_X_REQUEST_ID",
    }
)
# Fetch metadata and client hints of browsers.
_LEFT_OUT_TOO = "HTTP_SEC_"
# What a web server vouches for, and nobody would check anew.
_VOUCHED = ("REMOTE_USER", "SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN")
_VERSION = 1


class CannotBeKept(Exception):
    """The server could not make this call again. The text says why, to the requester."""


@dataclass(frozen=True)
class Kept:
    """One call: strings of the WSGI environment (PEP 3333), scheme and body."""

    environ: dict[str, str]
    scheme: str
    body: bytes

    def as_text(self) -> str:
        """Return all of it, to be encrypted."""
        return json.dumps(
            {
                "v": _VERSION,
                "environ": self.environ,
                "scheme": self.scheme,
                "body": base64.b64encode(self.body).decode(),
            }
        )


def of_text(text: str) -> Kept:
    """Return what `as_text` wrote.

    Raises:
        ValueError: it is of a form that is not known here.
    """
    data = json.loads(text)
    if data.get("v") != _VERSION:
        raise ValueError("The stored call has a form that is not known here.")
    return Kept(data["environ"], data["scheme"], base64.b64decode(data["body"]))


def of_request(request: Request) -> Kept:
    """Return a live call, whose body has been read and bound.

    Raises:
        CannotBeKept: its body is no longer there, or cannot be put together as it was; or there is more to it
            than what is kept.
    """
    http = request._request
    meta = http.META
    names = (*_ENVIRON, *_header_names())
    _ensure_complete(meta, names)
    found = {name: str(meta[name]) for name in names if name in meta}
    found["SCRIPT_NAME"] = _as_wsgi(meta.get("SCRIPT_NAME", ""))
    found["PATH_INFO"] = _as_wsgi(meta.get("PATH_INFO", ""))
    found |= _as_sent(getattr(http, "scope", {}))
    made = Kept(found, http._get_scheme() or "http", _body(request))  # type: ignore[attr-defined]
    if forms.is_form(request) and not _is_same_form(request, made):
        raise CannotBeKept("its form cannot be put together again as it was sent")
    return made


def rebuilt(kept: Kept) -> WSGIRequest:
    """Return the call as the first middleware of the project met it."""
    environ: dict[str, Any] = {
        **kept.environ,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": kept.scheme,
        "wsgi.input": BytesIO(kept.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if kept.body:
        environ["CONTENT_LENGTH"] = str(len(kept.body))
    return WSGIRequest(environ)


def _ensure_complete(meta: Mapping[str, Any], names: Collection[str]) -> None:
    if any(meta.get(name) for name in _VOUCHED):
        raise CannotBeKept("the web server vouches for its user, and would not do so again")
    for name in meta:
        known = name in names or name in _LEFT_OUT or name.startswith(_LEFT_OUT_TOO)
        if name.startswith("HTTP_") and not known:
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            raise CannotBeKept(f"it has a header that is not kept, {header} (REPLAY_HEADERS)")


def _header_names() -> list[str]:
    """Return the names in META of the headers that are kept."""
    config = conf.get()
    names = (*_HEADERS, *config.BOUND_HEADERS, *config.CONDITION_HEADERS, *config.REPLAY_HEADERS)
    found = ["HTTP_" + name.upper().replace("-", "_") for name in names]
    found.append(settings.CSRF_HEADER_NAME)
    if settings.SECURE_PROXY_SSL_HEADER:
        found.append(settings.SECURE_PROXY_SSL_HEADER[0])
    return list(dict.fromkeys(found))


def _as_wsgi(text: str) -> str:
    """Put PEP 3333's latin-1 disguise on a path that Django has decoded."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _as_sent(scope: Any) -> dict[str, str]:
    """Return path and query of a call that came by ASGI, as a WSGI server would tell them."""
    found = {}
    if scope.get("raw_path") is not None:
        found["RAW_URI"] = bytes(scope["raw_path"]).decode("latin-1")
    if isinstance(scope.get("query_string"), bytes):
        found["QUERY_STRING"] = scope["query_string"].decode("latin-1")
    return found


def _body(request: Request) -> bytes:
    http = request._request
    if hasattr(http, "_body"):
        return bytes(http._body)
    try:
        return forms.as_bytes(request)
    except ValueError as error:
        raise CannotBeKept(str(error)) from None


def _is_same_form(request: Request, made: Kept) -> bool:
    """Tell whether parsing what is kept gives what was bound."""
    again = rebuilt(made)
    try:
        return forms.is_same(request, again.POST, again.FILES)
    finally:
        again.close()

"""An HTTP call as it is kept, and as it is made again: the same bytes, from the same address, under the same names.

What is kept is on a list: what identifies the call, the credential it came with, and what middleware reads to know
host, scheme, language and client. A header that is not on it (`REPLAY_HEADERS` adds to it) is not there the
second time; where it was bound, the fingerprint differs, and the call does not run.
"""

from __future__ import annotations

import base64
import json
import sys
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
# Not REMOTE_USER, nor what a web server says of a client's certificate: nobody would check them anew.
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
        CannotBeKept: its body is no longer there, or cannot be put together as it was.
    """
    http = request._request
    meta = http.META
    found = {name: str(meta[name]) for name in (*_ENVIRON, *_header_names()) if name in meta}
    found["SCRIPT_NAME"] = _as_wsgi(meta.get("SCRIPT_NAME", ""))
    found["PATH_INFO"] = _as_wsgi(meta.get("PATH_INFO", ""))
    found |= _as_sent(getattr(http, "scope", {}))
    made = Kept(found, http._get_scheme() or "http", _body(request))  # type: ignore[attr-defined]
    if forms.is_form(request) and not _is_same_form(request, made):
        raise CannotBeKept("The form cannot be put together again as it was sent.")
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

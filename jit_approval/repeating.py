"""To make an HTTP request again inside the server, as if the client had sent it once more."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from uuid import UUID

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest
from django.http.request import UnreadablePostError

from jit_approval import conf

_REPEAT = "_jit_approval_repeat"
# What is only kept because somebody asked for it, or is of one pass through the stack alone.
_NOT_OF_THE_CLIENT = ("headers", "_post", "_files", "_body", "_upload_handlers", "resolver_match")
# Who has these has been authenticated by now: it could not be done anew.
_AUTHENTICATED = frozenset({"user", "session"})


def is_repeat(request: HttpRequest) -> bool:
    """Tell whether this request was made here, of one that the client has sent once. No header says so."""
    return getattr(request, _REPEAT, False)


class Repeatable:
    """A request as it came in, to be made again as often as needed."""

    def __init__(self, request: HttpRequest, body: bytes) -> None:
        self._kind = type(request)
        self._state = {
            name: value for name, value in vars(request).items() if name not in _NOT_OF_THE_CLIENT
        }
        self._meta = dict(request.META)
        self._body = body
        self._made: list[HttpRequest] = []

    def again(self, approval_id: UUID) -> HttpRequest:
        """Return the request anew, unread, naming the approval request that it is about."""
        self.close()
        made = self._kind.__new__(self._kind)
        meta = {**self._meta, "HTTP_APPROVAL_ID": str(approval_id)}
        vars(made).update(self._state, META=meta, resolver_match=None)
        if "environ" in self._state:
            meta["wsgi.input"] = BytesIO(self._body)
            vars(made)["environ"] = meta
        unread(made, self._body)
        setattr(made, _REPEAT, True)
        self._made.append(made)
        return made

    def close(self) -> None:
        """Close the files that were uploaded with the request as it was last made."""
        while self._made:
            self._made.pop().close()


def repeatable(request: HttpRequest) -> Repeatable | None:
    """Return what makes the request again; None where that could not be done just as the client does it.

    That is: where its body is of no declared length or too long to keep, or was read; and where whoever stands in front
    has authenticated the client, who might be somebody else by then. The request itself is left as it was, unread.
    """
    if _AUTHENTICATED & vars(request).keys():
        return None
    try:
        body = _body(request)
    except (RequestDataTooBig, UnreadablePostError):
        return None
    return None if body is None else Repeatable(request, body)


def _body(request: HttpRequest) -> bytes | None:
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if "HTTP_TRANSFER_ENCODING" in request.META or not str(declared).isdecimal():
        return None
    if vars(request).get("_read_started"):
        return None
    if int(declared) > conf.get().MAX_BODY_BYTES:
        return None  # nor would it be held
    if not int(declared):
        return b"" if _is_empty(request) else None
    body = request.body
    unread(request, body)
    return body if len(body) == int(declared) else None


def _is_empty(request: Any) -> bool:
    """Tell whether there is no body either where none was declared; a WSGI server gives out none then."""
    stream = request._stream
    if not (hasattr(stream, "seekable") and stream.seekable()):
        return True
    size = stream.seek(0, 2)
    stream.seek(0)
    return not size


def unread(request: Any, body: bytes) -> None:
    """Make the body be there to be read, as it was sent."""
    vars(request).pop("_body", None)
    request._read_started = False
    request._stream = BytesIO(body)

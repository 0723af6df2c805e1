"""The body of a call: which can be bound to one meaning, its digest, and the data it parses to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.http.request import RawPostDataException
from django.utils.datastructures import MultiValueDict
from django.utils.encoding import force_str
from django.utils.http import parse_header_parameters
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import FileUploadParser, FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.utils.json import strict_constant

from jit_approval import conf
from jit_approval.exceptions import PayloadTooLarge, UnbindableCall
from jit_approval.fingerprint import canonical_json

_UTF_8 = frozenset({"utf-8", "utf8"})
_EMPTY = hashlib.sha256(b"").digest()
_DAMAGED = "\ufffd"
_CSRF = "csrfmiddlewaretoken"
_CSRF_PAIR = _CSRF.encode() + b"="
CSRF_APART = "_jit_approval_csrf_apart"
"""On a DRF request: a form's CSRF token, another on each page, is no part of what is bound."""


class Body(NamedTuple):
    """What is bound of a body, and what is shown of it."""

    media_type: bytes
    digest: bytes
    data: Any

    @property
    def is_empty(self) -> bool:
        """Whether the call came without a body. `0`, `false` and `[]` are bodies, and are shown."""
        return self.digest == _EMPTY


def read(request: Request) -> Body:
    """Check, parse and digest the body. The view finds it parsed and unread, as if nobody had been here.

    Raises:
        UnbindableCall: 400, 411, 413 or 415, with the reason.
        rest_framework.exceptions.ParseError, UnsupportedMediaType: what DRF itself says of the body.
            Swallowed, the view would run on an empty one.
    """
    length = _declared_length(request)
    media_type, parameters = parse_header_parameters(request.content_type or "")
    _refuse_encodings(request, parameters)
    try:
        return _parse(request, length, _bound_media_type(request, media_type, parameters))
    except RequestDataTooBig as error:
        raise PayloadTooLarge(str(error), status=413) from error
    except RawPostDataException:
        raise UnbindableCall("The body was read before it could be bound.") from None


def _declared_length(request: Request) -> int:
    """Return Content-Length, checked before a byte is read. RFC 9110 §8.6."""
    meta = request.META
    if "HTTP_CONTENT_LENGTH" in meta or "HTTP_CONTENT_TYPE" in meta:
        raise UnbindableCall("Content_Length and Content_Type are no headers.")
    declared = meta.get("CONTENT_LENGTH") or ""
    if meta.get("HTTP_TRANSFER_ENCODING"):
        # DRF takes a chunked body for an empty one: the approver and the view would differ.
        raise UnbindableCall("Send the body with a Content-Length.", status=411)
    if not declared:
        return 0
    # Longer numbers than these Python refuses to convert, and no body has such a length.
    if not (declared.isascii() and declared.isdecimal() and len(declared) < 20):
        raise UnbindableCall("Content-Length is not a number.")
    limit = conf.get().MAX_BODY_BYTES
    if int(declared) > limit:
        raise PayloadTooLarge(f"A call held for approval has at most {limit} bytes.", status=413)
    return int(declared)


def _refuse_encodings(request: Request, parameters: dict[str, str]) -> None:
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in {
        "",
        "identity",
    }:
        raise UnbindableCall("Send the body without a Content-Encoding.", status=415)
    for charset in (parameters.get("charset"), request._request.encoding):
        ensure_utf_8(charset)


def ensure_utf_8(charset: str | None) -> None:
    """Refuse a body of which the headers say that it is text of another kind.

    Raises:
        UnbindableCall: 415.
    """
    if charset and charset.lower() not in _UTF_8:
        raise UnbindableCall("Send the body as UTF-8.", status=415)


def _bound_media_type(request: Request, media_type: str, parameters: dict[str, str]) -> bytes:
    """Return the Content-Type as sent; of multipart all but the boundary, which differs on every retry."""
    if not media_type.startswith("multipart/"):
        return str(request.content_type or "").encode("utf-8", "surrogatepass")
    bound = {name: value for name, value in parameters.items() if name != "boundary"}
    return canonical_json([media_type, bound])


def _parse(request: Request, length: int, media_type: bytes) -> Body:
    if not length:
        if _has_undeclared_body(request):
            raise UnbindableCall("Send the body with a Content-Length.", status=411)
        return Body(media_type, _EMPTY, request.data)
    parser = request.negotiator.select_parser(request, request.parsers or ())  # type: ignore[union-attr]
    if parser is None:
        raise UnsupportedMediaType(request.content_type)
    if isinstance(parser, MultiPartParser | FileUploadParser):
        return _read_parts(request, parser, media_type)
    # Before `.data`: a parser that reads the stream leaves no body to digest.
    raw = request._request.body
    if len(raw) != length:
        raise UnbindableCall("The body is not as long as Content-Length says.")
    is_plain = not _is_json(request, parser) or _is_plain_json(raw)
    data = request.data
    if not is_plain:
        raise UnbindableCall("The body is not JSON that every reader understands alike.")
    if isinstance(data, MultiValueDict):
        data = _all_values((str(name), list(values)) for name, values in data.lists())
    _refuse_depth(data)
    if CSRF_APART in vars(request) and isinstance(parser, FormParser):
        raw = b"&".join(each for each in raw.split(b"&") if not each.startswith(_CSRF_PAIR))
    return Body(media_type, hashlib.sha256(raw).digest(), data)


def _has_undeclared_body(request: Request) -> bool:
    """HTTP/2 carries bodies without a length; WSGI drops them, ASGI hands them on.

    DRF calls such a body empty. A middleware may have read it by now, as bytes or as a form.
    """
    http = request._request
    if not getattr(http, "_read_started", False) or hasattr(http, "_body"):
        return bool(http.body)
    return bool(getattr(http, "_post", None) or getattr(http, "_files", None))


def _is_json(request: Request, parser: Any) -> bool:
    """Tell whether the body is JSON, whoever parses it: not every JSON parser descends from DRF's."""
    media_type = parse_header_parameters(request.content_type or "")[0]
    return isinstance(parser, JSONParser) or media_type.endswith(("/json", "+json"))


def _is_plain_json(raw: bytes) -> bool:
    """Return False for malformed JSON, which DRF has its own answer to.

    Raises:
        UnbindableCall: two readers may understand it differently, or be unable to read it.
    """
    try:
        _plain_json(raw.decode("utf-8"))
    except ValueError:
        return False
    return True


def of_json(text: str) -> Any:
    """Return what a call with this JSON for its body would be asked about; for whoever explains one.

    Raises:
        UnbindableCall: the gate would refuse it, with the reason.
        ValueError: the parser would: it is no JSON, of which NaN is none where `STRICT_JSON` is on.
    """
    return _plain_json(text, strict_constant if api_settings.STRICT_JSON else None)


def _plain_json(text: str, parse_constant: Callable[[str], Any] | None = None) -> Any:
    try:
        parsed = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=parse_constant
        )
    except RecursionError:
        raise UnbindableCall(_TOO_DEEP) from None
    _refuse_depth(parsed)
    return parsed


_TOO_DEEP = "The body is nested too deeply."


def _refuse_depth(data: Any) -> None:
    if _depth_exceeds(data, conf.get().MAX_JSON_DEPTH):
        raise UnbindableCall(_TOO_DEEP)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnbindableCall("A key appears twice in one JSON object.")
    return found


def _depth_exceeds(value: Any, limit: int) -> bool:
    layer: list[Any] = [value]
    for _ in range(limit + 1):
        layer = [item for container in layer for item in _children(container)]
        if not layer:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _read_parts(request: Request, parser: Any, media_type: bytes) -> Body:
    """Digest parsed parts: names, values, file names, types and contents; boundaries are no part of them."""
    # Parses, through the upload handlers: large files go to disk.
    data, form = request.data, request._data  # type: ignore[attr-defined]
    if CSRF_APART in vars(request) and isinstance(form, MultiValueDict):
        form = MultiValueDict({name: values for name, values in form.lists() if name != _CSRF})
    if isinstance(parser, FileUploadParser) and not request.FILES:
        # A middleware took the body for a form; DRF hands the view nothing of it.
        raise UnbindableCall("The body was read before it could be bound.")
    fields, files = bound = parts_of(form, request.FILES)
    if _DAMAGED in json.dumps(bound, default=str, ensure_ascii=False):
        # Django puts this for bytes that are not UTF-8, whichever they are.
        raise UnbindableCall("A name or a value in the form is not UTF-8.")
    shown = _all_values([*fields, *((name, [described]) for name, described in files)])
    _refuse_depth(data)
    return Body(media_type, hashlib.sha256(canonical_json(bound)).digest(), shown)


def parts_of(form: Any, files: Any) -> list[list[tuple[str, Any]]]:
    """Return what is bound of a form: its fields and its files, in order by name."""
    return [
        [(name, [_bindable(value) for value in values]) for name, values in lists_of(form)],
        [(name, _described(upload)) for name, uploads in lists_of(files) for upload in uploads],
    ]


def lists_of(form: Any) -> list[tuple[str, list[Any]]]:
    """Return every name with all its values, of a `MultiValueDict` or of what a project's parser made."""
    if isinstance(form, MultiValueDict):
        return [(str(name), list(values)) for name, values in form.lists()]
    items = form.items() if isinstance(form, Mapping) else [("", form)]
    return [(str(name), [value]) for name, value in items]


def _bindable(value: Any) -> Any:
    """Return parsed data with files as what identifies them: a parser may put them anywhere."""
    if isinstance(value, UploadedFile):
        return _described(value)
    if isinstance(value, Mapping):
        return {str(name): _bindable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bindable(item) for item in value]
    return value


def _all_values(lists: Iterable[tuple[str, list[Any]]]) -> dict[str, Any]:
    """Return every value of every name: a view may read another one than the last."""
    merged: dict[str, list[Any]] = {}
    for name, values in lists:
        merged.setdefault(name, []).extend(values)
    return {name: values[0] if len(values) == 1 else values for name, values in merged.items()}


def _described(upload: UploadedFile[bytes]) -> dict[str, Any]:
    # Django gives these as bytes or as text, by its version.
    extra = {name: force_str(value) for name, value in (upload.content_type_extra or {}).items()}
    if upload.charset and force_str(upload.charset).lower() not in _UTF_8:
        raise UnbindableCall("Send every part as UTF-8.", status=415)
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return {
        "filename": upload.name,
        "content_type": upload.content_type,
        "parameters": extra,
        "size": upload.size,
        "sha256": digest.hexdigest(),
    }

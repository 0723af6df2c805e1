"""Multipart forms and uploaded files, put together again from their parts: the stream they came in is gone.

What is bound of a form are its parts, not the bytes between them, and what a view is given are its parts. So what
is kept is a body that Django parses to the very same ones; whether it does is tried before anything is opened.
"""

from __future__ import annotations

from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.utils.datastructures import MultiValueDict
from django.utils.encoding import force_str
from django.utils.http import parse_header_parameters
from rest_framework.request import Request

from jit_approval import body


def is_form(request: Request) -> bool:
    """Tell whether the call came as a multipart form."""
    return _media_type(request)[0] == "multipart/form-data"


def as_bytes(request: Request) -> bytes:
    """Return a body that is parsed to what this one was.

    Raises:
        ValueError: there is none; the text says why.
    """
    form, files = request._data, request.FILES  # type: ignore[attr-defined]
    if is_form(request):
        boundary = _media_type(request)[1].get("boundary", "")
        return _multipart(boundary, form, files)
    uploads = [upload for _, found in body.lists_of(files) for upload in found]
    if len(uploads) == 1 and not form:
        return _content(uploads[0])
    raise ValueError("its body was read by a parser that leaves nothing of it")


def is_same(request: Request, form: Any, files: Any) -> bool:
    """Tell whether these parts are those that were bound."""
    ours = body.parts_of(request._data, request.FILES)  # type: ignore[attr-defined]
    return ours == body.parts_of(form, files)


def _media_type(request: Request) -> tuple[str, dict[str, str]]:
    return parse_header_parameters(request.content_type or "")


def _multipart(boundary: str, form: Any, files: Any) -> bytes:
    if not boundary or not isinstance(form, MultiValueDict):
        raise ValueError("its form was read by a parser that leaves nothing of it")
    pieces = []
    for name, values in form.lists():
        for value in values:
            if not isinstance(value, str):
                raise ValueError("its form has a value that is no text")
            head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
            pieces.append(_part(boundary, head, value.encode()))
    for name, uploads in body.lists_of(files):
        pieces += [
            _part(boundary, _file_head(name, upload), _content(upload)) for upload in uploads
        ]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])


def _part(boundary: str, head: str, content: bytes) -> bytes:
    return b"".join([f"--{boundary}\r\n{head}\r\n\r\n".encode(), content, b"\r\n"])


def _file_head(name: str, upload: UploadedFile[bytes]) -> str:
    extra = "".join(
        f"; {key}={force_str(value)}" for key, value in (upload.content_type_extra or {}).items()
    )
    return (
        f'Content-Disposition: form-data; name="{_quoted(name)}"; '
        f'filename="{_quoted(upload.name or "")}"\r\n'
        f"Content-Type: {upload.content_type or ''}{extra}"
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _content(upload: UploadedFile[bytes]) -> bytes:
    upload.seek(0)
    content = b"".join(upload.chunks())
    upload.seek(0)
    return content

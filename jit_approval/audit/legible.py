"""Text of SQLite that is no UTF-8: it keeps whatever bytes were written, and would rather not read them at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import connections

from jit_approval.audit import places

_P = ParamSpec("_P")
_R = TypeVar("_R")


def reading(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a function read such text as something that nothing honest is, so that its row is found and named."""

    @wraps(function)
    def legible(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _text_of(places.database()):
            return function(*args, **kwargs)

    return legible


@contextmanager
def _text_of(alias: str) -> Iterator[None]:
    connection = connections[alias]
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    raw = connection.connection
    before, raw.text_factory = raw.text_factory, _text
    try:
        yield
    finally:
        raw.text_factory = before


def _text(found: bytes) -> str:
    try:
        return found.decode()
    except UnicodeDecodeError:
        # Not with replacements: what has these in earnest must not look the same.
        return f"\ufffd not UTF-8: {found.hex()}"

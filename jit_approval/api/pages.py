"""Pages of a list, by cursor: what arrives meanwhile shifts nothing. The project's pagination plays no part."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from jit_approval import problems, refusals


class NewestFirst(CursorPagination):
    """Fifty at a time, newest first; `?page_size=` asks for up to a hundred."""

    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 100

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Read the cursor. A made-up one is a bad request; DRF alone would pass its text to the database."""
        try:
            cursor = super().decode_cursor(request)
        except NotFound:
            raise _invalid() from None
        if cursor is not None and cursor.position is not None:
            _moment(str(cursor.position))
        return cursor


def _moment(text: str) -> datetime:
    try:
        moment = parse_datetime(text)
        if moment is None or moment.tzinfo is None:
            raise _invalid()
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid() from None


def _invalid() -> refusals.Problem:
    return problems.invalid("The cursor is not one this list gave out.")

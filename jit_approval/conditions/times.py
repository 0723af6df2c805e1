"""Timestamps and durations of conditions: how they are written, and their parts. CEL counts months from 0."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from jit_approval.conditions.errors import Trouble

_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_DURATION = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:h|ms|m|s|us))+")
_PART = re.compile(r"([0-9.]+)(h|ms|m|s|us)")
_OFFSET = re.compile(r"([+-]?)([0-9]{2}):([0-5][0-9])")
_MICROSECONDS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1}


def timestamp(text: str) -> datetime:
    """Read an RFC 3339 timestamp. Raises Trouble."""
    if not _TIMESTAMP.fullmatch(text):
        raise Trouble("no timestamp such as 2026-01-31T18:00:00Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Trouble("no such time") from None


def duration(text: str) -> timedelta:
    """Read a duration such as `1h30m` or `-90s`. Raises Trouble."""
    if len(text) > 100 or not _DURATION.fullmatch(text):
        raise Trouble("no duration such as 1h30m")
    total = 0
    for number, unit in _PART.findall(text):
        whole, _, fraction = number.partition(".")
        scale = _MICROSECONDS[unit]
        total += int(whole) * scale + int((fraction or "0").ljust(6, "0")) * scale // 1_000_000
    try:
        return timedelta(microseconds=-total if text.startswith("-") else total)
    except OverflowError:
        raise Trouble("a duration beyond all bounds") from None


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name, or by its offset as in `+02:00`. Raises Trouble."""
    offset = _OFFSET.fullmatch(name)
    try:
        if offset:
            sign, hours, minutes = offset.groups()
            ahead = timedelta(hours=int(hours), minutes=int(minutes))
            return timezone(-ahead if sign == "-" else ahead)
        return ZoneInfo(name)
    # An unknown name is a KeyError, a directory of the database an OSError, "../x" a ValueError.
    except (KeyError, OSError, ValueError):
        raise Trouble("no such time zone") from None


_OF_TIMESTAMP: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}
_OF_DURATION = {"getHours": 3_600_000_000, "getMinutes": 60_000_000, "getSeconds": 1_000_000}


def get(name: str, value: datetime | timedelta, zone_name: str) -> int:
    """Return a part of a timestamp, in a zone, or the whole of a duration in hours, minutes or seconds."""
    if isinstance(value, datetime):
        return _OF_TIMESTAMP[name](value.astimezone(zone(zone_name)))
    if name not in _OF_DURATION:
        raise Trouble(f"{name} of a duration")
    microseconds = value // timedelta(microseconds=1)
    # Towards zero, as CEL says.
    whole = abs(microseconds) // _OF_DURATION[name]
    return -whole if microseconds < 0 else whole

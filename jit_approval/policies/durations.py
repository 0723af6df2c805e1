"""Durations as people write them: 90s, 15m, 1h30m, 7d."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000}
_PART = re.compile(r"([0-9]{1,9})(ms|[dhms])")


def as_text(value: timedelta) -> str:
    """Return a duration in its largest whole units, to the millisecond; "0s" for none."""
    rest = value // timedelta(microseconds=1)
    parts = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse(text: str) -> timedelta:
    """Return the duration that `as_text` would write so.

    Raises:
        ValueError: with what a duration looks like.
    """
    text = text.strip()
    parts = _PART.findall(text)
    if not parts or "".join(count + unit for count, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration; write 90s, 15m, 1h30m or 7d")
    try:
        return timedelta(microseconds=sum(int(count) * _UNITS[unit] for count, unit in parts))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration") from None

"""The `Prefer` header: what a caller would like, and need not get. RFC 7240."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# More digits than these mean as long as can be.
_MAX_DIGITS = 9


def preferences(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the preferences of a request (its META) by lower-case name; of one that is repeated, the first.

    Parameters of a preference are left out: none of those understood here has any.
    """
    found: dict[str, str] = {}
    for part in str(meta.get("HTTP_PREFER", "")).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        if name.strip():
            found.setdefault(name.strip().lower(), value.strip().strip('"').strip())
    return found


def wait_seconds(meta: Mapping[str, Any]) -> int | None:
    """Return N of `Prefer: wait=N`, in seconds; None where it is not asked for, or is no number."""
    text = preferences(meta).get("wait", "")
    if not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if len(text) <= _MAX_DIGITS else 10**_MAX_DIGITS


def respond_async(meta: Mapping[str, Any]) -> bool:
    """Tell whether the client can do with 202, and with asking later. RFC 7240 §4.1."""
    return "respond-async" in preferences(meta)

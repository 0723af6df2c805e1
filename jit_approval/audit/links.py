"""How an event is written and chained to the one before it. Pure: who verifies a trail elsewhere has no Django."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Beyond it, JSON numbers do not keep every integer (RFC 7493 §2.2), and another reader would see another one.
_LARGEST = 2**53 - 1


def canonical(body: Mapping[str, Any]) -> str:
    """Return `body` as canonical JSON (RFC 8785).

    Only objects, arrays, strings, integers, booleans and null with ASCII keys, for which the standard
    library's sorted output is the canonical form; floats, whose form differs, and what JSON cannot hold are refused.

    Raises:
        TypeError: the body holds something else, or an integer beyond 2**53 - 1.
    """
    _refuse_others(body)
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refuse_others(value: Any) -> None:
    if value is None or isinstance(value, str):
        return
    if isinstance(value, float):
        raise TypeError("an audit body holds no floats")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise TypeError("an audit body holds no integers beyond 2**53 - 1")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise TypeError(f"an audit body's keys are ASCII strings, not {key!r}")
            _refuse_others(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_others(item)


def digest(previous_hash: str, body: str) -> str:
    """Return the hex SHA-256 that chains `body` to the event before it."""
    return hashlib.sha256(f"{previous_hash}\n{body}".encode()).hexdigest()

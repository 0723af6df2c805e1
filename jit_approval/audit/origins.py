"""From where somebody acted: beside the body, which has only a commitment to it. Pure; see docs/audit.md for the form.

So whoever is shown an event need not be shown the address of who acted, and can still verify all else; and whoever is
shown the address can verify that it is the one that was signed. The salt keeps it from being guessed: there are few
addresses to try.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from jit_approval.audit.links import canonical

COMMITTED = "origin"
"""The member of a body's `by` that has the commitment."""


class State(StrEnum):
    """What there is of an event's origin."""

    NONE = "none"
    SHOWN = "shown"
    WITHHELD = "withheld"
    FORGED = "forged"


WHOLE = (State.NONE, State.SHOWN)
"""What there is beside an event that has its content, where nobody has left anything out."""


def written(ip: str, user_agent: str) -> str:
    """Return the text that is committed to; nothing where there is nothing to say."""
    if not (ip or user_agent):
        return ""
    return canonical({"salt": secrets.token_hex(16), "ip": ip, "user_agent": user_agent})


def commitment(text: str) -> str:
    """Return the hex SHA-256 of the text, which the body has in its place.

    Raises:
        UnicodeEncodeError: it is no text that could have been written.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def state(text: str | None, body: Any) -> State:
    """Tell what `text` is to the body of its event, which has been parsed."""
    by = body.get("by") if isinstance(body, Mapping) else None
    by = by if isinstance(by, Mapping) else {}
    is_committed = COMMITTED in by
    if not text:
        return State.WITHHELD if is_committed else State.NONE
    try:
        matches = is_committed and commitment(text) == by[COMMITTED]
    except UnicodeEncodeError:
        matches = False
    return State.SHOWN if matches else State.FORGED


def state_in(text: str | None, body: str) -> State:
    """Tell the same of a body that has not been parsed; of one that cannot be, nothing can be true."""
    try:
        return state(text, json.loads(body))
    except (ValueError, RecursionError):
        return State.FORGED if text else State.NONE


def read(text: str | None) -> dict[str, str]:
    """Return `ip` and `user_agent` as far as they are known, from whoever wrote it."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: found[name]
        for name in ("ip", "user_agent")
        if isinstance(found.get(name), str) and found[name]
    }

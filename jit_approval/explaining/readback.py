"""What a condition would have been asked about a call of the past, as far as it can be read back.

On record is what was shown: redacted, escaped, cut. A value that cannot be read back is `UNKNOWN`, which no condition
can use, so that what depends on it fails and a replay says "cannot be told", never a silent no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.utils.dateparse import parse_datetime

from jit_approval import conf
from jit_approval.explaining.recorded import Recorded
from jit_approval.redaction import REDACTED, seen

UNKNOWN = object()
_USER = ("user.id", "user.username", "user.groups", "user.is_staff", "user.is_superuser")
_AGENT_LENGTH = 300
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


@dataclass
class Readback:
    """Facts of a recorded call. `gaps` says, by variable as conditions name it, what is missing from it."""

    facts: dict[str, Any]
    gaps: dict[str, str] = field(default_factory=dict)
    # The same where text of the object that looks like a number or a time was one before it was shown.
    retyped: dict[str, Any] | None = None


def of(record: Recorded, user: Mapping[str, Any] | None, *, needs: frozenset[str]) -> Readback:
    """Return the facts that `needs` names (request.data, object, …). `user` is None where the account is gone."""
    found = Readback(
        {
            "action": record.action,
            "now": record.at,
            "user": UNKNOWN if user is None else user,
            "object": UNKNOWN,
            "agent": record.acted_for,
        }
    )
    if record.acted_for is None or _is_altered(record.acted_for):
        found.facts["agent"] = UNKNOWN
        found.gaps["agent"] = "who acted for the requester is not recorded, or only in part"
    if user is None:
        found.gaps |= dict.fromkeys(_USER, "the account is gone")
    found.facts["request"] = _request(record, found.gaps, needs)
    if "object" in needs:
        _put_object(record, found)
    return found


def _request(record: Recorded, gaps: dict[str, str], needs: frozenset[str]) -> dict[str, Any]:
    path, query = _path_and_query(record.path, gaps)
    request = {
        "method": "GET" if record.method == "HEAD" else record.method,
        "path": path,
        "query": query,
        "ip": record.ip,
        "headers": {},
        "agent": record.agent,
        "data": _data(record, gaps) if "request.data" in needs else UNKNOWN,
    }
    if conf.get().CONDITION_HEADERS:
        request["headers"] = UNKNOWN
        gaps["request.headers"] = "headers are not recorded"
    if record.agent is None or len(record.agent) >= _AGENT_LENGTH or _is_altered(record.agent):
        request["agent"] = UNKNOWN
        gaps["request.agent"] = "the user agent is not recorded, or only in part"
    return request


# --- path and query ----------------------------------------------------------------------------------------


def _path_and_query(shown: str, gaps: dict[str, str]) -> tuple[Any, Any]:
    """Return the path and the query that were shown as one text; where they end is not always certain."""
    path, mark, query = shown.partition("?")
    if shown.endswith("…") or "?" in query:
        gaps["request.path"] = gaps["request.query"] = "the path is recorded in part"
        return UNKNOWN, UNKNOWN
    if _is_altered(path):
        gaps["request.path"] = "the path is recorded with escapes"
        return UNKNOWN, _query(query if mark else "", gaps)
    return path, _query(query if mark else "", gaps)


def _query(shown: str, gaps: dict[str, str]) -> Any:
    if not shown:
        return {}
    found: dict[str, list[str]] = {}
    for piece in shown.split("&"):
        name, equals, value = piece.partition("=")
        if not equals or _is_altered(name):
            gaps["request.query"] = "the query cannot be taken apart again"
            return UNKNOWN
        found.setdefault(name, []).append(value)
    hidden = [name for name, values in found.items() if any(map(_is_hidden, values))]
    if hidden:
        gaps["request.query"] = "the query is recorded redacted"
    return {
        name: UNKNOWN if name in hidden else values[0] if len(values) == 1 else values
        for name, values in found.items()
    }


# --- payload and object ------------------------------------------------------------------------------------


def _data(record: Recorded, gaps: dict[str, str]) -> Any:
    if record.payload is None:
        if record.context is None:
            gaps["request.data"] = "the payload of a call that was never held is not recorded"
        else:
            gaps["request.data"] = "the payload is recorded in part"
        return UNKNOWN
    if not record.payload:
        return {}
    try:
        data = _revealed(json.loads(record.payload))
    except (ValueError, RecursionError):
        gaps["request.data"] = "the payload cannot be read back"
        return UNKNOWN
    if _has_unknown(data):
        gaps["request.data"] = "the payload is recorded redacted"
    return data


def _put_object(record: Recorded, found: Readback) -> None:
    if record.context is None:
        found.gaps["object"] = "the object of a call that was never held is not recorded"
        return
    context = _revealed(record.context, escapes=True)
    found.facts["object"] = context
    if _has_unknown(context):
        found.gaps["object"] = "the object is recorded redacted"
    retyped = _retyped(context)
    if retyped != context:
        found.retyped = {**found.facts, "object": retyped}


def _is_altered(text: str) -> bool:
    """Tell whether the text holds what may be an escape of something else."""
    return seen(text) != text


def _is_hidden(text: str) -> bool:
    return text == REDACTED or _is_altered(text)


def _revealed(value: Any, *, escapes: bool = False) -> Any:
    """Return shown data with `UNKNOWN` for what was hidden.

    `escapes`: for data shown without JSON's own escapes, where one stands for something that is lost.
    """
    if isinstance(value, dict):
        if escapes and any(map(_is_altered, value)):
            return UNKNOWN
        return {key: _revealed(item, escapes=escapes) for key, item in value.items()}
    if isinstance(value, list):
        return [_revealed(item, escapes=escapes) for item in value]
    if isinstance(value, str) and (value == REDACTED or (escapes and _is_altered(value))):
        return UNKNOWN
    return value


def _has_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(_has_unknown, value))
    return value is UNKNOWN


def _retyped(value: Any) -> Any:
    """Return the object's data as the view may have had it: amounts and times are shown as text."""
    if isinstance(value, dict):
        return {key: _retyped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_retyped(item) for item in value]
    if not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value):
        return Decimal(value)
    return _as_time(value) or value


def _as_time(text: str) -> Any:
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None

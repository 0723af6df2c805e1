"""What a held call was shown as, and what it is bound to: in the request's row, and the `held` event commits to it.

The event holds neither payload nor context, which would stay in every export. Among what is committed to are the
keyed digests of the call's parts: without the key of the fingerprint, nobody finds out by trying what the rest was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from jit_approval.audit import acts
from jit_approval.exceptions import RequestRewritten
from jit_approval.fingerprint import canonical_json
from jit_approval.redaction import shorten, spelled
from jit_approval.states import Status

COMMITTED = "shown"
"""The member of the event's `data` that has the commitment; events of before it came have none."""
ERASURE = acts.ERASURE
"""The action of a gated erasure: what it was about is taken out of its row once it is done."""
GONE: Mapping[str, Any] = {"payload": "", "context": {}, "parts": {}, "state_parts": {}}
"""What is left then of what is committed to; without the parts, nobody finds out by trying what it was."""
LONGEST_LABEL = 254
"""Characters of somebody's name that a row keeps."""
LONGEST_PATH = 2000
"""Characters of a path that an event keeps."""

_TEXTS = (
    "method",
    "path",
    "object_model",
    "object_pk",
    "object_label",
    "payload",
    "reason",
    "ip",
    "user_agent",
    "agent",
    "requester_person",
    "state_digest",
)
_FLAGS = ("payload_truncated", "agent_proven", "idempotent")
_DATA = ("context", "persons", "parts", "state_parts", "ladder")
_COLUMNS = (*_TEXTS, *_FLAGS, *_DATA)
# Columns by the members of the event's `data`, and of its terms.
_OF_CALL = {"object": "object_label"} | {
    name: name
    for name in (
        "action",
        "fingerprint",
        "method",
        "object_model",
        "object_pk",
        "reason",
        "agent",
    )
}
_OF_TERMS = (
    "policy_id",
    "policy_slug",
    "policy_version",
    "required_approvals",
    "group_requirements",
    "object_permission",
    "object_permission_label",
    "require_approval_id",
    "severity",
    "execution",
    "usable_within",
)
COLUMNS = (
    "action",
    "outcome",
    "fingerprint",
    "requester_id",
    "requester_label",
    "credential",
    "created_at",
    "decide_by",
    *_OF_TERMS,
    *_COLUMNS,
)
"""The columns of a request that are looked at here."""


def commitment(row: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 that stands in the event for what the row shows, and is bound to."""
    texts = {name: str(row[name]) for name in _TEXTS}
    flags = {name: bool(row[name]) for name in _FLAGS}
    data = {name: _as_any_database_gives_it(row[name]) for name in _DATA}
    return hashlib.sha256(canonical_json({**texts, **flags, **data})).hexdigest()


def _as_any_database_gives_it(value: Any) -> Any:
    """Return JSON whose whole numbers are integers: PostgreSQL gives 1e16 back as one, and -0.0 as 0.0."""
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))
    if isinstance(value, Mapping):
        return {name: _as_any_database_gives_it(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_any_database_gives_it(item) for item in value]
    return value


def ensure_as_held(row: Any, body: str | None) -> None:
    """Refuse an open request that is not what the body of its `held` event says. Of open ones nothing is erased.

    Raises:
        RequestRewritten: it differs, or there is no such event.
    """
    if not body or rewritten(row, body):
        raise RequestRewritten(
            "What is shown is not what was asked: it was rewritten in the database."
        )


def rewritten(row: Any, body: str) -> list[str]:
    """Return the columns of an open request that are not what the body of its `held` event says."""
    named = differing({name: getattr(row, name) for name in COLUMNS}, body)
    # The deadline in force is, until somebody decides, the one that was held; a nearer one lets nobody do more.
    if row.status == Status.PENDING and row.due_at is not None and row.due_at > row.decide_by:
        named.append("due_at")
    return named


def differing(row: Mapping[str, Any], body: str) -> list[str]:
    """Return the columns of the row that are not what the body of its `held` event says.

    Nothing can be told of a body that was erased. One that cannot be read is none that was written: all differs.
    """
    if not body:
        return []
    try:
        found = json.loads(body)
        said = {**_of_who(found["by"], row), **_of_call(found["data"], row)}
        named = [name for name, (is_now, was) in said.items() if is_now != was]
        if not named and not _is_as_shown(row, found["data"].get(COMMITTED)):
            named = ["what was shown (payload, context and others)"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ["the event that it was held"]
    return named


def _is_as_shown(row: Mapping[str, Any], committed: Any) -> bool:
    if committed is None or commitment(row) == committed:
        return True
    is_done = row["action"] == ERASURE and row["outcome"] == "succeeded"
    return is_done and all(row[name] == value for name, value in GONE.items())


def is_of_name(label: str, name: str) -> bool:
    """Tell whether what a row keeps of a name is of this one, whatever Unicode the process knew that wrote it."""
    kept, whole = spelled(label), spelled(name)
    return kept == (whole[: len(kept)] if len(label) >= LONGEST_LABEL else whole)


def _of_who(by: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return, by column, what it is and what the event says of the requester."""
    label = row["requester_label"]
    said = {"requester_label": (label, label if is_of_name(label, by["label"]) else by["label"])}
    if row["requester_id"] is not None:  # the account may be gone
        said["requester_id"] = (str(row["requester_id"]), by["pk"])
    if "person" in by:
        said["requester_person"] = (row["requester_person"], by["person"])
        said["credential"] = (row["credential"], by.get("credential", ""))
    return said


def _of_call(data: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return, by column, what it is and what the event says of the call and its terms."""
    said = {
        column: (row[column], data[member]) for member, column in _OF_CALL.items() if member in data
    }
    if "path" in data:
        said["path"] = (shorten(row["path"], LONGEST_PATH), data["path"])
    terms = data.get("terms", {})
    said |= {name: (_plain(row[name]), terms[name]) for name in _OF_TERMS if name in terms}
    if "decide_within" in terms:
        # Who reads many has the database subtract.
        window = row["window"] if "window" in row else row["decide_by"] - row["created_at"]
        said["decide_by"] = (_plain(window), terms["decide_within"])
    return said


def _plain(value: Any) -> Any:
    """Return a column as an event has it."""
    return int(value.total_seconds() * 1000) if isinstance(value, timedelta) else value

"""What the columns beside what was hashed or signed must say: lists, filters and the sealer read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from jit_approval.audit import checkpoints, notes, origins
from jit_approval.audit.links import digest
from jit_approval.models import AuditEvent, Checkpoint


def are_of_event(event: AuditEvent) -> bool:
    """Tell whether the columns of an event say what its content says.

    Of what was erased, kind, time and states are left as they were, and nothing vouches for them. That nobody is
    named, and that what belongs to no request is alone, is known all the same.
    """
    if not event.body:
        is_alone = event.sequence == 1 and not event.previous_hash
        is_linked = event.approval_request_id is not None  # see `live`: its chain is compared
        is_nameless = not event.actor_label and event.actor_id is None and not event.origin
        return is_nameless and (is_alone or is_linked)
    request = str(event.approval_request_id) if event.approval_request_id else None
    try:
        at = event.at.astimezone(UTC).isoformat(timespec="microseconds")
        columns = (event.sequence, event.kind, at, event.actor_label, event.source, event.target)
        said = json.loads(event.body)
        by = said["by"] or {"pk": "", "label": ""}
        content = (said["sequence"], said["kind"], said["at"], by["label"])
        # An account that was removed is not named by a key any more.
        same_actor = event.actor_id is None or str(event.actor_id) == by["pk"]
        return bool(
            columns == (*content, said.get("from", ""), said.get("to", ""))
            and said["request"] == request
            and same_actor
            and origins.state(event.origin, said) in origins.WHOLE
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def are_hashed(event: AuditEvent) -> bool:
    """Tell whether the content of an event is what its hash says."""
    return digest(event.previous_hash, event.body) == event.hash


def are_of_statement(row: Checkpoint, number: int, size: int) -> bool:
    """Tell whether the columns of the statement `number` say what it states; `size` is that of the one before it.

    What cannot be read states nothing that they could differ from.
    """
    try:
        statement = checkpoints.parse(notes.split(row.note)[0])
    except notes.NoteError:
        return row.number == number
    if isinstance(statement, checkpoints.Checkpoint):
        kind, size = Checkpoint.Kind.CHECKPOINT, statement.size
    else:
        kind = Checkpoint.Kind.ROTATION
    # Fractions of the second are not signed. SQLite holds what is no time at all, which is then read as None.
    at = int(row.at.timestamp()) if isinstance(row.at, datetime) else None
    return (row.number, row.kind, row.size, at) == (number, kind, size, statement.time)

"""What people are shown, and what decides whether a call may run, must be what the trail says: rows against events.

Requests are read some at a time, then their votes, then their events, in this order: whatever was written, or erased,
in between is in the events, and those that are newer than the request as it was read are left out. So who writes
meanwhile is not accused, and no transaction is kept open.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.db.models import (
    BooleanField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    TextField,
)
from django.db.models.functions import Cast

from jit_approval.audit import shown
from jit_approval.audit.findings import Kind
from jit_approval.models import ApprovalRequest, AuditEvent, Decision
from jit_approval.states import Outcome, Status, Verdict

_AT_ONCE = 500
_VERDICTS = {
    "vote": Verdict.APPROVE,
    Status.APPROVED.value: Verdict.APPROVE,
    Status.REJECTED.value: Verdict.REJECT,
}
_TIMES = (
    "created_at",
    "decided_at",
    "decide_by",
    "usable_until",
    "due_at",
    "consumed_at",
    "finished_at",
)
_COLUMNS = (
    *("id", "status", "response_status", "exception", "audit_seq"),
    *(name for name in shown.COLUMNS if name not in _TIMES),
)
_OF_VOTE = (
    "id",
    "approval_request_id",
    "decider_id",
    "decider_label",
    "person",
    "verdict",
    "comment",
    "on_behalf_of",
)
# What only an erased event said.
_UNKNOWN = object()

Row = Mapping[str, Any]
Found = tuple[Kind, int | None, str]


class Event(NamedTuple):
    """What is read of an event. Times are text, as they are of rows: equal or not, and cheap to read."""

    sequence: int
    kind: str
    target: str
    body: str
    at: str


def differing(alias: str) -> Iterator[Found]:
    """Compare each request, and each vote, with the events of the request. Chains are looked at elsewhere."""
    last: Any = None
    try:
        while rows := _some(alias, last):
            last = rows[-1]["id"]
            keys = [row["id"] for row in rows]
            votes, events = _votes(alias, keys), _events(alias, keys)
            for row in rows:
                yield from _readable(row, votes[row["id"]], events[row["id"]])
    except (ValueError, TypeError, AttributeError) as error:
        # SQLite keeps whatever is written. What comes after it is not looked at.
        yield Kind.ALTERED, None, f"a request, or a vote, cannot be read: {error}"
    yield from _without_request(alias)


def _some(alias: str, last: Any) -> list[dict[str, Any]]:
    rows = ApprovalRequest.objects.using(alias).order_by("pk")
    if last is not None:
        rows = rows.filter(pk__gt=last)
    until = Q(usable_until=F("decided_at") + F("usable_within"))
    computed = {
        "window": ExpressionWrapper(F("decide_by") - F("created_at"), DurationField()),
        "is_usable_as_said": ExpressionWrapper(until, BooleanField(null=True)),
    }
    times = {f"{name}_text": _as_text(name) for name in _TIMES}
    return list(rows.values(*_COLUMNS, **computed, **times)[:_AT_ONCE])


def _as_text(name: str) -> Cast:
    return Cast(name, TextField())


def _votes(alias: str, keys: Sequence[Any]) -> Mapping[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    rows = Decision.objects.using(alias).filter(approval_request__in=keys).order_by("pk")
    for row in rows.values(*_OF_VOTE, at=_as_text("created_at")):
        found[row["approval_request_id"]].append(row)
    return found


def _events(alias: str, keys: Sequence[Any]) -> Mapping[Any, list[Event]]:
    found: dict[Any, list[Event]] = defaultdict(list)
    rows = AuditEvent.objects.using(alias).filter(approval_request__in=keys)
    rows = rows.annotate(at_text=_as_text("at")).order_by("approval_request", "sequence")
    for request, *event in rows.values_list("approval_request_id", *Event._fields[:-1], "at_text"):
        found[request].append(Event(*event))
    return found


def _readable(row: Row, votes: Sequence[Row], events: Sequence[Event]) -> Iterator[Found]:
    try:
        yield from _of_request(row, votes, events)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield Kind.ALTERED, None, f"an event of request {row['id']} does not say what it should"


def _of_request(row: Row, votes: Sequence[Row], events: Sequence[Event]) -> Iterator[Found]:
    if not events:
        return  # which is told as that: see `live`
    until = [event for event in events if event.sequence <= row["audit_seq"]]
    said = _said(row, until)
    names = [name.removesuffix("_text") for name, value in said.items() if row[name] != value]
    for event in until:
        if event.kind == "held":
            names += shown.differing(row, event.body)
    if names:
        text = f"request {row['id']} is not what its events say: {', '.join(names)}"
        yield Kind.ALTERED, None, text
    yield from _of_votes(row, votes, events)


def _said(row: Row, events: Sequence[Event]) -> dict[str, Any]:
    """Return, by column, what these events say of how far it is. What was erased says nothing."""
    said = dict(_NOTHING)
    for event in events:
        if event.target:
            said["status"] = event.target
        if event.kind in _BY_KIND:
            said |= _BY_KIND[event.kind](event)
    if said["status"] == Status.PENDING:
        said["due_at_text"] = row["decide_by_text"]
    elif said["status"] == Status.APPROVED:
        said["due_at_text"] = row["usable_until_text"]
    return {name: value for name, value in said.items() if value is not _UNKNOWN}


_NOTHING: Mapping[str, Any] = {
    "status": "",
    "outcome": "",
    "exception": "",
    "response_status": None,
    "decided_at_text": None,
    "consumed_at_text": None,
    "finished_at_text": None,
    "is_usable_as_said": None,
}
"""What columns hold where no event has told of them."""

_BY_KIND: Mapping[str, Callable[[Event], dict[str, Any]]] = {
    "held": lambda event: {"created_at_text": event.at},
    "approved": lambda event: {"decided_at_text": event.at, "is_usable_as_said": True},
    "rejected": lambda event: {"decided_at_text": event.at},
    "consumed": lambda event: {"consumed_at_text": event.at, "outcome": Outcome.RUNNING},
    "outcome": lambda event: {"finished_at_text": event.at, **_ended(_data(event))},
    "settled": lambda event: {"outcome": _data(event).get("outcome", _UNKNOWN)},
}


def _ended(data: Mapping[str, Any]) -> dict[str, Any]:
    members = {"outcome": "outcome", "response_status": "status", "exception": "exception"}
    return {column: data.get(member, _UNKNOWN) for column, member in members.items()}


def _of_votes(row: Row, votes: Sequence[Row], events: Sequence[Event]) -> Iterator[Found]:
    """Pair the votes with the events that tell of them, by the moment of both."""
    left: dict[Any, list[Row]] = defaultdict(list)
    for vote in votes:
        left[vote["at"]].append(vote)
    for event in events:
        if event.kind not in _VERDICTS:
            continue
        if left[event.at]:
            yield from _of_vote(row, left[event.at].pop(0), event)
        elif event.sequence <= row["audit_seq"]:
            text = f"the vote that event {event.sequence} of request {row['id']} tells of"
            yield Kind.MISSING, None, text
    for vote in votes:
        if vote in left[vote["at"]]:
            text = f"vote {vote['id']} on request {row['id']}: no event tells of it, at its time"
            yield Kind.ALTERED, None, text


def _of_vote(row: Row, vote: Row, event: Event) -> Iterator[Found]:
    said = {"verdict": _VERDICTS[event.kind].value, **_of_voter(vote, event)}
    names = [name for name, value in said.items() if vote[name] != value]
    if names:
        what = f"vote {vote['id']} on request {row['id']}"
        yield Kind.ALTERED, None, f"{what} is not what its event says: {', '.join(names)}"


def _of_voter(vote: Row, event: Event) -> dict[str, Any]:
    body = _body(event)
    if not body:
        return {}
    by, data = body["by"], body["data"]
    said = {
        "comment": data.get("comment", ""),
        "on_behalf_of": data.get("on_behalf_of", []),
    }
    if not shown.is_of_name(vote["decider_label"], by["label"]):
        said["decider_label"] = by["label"]
    if "person" in by:
        said["person"] = by["person"]
    if vote["decider_id"] is not None and str(vote["decider_id"]) != by["pk"]:
        said["decider_id"] = by["pk"]
    return said


def _data(event: Event) -> Mapping[str, Any]:
    return _body(event).get("data") or {}


def _body(event: Event) -> dict[str, Any]:
    """Return what an event says, {} where that was erased. That it is what was hashed is looked at elsewhere."""
    found = json.loads(event.body) if event.body else {}
    return found if isinstance(found, dict) else {}


def _without_request(alias: str) -> Iterator[Found]:
    """Name the votes whose request is gone."""
    request = ApprovalRequest.objects.using(alias).filter(pk=OuterRef("approval_request_id"))
    rows = Decision.objects.using(alias).filter(~Exists(request)).order_by("pk")
    for pk in rows.values_list("pk", flat=True).iterator():
        yield Kind.MISSING, None, f"the request of vote {pk} is gone; the vote is there"

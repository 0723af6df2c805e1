"""Calls of the past, from what was written down of them: held ones, and those that policies let by or refused."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jit_approval import policies
from jit_approval.audit import origins
from jit_approval.models import ApprovalRequest, AuditEvent

HELD = "held"
KINDS = ("observed", "allowed", "denied")
# Longer than one call takes from its first event to its last, shorter than a client waits to repeat it.
_ONE_CALL = timedelta(seconds=2)
_CHUNK = 500
_COLUMNS = (
    "created_at",
    "fingerprint",
    "action",
    "requester_id",
    "requester_label",
    "method",
    "path",
    "payload",
    "payload_truncated",
    "context",
    "ip",
    "user_agent",
    "agent",
)


@dataclass(slots=True)
class Recorded:
    """One call that was made. `fate` is what came of it: held, allowed, denied, or observed, and it ran."""

    at: datetime
    fingerprint: str
    action: str
    user_id: Any
    user_label: str
    fate: str
    method: str
    path: str
    ip: str
    # As they were shown. Not on record of a call that was never held; the payload neither where it was cut.
    payload: str | None = None
    context: Mapping[str, Any] | None = None
    agent: str | None = None
    # Who acted for the requester; None where that was not written down.
    acted_for: str | None = None
    # (kind, policy) of the events that this one call has left.
    traces: set[tuple[str, str]] = field(default_factory=set)

    def join(self, other: Recorded) -> None:
        """Take over what a later record of the same call knows."""
        self.traces |= other.traces
        self.fate = other.fate if other.fate != "observed" else self.fate
        if other.payload is not None or other.context is not None:
            self.payload, self.context, self.agent = other.payload, other.context, other.agent

    def is_more_of(self, other: Recorded) -> bool:
        """Tell whether this record is of the very call of one just before, rather than of its repetition."""
        return other.fate == "observed" and not self.traces & other.traces


def calls(since: datetime, until: datetime, *, without: str = "") -> Iterator[Recorded]:
    """Return the calls on record, each once, about in their order; `without` is an action to leave out.

    Read a day at a time and streamed, where the database's driver streams.
    """
    waiting: dict[str, Recorded] = {}
    for start, end in _days(since, until):
        for record in heapq.merge(
            _events(start, end), _requests(start, end), key=lambda one: one.at
        ):
            if record.action == without:
                continue
            yield from _settled(waiting, record.at - _ONE_CALL)
            earlier = waiting.get(record.fingerprint)
            if earlier is not None and record.is_more_of(earlier):
                earlier.join(record)
                continue
            if earlier is not None:
                yield waiting.pop(record.fingerprint)
            waiting[record.fingerprint] = record
    yield from waiting.values()


def _settled(waiting: dict[str, Recorded], before: datetime) -> Iterator[Recorded]:
    """Yield the calls of which nothing more can come. They wait in the order of their time."""
    while waiting:
        oldest = next(iter(waiting))
        if waiting[oldest].at >= before:
            return
        yield waiting.pop(oldest)


def _days(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    while since < until:
        end = min(since + timedelta(days=1), until)
        yield since, end
        since = end


# --- the rows ----------------------------------------------------------------------------------------------


def _requests(start: datetime, end: datetime) -> Iterator[Recorded]:
    rows = ApprovalRequest.objects.using(policies.database())
    rows = rows.filter(created_at__gte=start, created_at__lt=end).order_by("created_at", "pk")
    for (
        at,
        fingerprint,
        action,
        user,
        label,
        method,
        path,
        *shown,
        ip,
        agent,
        acted_for,
    ) in rows.values_list(*_COLUMNS).iterator(chunk_size=_CHUNK):
        payload, is_cut, context = shown
        yield Recorded(
            at,
            fingerprint,
            action,
            user,
            label,
            HELD,
            method,
            path,
            ip,
            payload=None if is_cut else payload,
            context=context,
            agent=agent,
            acted_for=acted_for,
            traces={(HELD, "")},
        )


def _events(start: datetime, end: datetime) -> Iterator[Recorded]:
    rows = AuditEvent.objects.using(policies.database()).filter(
        approval_request=None, kind__in=KINDS, at__gte=start, at__lt=end
    )
    columns = rows.order_by("at", "pk").values_list(
        "at", "kind", "actor_id", "actor_label", "body", "origin"
    )
    for at, kind, user, label, body, origin in columns.iterator(chunk_size=_CHUNK):
        data = _data(body)
        yield Recorded(
            at,
            str(data.get("fingerprint", "")),
            str(data.get("action", "")),
            user,
            label,
            kind,
            str(data.get("method", "")),
            str(data.get("path", "")),
            # Events of the first version have it in their bodies.
            origins.read(origin).get("ip") or str(data.get("ip", "")),
            acted_for=data.get("agent"),
            traces={(kind, str(data.get("policy", "")))},
        )


def _data(body: str) -> Mapping[str, Any]:
    try:
        data = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}

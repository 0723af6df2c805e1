"""What must be true of every request in the end, and of what arrived in people's mailboxes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from jit_approval import clock
from jit_approval.audit import chain
from jit_approval.models import ApprovalRequest, AuditEvent, Notification
from jit_approval.notifications import messages, recipients
from jit_approval.policies import ladder
from jit_approval.states import Status
from tests.sinks import Sink

State = Notification.State
# Of what is told, by the kind of the event in the trail. "held" is told unless somebody was faster.
_TOLD = {
    "held": "held",
    "approved": "decided",
    "rejected": "decided",
    "expired": "expired",
    "revoked": "revoked",
}


def ensure_right(
    keys: Collection[UUID], sink: Sink, runs: Path, in_flight: Collection[int] = ()
) -> int:
    """Check trails, messages, mailboxes and runs of some requests; return how many messages arrived twice.

    `in_flight` are messages that a process had claimed and not written down as sent when it died: these alone may
    have arrived twice.
    """
    arrived = Counter(str(mail["Message-ID"]) for mail in sink.got)
    twice = 0
    for row in ApprovalRequest.objects.filter(pk__in=keys):
        trail = list(AuditEvent.objects.filter(approval_request=row).order_by("sequence"))
        _ensure_sound(row, trail)
        _ensure_climbed(row, trail)
        _ensure_each_told_once(row, trail)
        for message in row.notifications.exclude(recipient=""):
            twice += _ensure_arrived(message, arrived, may_be_two=message.pk in in_flight) > 1
    _ensure_runs(keys, Counter(runs.read_text().split()))
    return twice


def _ensure_sound(row: ApprovalRequest, trail: list[AuditEvent]) -> None:
    assert chain.first_broken(trail) is None
    assert (row.audit_seq, row.audit_head) == (len(trail), trail[-1].hash)


def _ensure_climbed(row: ApprovalRequest, trail: list[AuditEvent]) -> None:
    """The steps of the ladder were taken once and in order; none that was due while the call waited is missing."""
    taken = [json.loads(event.body)["data"]["step"] for event in trail if event.kind == "escalated"]
    assert taken == list(range(1, row.steps_taken + 1))
    if row.status == Status.PENDING:
        now = clock.now("default")
        due = [rung for rung in ladder.rungs(row) if rung.at is not None and rung.at <= now]
        assert len(taken) == len(due), (taken, due)


def _ensure_each_told_once(row: ApprovalRequest, trail: list[AuditEvent]) -> None:
    """One outbox row per transition that people are told of, and none besides."""
    wanted = Counter(_TOLD[event.kind] for event in trail if event.kind in _TOLD)
    wanted["unknown"] = row.outcome == "unknown"
    steps = [json.loads(event.body)["data"] for event in trail if event.kind == "escalated"]
    wanted["reminder"] = sum(step["deciders"] for step in steps)
    wanted["escalated"] = sum(bool(step["users"]) for step in steps)
    written = Counter(row.notifications.filter(recipient="").values_list("event", flat=True))
    assert {event: written[event] for event in wanted} == dict(wanted), (row.pk, trail)
    outbox = row.notifications.filter(recipient="")
    assert not outbox.exclude(state__in=[State.SENT, State.DROPPED]).exists(), list(outbox)


def _ensure_arrived(message: Notification, arrived: Counter[str], *, may_be_two: bool) -> int:
    times = arrived[f"<{messages._id(message)}@example.test>"]
    said = (message.event, message.recipient, message.state, message.attempts, message.error, times)
    if message.state in (State.DROPPED, State.FAILED):
        # It was over before anybody could be told, or could be told again.
        assert message.event in recipients.ASKS and times <= 1, said
        assert message.approval_request is not None
        assert message.approval_request.status != Status.PENDING, said
        return times
    assert message.state == State.SENT, said
    assert times == 1 or (may_be_two and times == 2), said
    return times


def _ensure_runs(keys: Collection[UUID], ran: Counter[str]) -> None:
    """A call was held once and ran at most once; what succeeded did run, and what was not approved did not."""
    by_grant: dict[str, list[ApprovalRequest]] = {}
    for row in ApprovalRequest.objects.filter(pk__in=keys, action="counted.post"):
        by_grant.setdefault(grant_of(row), []).append(row)
    for grant, requests in by_grant.items():
        (row,) = requests
        assert ran[grant] <= (row.status == Status.CONSUMED), (grant, ran[grant], row.status)
        assert ran[grant] >= (row.outcome == "succeeded"), (grant, ran[grant], row.outcome)


def grant_of(row: ApprovalRequest) -> str:
    """Return the number that makes a counted call one of its own."""
    found = re.search(r"grant\D+(\d+)", row.payload)
    assert found is not None, row.payload
    return found[1]

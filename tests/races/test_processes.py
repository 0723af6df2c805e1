"""Separate processes race for the same request on PostgreSQL, through the whole HTTP stack."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from jit_approval.audit import chain
from jit_approval.models import ApprovalRequest, AuditEvent, Decision
from jit_approval.states import Status, Verdict
from tests import factories
from tests.races import runners
from tests.races.conftest import SETTINGS, approve_all, hold_all
from tests.races.processes import race

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
]

TERMINAL = {Status.REJECTED, Status.CANCELLED, Status.EXPIRED, Status.CONSUMED, Status.REVOKED}


def trail(row: ApprovalRequest) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(approval_request=row).order_by("sequence"))


def ensure_sound(row: ApprovalRequest) -> None:
    """The trail is unbroken, ends at the row's head, and enters one terminal state at most once."""
    events = trail(row)
    assert chain.first_broken(events) is None
    assert (row.audit_seq, row.audit_head) == (len(events), events[-1].hash)
    assert sum(event.target in TERMINAL for event in events) <= 1


def test_of_32_consumers_on_each_of_300_grants_one_runs_the_call(
    erin_token, runs_file, bob
) -> None:
    grants, consumers = 300, 32
    approved = approve_all(erin_token, grants, by=bob)
    args = (str(runs_file), erin_token, grants)
    answers = sum(race(runners.consume, *[args] * consumers, settings=SETTINGS), Counter())
    assert sorted(map(int, runs_file.read_text().split())) == list(range(grants))
    assert answers["201"] == grants
    # Losers are told that it ran, or held anew; nobody saw an error.
    assert set(answers) <= {"201", "approval_consumed", "approval_pending"}
    assert answers.total() == grants * consumers
    spent = ApprovalRequest.objects.filter(pk__in=approved)
    assert {row.status for row in spent} == {Status.CONSUMED}
    for row in ApprovalRequest.objects.all():
        ensure_sound(row)


def test_of_all_who_move_a_request_at_once_one_ends_it(erin, erin_token, runs_file, bob) -> None:
    rounds = 150
    people = {"approve": bob, "reject": factories.decider("carol")}
    requests = hold_all(erin_token, rounds)
    roles = ["approve", "approve", "reject", "cancel", "expire", "consume", "consume"]
    everybody = [
        (role, people.get(role, erin).pk, erin_token, str(runs_file), requests, seed)
        for seed, role in enumerate(roles)
    ]
    race(runners.meddle, *everybody, settings=SETTINGS)
    runs = Counter(map(int, runs_file.read_text().split()))
    ends: Counter[str] = Counter()
    for number, pk in enumerate(requests):
        row = ApprovalRequest.objects.get(pk=pk)
        ensure_ended_once(row, runs[number])
        ends[row.status] += 1
    # Each round was a real race: several ways to end did win.
    assert len(ends) >= 3, ends
    assert ApprovalRequest.objects.count() == rounds


def ensure_ended_once(row: ApprovalRequest, runs: int) -> None:
    ensure_sound(row)
    assert row.status in TERMINAL
    assert row.open_key is None
    targets = [event.target for event in trail(row)]
    assert [target for target in targets if target in TERMINAL] == [row.status]
    assert runs == (row.status == Status.CONSUMED)
    assert (Status.APPROVED in targets) >= (row.status == Status.CONSUMED)
    votes = list(row.decisions.values_list("person", "verdict"))
    assert len({person for person, _ in votes}) == len(votes)
    rejected = any(verdict == Verdict.REJECT for _, verdict in votes)
    assert rejected == (row.status == Status.REJECTED)


def test_the_same_call_made_16_times_at_once_is_held_once(erin_token, bob) -> None:
    rounds, callers = 40, 16
    answers = race(runners.open_same, *[(erin_token, rounds)] * callers, settings=SETTINGS)
    for ids in zip(*answers, strict=True):
        assert len(set(ids)) == 1
    assert ApprovalRequest.objects.filter(open_key__isnull=False).count() == rounds
    assert ApprovalRequest.objects.count() == rounds


def test_two_approvers_at_once_complete_a_quorum_of_two_once(bob) -> None:
    carol = factories.decider("carol")
    requests = [factories.held(terms={"required_approvals": 2}).pk for _ in range(60)]
    voters: list[Any] = [(bob.pk, requests), (carol.pk, requests)]
    assert race(runners.vote, *voters, settings=SETTINGS) == [len(requests)] * 2
    for row in ApprovalRequest.objects.filter(pk__in=requests):
        ensure_sound(row)
        assert row.status == Status.APPROVED
        assert [event.kind for event in trail(row)] == ["held", "vote", "approved"]
        assert Decision.objects.filter(approval_request=row).count() == 2

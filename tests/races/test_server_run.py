"""Web and worker killed at every boundary of the server-run path: nothing runs twice, nothing is lost in silence."""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from rest_framework.authtoken.models import Token

from jit_approval import clock, execution
from jit_approval.models import ApprovalRequest, Notification, StoredCall
from jit_approval.states import Outcome, Status
from jit_approval.sweeping import Sweeper
from tests import factories
from tests.races import kills, processes, runners

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]
# Every point once; the whole proof takes 200.
ROUNDS = int(os.environ.get("JIT_TEST_ROUNDS", len(kills.POINTS)))
KILLED = -9


@pytest.fixture
def tokens(settings: Any) -> tuple[str, str]:
    for name, value in kills.SETTINGS.items():
        setattr(settings, name, value)
    factories.policy(execution="server", actions="counted.*")
    return tuple(
        Token.objects.create(user=one).key for one in (factories.user(), factories.decider())
    )


def test_killed_at_every_boundary_it_runs_once_or_is_unknown(
    tokens: tuple[str, str], runs_file: Path
) -> None:
    survivor = runners.client(tokens[0])
    deaths: Counter[str] = Counter()
    for number, (role, at) in enumerate(islice(cycle(kills.POINTS), ROUNDS)):
        deaths[role] += one_round(number, role, at, tokens, str(runs_file), survivor)
    settle()
    assert sum(deaths.values()) == ROUNDS, deaths  # each did die
    lines = Counter(runs_file.read_text().split())
    rows = list(ApprovalRequest.objects.order_by("created_at"))
    assert len(rows) == ROUNDS
    assert {row.status for row in rows} == {Status.CONSUMED}
    outcomes = Counter(row.outcome for row in rows)
    print(f"\n{ROUNDS} kills {dict(deaths)}: {dict(outcomes)}, {sum(lines.values())} runs")
    assert set(outcomes) <= {Outcome.SUCCEEDED, Outcome.UNKNOWN}
    assert max(lines.values()) == 1, "a double"
    assert sum(lines.values()) >= outcomes[Outcome.SUCCEEDED]
    unknown = [row for row in rows if row.outcome == Outcome.UNKNOWN]
    assert Notification.objects.filter(event="unknown", recipient="").count() == len(unknown)
    for row in unknown:
        assert row.finished_at is not None and row.consumed_at is not None
        assert row.finished_at - row.consumed_at < timedelta(seconds=60)
    assert not StoredCall.objects.exists()


def one_round(
    number: int, role: str, at: int, tokens: tuple[str, str], runs: str, survivor: Any
) -> bool:
    """Go through opening, approving and running, one of them in a process that dies; the living go on after it."""
    died = False
    if role == "open":
        died = kills.killed("open", at, runs, tokens[0], number) == KILLED
    pk = runners.call(survivor, number)["Approval-Id"]  # the client repeats it
    if role == "approve":
        died = kills.killed("approve", at, runs, tokens[1], pk) == KILLED
    runners.client(tokens[1]).post(f"/approvals/{pk}/approve/")
    if role == "run":
        died = kills.killed("run", at, runs, pk) == KILLED
    sweep()
    return died


def sweep() -> None:
    """Do what any process does that lives, once the lease of the dead is over."""
    due = StoredCall.objects.filter(next_attempt_at__isnull=False)
    due.update(next_attempt_at=clock.now("default") - timedelta(minutes=1))
    Sweeper(run=execution.run).sweep()


def settle() -> None:
    """Sweep until every run that has no end is `unknown`."""
    until = time.monotonic() + 60
    while ApprovalRequest.objects.filter(outcome=Outcome.RUNNING).exists():
        assert time.monotonic() < until
        sweep()
        time.sleep(0.1)


def test_of_many_workers_one_runs_a_call(tokens: tuple[str, str], runs_file: Path) -> None:
    calls, workers = 5, 6
    pks = [
        runners.call(runners.client(tokens[0]), number)["Approval-Id"] for number in range(calls)
    ]
    for pk in pks:
        assert runners.client(tokens[1]).post(f"/approvals/{pk}/approve/").status_code == 200
    told = processes.race(
        kills.run_all, *[(str(runs_file), pks)] * workers, settings=kills.SETTINGS
    )
    assert sum(told) == calls
    assert Counter(runs_file.read_text().split()) == {str(number): 1 for number in range(calls)}

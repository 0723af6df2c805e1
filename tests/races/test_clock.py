"""Clocks and sweeps in processes of their own, on PostgreSQL: shared, killed, cut off, stopped."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections

from jit_approval import tasks
from jit_approval.audit import chain
from jit_approval.models import ApprovalRequest, AuditEvent, Heartbeat, Notification
from jit_approval.states import Status
from tests import factories
from tests.races import clocks

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def erin() -> Any:
    factories.decider("bob")
    return factories.user("erin")


def hold(requester: Any, count: int) -> list[ApprovalRequest]:
    return [factories.held(requester) for _ in range(count)]


@pytest.fixture(autouse=True)
def _told_already(erin) -> Iterator[None]:
    """What is measured is deadlines: nobody is told anything by mail."""
    yield
    Notification.objects.all().delete()


def forget_messages() -> None:
    Notification.objects.update(state=Notification.State.SENT)


def ensure_each_recorded_once(rows: list[ApprovalRequest]) -> None:
    """One event, one message and one task each, and an unbroken trail."""
    keys = [row.pk for row in rows]
    assert set(ApprovalRequest.objects.filter(pk__in=keys).values_list("status", flat=True)) == {
        Status.EXPIRED
    }
    events: dict[Any, list[AuditEvent]] = {}
    for event in AuditEvent.objects.filter(approval_request__in=keys).order_by("sequence"):
        events.setdefault(event.approval_request_id, []).append(event)
    for row in ApprovalRequest.objects.filter(pk__in=keys):
        assert [event.kind for event in events[row.pk]] == ["held", "expired"]
        assert chain.first_broken(events[row.pk]) is None
        assert row.audit_head == events[row.pk][-1].hash
    told = Notification.objects.filter(event="expired", recipient="", approval_request__in=keys)
    assert Counter(told.values_list("approval_request", flat=True)) == Counter(keys)


def test_two_clocks_and_a_sweep_share_500_rows_and_nobody_waits(erin) -> None:
    rows = hold(erin, 500)
    forget_messages()
    with clocks.running(2) as processes, clocks.LockWaits() as waits:
        clocks.wait_for(lambda: Heartbeat.objects.count() == 2)
        clocks.due_in(rows, 1.5)
        time.sleep(1.5)
        mine = 0
        while clocks.expired() < len(rows):
            mine += tasks.sweep()["expired"]
        ended = [clocks.end(process) for process in processes]
    assert [status for status, _, _ in ended] == [0, 0]
    assert waits.looks > 20
    assert waits.seen == []
    ensure_each_recorded_once(rows)
    shares = [beat.counts["expired"] for beat in Heartbeat.objects.filter(kind="clock")]
    assert len(shares) == 2
    assert all(shares), f"a clock did nothing: {shares}"
    assert sum(shares) + mine == len(rows)
    print(f"\nshares of 500: clocks {shares}, sweep {mine}; worst {clocks.lateness()[-1]:.2f} s")


def test_clock_killed_30_times_in_mid_sweep_loses_and_doubles_nothing(erin) -> None:
    kills = 30
    rows = hold(erin, 900)
    forget_messages()
    clocks.due_in(rows, -1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.races.preload"])
    in_mid_sweep = 0
    for seed in range(kills):
        before = clocks.expired()
        if len(rows) - before < 100:
            more = hold(erin, 200)
            forget_messages()
            clocks.due_in(more, -1)
            rows += more
        victim = context.Process(
            target=doomed, args=(str(connection.settings_dict["NAME"]), before, seed)
        )
        victim.start()
        victim.join(60)
        assert victim.exitcode == -9
        in_mid_sweep += before < clocks.expired() < len(rows)
    left = len(rows) - clocks.expired()
    while clocks.expired() < len(rows):
        tasks.sweep()
    ensure_each_recorded_once(rows)
    assert in_mid_sweep >= kills - 3, "the kills came too late to prove anything"
    print(
        f"\n{kills} kills, {in_mid_sweep} of them in mid-sweep, {left} rows left for the last one"
    )


def doomed(name: str, before: int, seed: int) -> None:
    """In the victim's process: on the test's database, until it is killed."""
    import django

    django.setup()
    connections["default"].settings_dict["NAME"] = name
    clocks.doomed(before, seed)


def test_clock_goes_on_when_its_connections_are_cut(erin) -> None:
    with clocks.running() as (process,):
        clocks.wait_for(Heartbeat.objects.exists)
        took = []
        for round_number in range(1, 6):
            rows = hold(erin, 5)
            forget_messages()
            assert cut_connections() >= 1
            clocks.due_in(rows, 0)
            began = time.monotonic()
            clocks.wait_for(lambda wanted=round_number * 5: clocks.expired() == wanted)
            took.append(time.monotonic() - began)
        status, output, _ = clocks.end(process)
    assert status == 0
    assert output.count("held up") == output.count("goes on, after") == 5, output
    assert max(took) < 4, took


def cut_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def test_clock_stopped_in_mid_sweep_finishes_its_batch_and_ends_within_two_seconds(erin) -> None:
    rows = hold(erin, 600)
    forget_messages()
    with clocks.running() as (process,):
        clocks.wait_for(Heartbeat.objects.exists)
        clocks.due_in(rows, 0)
        clocks.wait_for(lambda: clocks.expired() > 0)
        status, output, seconds = clocks.end(process)
    done = clocks.expired()
    assert (status, output) == (0, "approval_clock: stopped\n")
    assert seconds < 2
    assert 0 < done < len(rows), "it was not in mid-sweep"
    assert Heartbeat.objects.get().counts["expired"] == done
    while clocks.expired() < len(rows):
        tasks.sweep()
    ensure_each_recorded_once(rows)


def test_deadlines_are_recorded_within_a_second_and_a_half(erin) -> None:
    rows = hold(erin, 200)
    forget_messages()
    with clocks.running() as (process,):
        clocks.wait_for(Heartbeat.objects.exists)
        for number, row in enumerate(rows):
            clocks.due_in([row], 3 + number * 0.02)
        clocks.wait_for(lambda: clocks.expired() == len(rows))
        clocks.end(process)
    late = clocks.lateness()
    print(
        f"\nlateness of 200: p50 {late[100]:.3f} s, p99 {late[197]:.3f} s, worst {late[-1]:.3f} s"
    )
    assert late[0] >= 0
    assert late[197] <= 1.5


def test_mail_server_that_hangs_makes_no_deadline_late(erin) -> None:
    with clocks.running(mail="tests.races.clocks.Hanging") as (process,):
        factories.held(erin)  # Its message hangs.
        clocks.wait_for(lambda: Notification.objects.filter(attempts=1).exists())
        rows = hold(erin, 5)
        clocks.due_in(rows, 1)
        clocks.wait_for(lambda: clocks.expired() == 5)
        assert process.poll() is None
    assert clocks.lateness()[-1] < 1.5


def test_idle_clock_hardly_costs_a_processor(erin) -> None:
    with clocks.running() as (process,):
        clocks.wait_for(Heartbeat.objects.exists)
        time.sleep(1)
        before, seconds = cpu_seconds(process.pid), 5
        time.sleep(seconds)
        share = (cpu_seconds(process.pid) - before) / seconds
    print(f"\nidle: {share:.2%} of a processor")
    assert share < 0.03


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

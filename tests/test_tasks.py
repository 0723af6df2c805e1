"""The sweep tidies what is due and nothing else, survives any one row, and is scheduled once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.locmem import EmailBackend
from django.core.management import call_command
from django.db import IntegrityError, connection, connections
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_q.models import Schedule

from jit_approval import (
    clock,
    departures,
    escalating,
    heartbeats,
    overdue,
    services,
    sweeping,
    tasks,
)
from jit_approval.models import (
    ApprovalRequest,
    AuditEvent,
    Heartbeat,
    Notification,
    PolicyChange,
)
from jit_approval.states import Outcome, Status
from tests import factories, mailers
from tests.tables import missing

pytestmark = pytest.mark.django_db
NOTHING = dict.fromkeys(("changes", "expired", "unknown", "steps", "notices", "told", "run"), 0)


def make_due(*rows: ApprovalRequest) -> None:
    due = ApprovalRequest.objects.filter(pk__in=[row.pk for row in rows])
    due.update(due_at=F("created_at") - timedelta(seconds=1))


def lose_the_tasks() -> None:
    """The rows are older than any task still on its way."""
    Notification.objects.update(next_attempt_at=F("created_at") - timedelta(minutes=1))


def forget_messages() -> None:
    Notification.objects.update(state=Notification.State.SENT)


def poison(row: ApprovalRequest) -> ApprovalRequest:
    """The number of its next event is taken: every attempt to move it raises."""
    first = AuditEvent.objects.get(approval_request=row, sequence=1)
    AuditEvent.objects.create(
        approval_request=row, sequence=2, kind="x", at=first.at, body="{}", hash="0"
    )
    make_due(row)
    return row


@contextmanager
def refused_at_commit(row: ApprovalRequest) -> Iterator[None]:
    """PostgreSQL lets the row be changed, and takes it back when the transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'refused at commit' USING ERRCODE = '23514'; END $$"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON jit_approval_approvalrequest "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
            f"WHEN (NEW.id = '{row.pk}') EXECUTE FUNCTION refuse()"
        )
        try:
            yield
        finally:
            cursor.execute("DROP FUNCTION refuse() CASCADE")


def statuses() -> list[str]:
    return sorted(ApprovalRequest.objects.values_list("status", flat=True))


# --- deadlines -------------------------------------------------------------------------------------------


def test_sweep_expires_what_is_overdue_and_nothing_else() -> None:
    bob = factories.decider()
    rows = [factories.held() for _ in range(4)]
    services.approve(rows[0], by=bob)
    services.approve(rows[1], by=bob)
    make_due(rows[0], rows[2])
    assert tasks.sweep()["expired"] == 2
    assert statuses() == [Status.APPROVED, Status.EXPIRED, Status.EXPIRED, Status.PENDING]
    assert tasks.sweep()["expired"] == 0


def test_sweep_takes_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 2)
    factories.decider()
    make_due(*[factories.held() for _ in range(5)])
    assert tasks.sweep()["expired"] == 5


def test_one_sweep_has_an_end_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 2)
    factories.decider()
    make_due(*[factories.held() for _ in range(5)])
    out_of_time = sweeping.Sweeper()
    assert out_of_time.record_due(seconds=0.0)["expired"] == 0
    assert 2 <= out_of_time.record_due(seconds=0.000001)["expired"] <= 4
    assert out_of_time.record_due()["expired"] >= 1
    assert set(statuses()) == {Status.EXPIRED}


def test_sweep_that_is_asked_to_stop_finishes_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 2)
    factories.decider()
    make_due(*[factories.held() for _ in range(5)])
    answers = iter([False, True])
    assert sweeping.Sweeper(lambda: next(answers)).record_due()["expired"] == 2
    assert sorted(set(statuses())) == [Status.EXPIRED, Status.PENDING]


def test_soonest_deadlines_are_recorded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 1)
    factories.decider()
    rows = [factories.held() for _ in range(3)]
    make_due(*rows)
    ApprovalRequest.objects.filter(pk=rows[1].pk).update(
        due_at=F("created_at") - timedelta(minutes=1)
    )
    answers = iter([False, True])
    sweeping.Sweeper(lambda: next(answers)).record_due()
    assert factories.fresh(rows[1]).status == Status.EXPIRED


def test_grant_that_nobody_used_expires() -> None:
    bob = factories.decider("bob")
    row = factories.held()
    services.approve(row, by=bob)
    make_due(row)
    assert tasks.sweep()["expired"] == 1
    last = AuditEvent.objects.filter(approval_request=row).latest("sequence")
    assert (last.source, last.target) == (Status.APPROVED, Status.EXPIRED)


def test_expired_call_is_told_to_its_requester_by_the_next_sweep() -> None:
    factories.decider("bob")
    row = factories.held(factories.user("erin"))
    forget_messages()
    make_due(row)
    assert tasks.sweep() == {**NOTHING, "expired": 1}  # Its task is on its way.
    lose_the_tasks()
    assert tasks.sweep() == {**NOTHING, "told": 1}
    assert mail.outbox[-1].to == ["erin@example.test"]


def test_run_without_an_end_becomes_unknown_after_the_run_limit() -> None:
    bob = factories.decider("bob")
    rows = [factories.held(factories.user()) for _ in range(2)]
    for row in rows:
        services.approve(row, by=bob)
        services.consume(factories.fresh(row), state_digest=factories.STATE)
    make_due(rows[0])
    assert tasks.sweep()["unknown"] == 1
    assert factories.fresh(rows[0]).outcome == Outcome.UNKNOWN
    assert factories.fresh(rows[0]).status == Status.CONSUMED
    assert factories.fresh(rows[1]).outcome == Outcome.RUNNING
    assert tasks.sweep()["unknown"] == 0


def test_poisoned_row_does_not_stop_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    factories.decider()
    rows = [factories.held() for _ in range(3)]
    poison(rows[0])
    make_due(*rows)
    assert tasks.sweep()["expired"] == 2
    assert factories.fresh(rows[0]).status == Status.PENDING
    assert str(rows[0].pk) in caplog.text
    with pytest.raises(IntegrityError):
        services.expire(rows[0])


def test_poisoned_row_is_left_alone_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    factories.decider()
    row = poison(factories.held())
    sweeper = sweeping.Sweeper()
    sweeper.record_due()
    caplog.clear()
    assert sweeper.record_due() == {"expired": 0, "unknown": 0}
    assert not caplog.records
    # Nor is it what the clock wakes up for.
    assert sweeper.look().deadline is None
    assert sweeping.Sweeper().look().deadline is not None
    assert factories.fresh(row).status == Status.PENDING


def test_poisoned_row_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_PUT_OFF", 0.0)
    factories.decider()
    row = poison(factories.held())
    sweeper = sweeping.Sweeper()
    sweeper.record_due()
    AuditEvent.objects.filter(approval_request=row, kind="x").delete()
    assert sweeper.record_due()["expired"] == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_row_that_fails_at_the_commit_does_not_stop_its_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    factories.decider()
    rows = [factories.held() for _ in range(5)]
    make_due(*rows)
    with refused_at_commit(rows[2]):
        assert sweeping.Sweeper().record_due()["expired"] == 4
    assert factories.fresh(rows[2]).status == Status.PENDING
    assert str(rows[2].pk) in caplog.text
    assert AuditEvent.objects.filter(target=Status.EXPIRED).count() == 4
    assert sweeping.Sweeper().record_due()["expired"] == 1


@pytest.mark.django_db(transaction=True)
def test_mistake_in_a_change_of_policies_does_not_stop_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    factories.decider()
    make_due(factories.held())
    with missing(PolicyChange):
        counts = tasks.sweep()
    assert counts == {**NOTHING, "expired": 1}
    assert "changes of policies" in caplog.text


# --- what it costs ---------------------------------------------------------------------------------------


def test_sweep_with_nothing_to_do_asks_a_handful_of_indexed_questions() -> None:
    factories.decider()
    factories.held()
    tasks.sweep()
    with CaptureQueriesContext(connection) as captured:
        assert tasks.sweep() == NOTHING
    asked = [query["sql"] for query in captured if query["sql"].startswith(("SELECT", "UPDATE"))]
    # Changes, deadlines, policies with pending requests and their deciders, steps, two kinds of messages not
    # worth sending, messages, calls to run, the heartbeat.
    assert len(asked) == 11, asked


def test_rows_that_are_due_are_few_statements_each() -> None:
    factories.decider()
    make_due(*[factories.held() for _ in range(10)])
    with CaptureQueriesContext(connection) as captured:
        assert sweeping.Sweeper().record_due()["expired"] == 10
    words = Counter(query["sql"].split(None, 1)[0] for query in captured)
    assert words["SELECT"] <= 1
    # The row; its event, its message, its task.
    assert (words["UPDATE"], words["INSERT"]) == (10, 30)


@pytest.mark.postgres
def test_what_is_due_is_found_by_its_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = overdue.due("default").explain()
    assert "jit_request_due" in plan
    assert "Seq Scan" not in plan
    plan = escalating.due("default").explain()
    assert "jit_request_wake" in plan or "jit_request_due" in plan
    assert "Seq Scan" not in plan
    sql, params = sweeping.next_due_sql("default", rows=[uuid4()], messages=[1], steps=[uuid4()])
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}", params)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "jit_request_due" in plan
    assert "jit_request_wake" in plan
    assert "jit_notification_waiting" in plan
    assert "Seq Scan" not in plan


# --- what comes next -------------------------------------------------------------------------------------


def test_next_deadline_and_message_are_seen_ahead() -> None:
    sweeper = sweeping.Sweeper()
    assert sweeper.look() == sweeping.Due(None, None)
    factories.decider()
    row = factories.held(terms={"decide_within": timedelta(seconds=60)})
    seen = sweeper.look()
    assert seen.deadline == pytest.approx(60, abs=5)
    # Its task is on its way.
    assert seen.message == pytest.approx(sweeping.GRACE.total_seconds(), abs=1.5)
    make_due(row)
    forget_messages()
    seen = sweeper.look()
    assert seen.deadline is not None
    assert seen.deadline < 0
    assert seen.message is None


def test_looking_ahead_is_one_statement() -> None:
    factories.decider()
    factories.held()
    with CaptureQueriesContext(connection) as captured:
        sweeping.Sweeper().look()
    assert len(captured) == 1


# --- the heartbeat ---------------------------------------------------------------------------------------


def test_sweep_leaves_a_heartbeat_with_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_pulse", heartbeats.Pulse(Heartbeat.Kind.SCHEDULE))
    factories.decider()
    row = factories.held()
    make_due(row)
    before = clock.now("default")
    tasks.sweep()
    beat = Heartbeat.objects.get()
    assert (beat.kind, beat.host, beat.pid) == ("schedule", socket.gethostname(), os.getpid())
    assert beat.at >= before - timedelta(milliseconds=1)
    assert beat.counts["expired"] == 1
    assert beat.lateness is not None
    assert 1 <= beat.lateness < 20
    tasks.sweep()
    again = Heartbeat.objects.get()
    assert again.at > beat.at
    assert again.sweeps == beat.sweeps + 1
    assert again.counts["expired"] == 1


def test_heartbeats_of_long_ago_are_forgotten() -> None:
    now = clock.now("default")
    for pid, age in ((1, timedelta(hours=25)), (2, timedelta(hours=23))):
        Heartbeat.objects.create(
            kind="clock", host="gone", pid=pid, started_at=now - age, at=now - age
        )
    heartbeats.Pulse(Heartbeat.Kind.CLOCK).beat()
    assert list(Heartbeat.objects.filter(host="gone").values_list("pid", flat=True)) == [2]


def test_process_that_was_forked_begins_its_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = heartbeats.Pulse(Heartbeat.Kind.SCHEDULE)
    pulse.add({"expired": 3}, 1.5)
    pulse.beat()
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    pulse.add({"expired": 1})
    pulse.beat()
    beats = Heartbeat.objects.order_by("at").values_list("counts", "sweeps", "lateness")
    assert list(beats) == [({"expired": 3}, 1, 1.5), ({"expired": 1}, 1, None)]


# --- lost messages ---------------------------------------------------------------------------------------


def test_message_whose_task_was_lost_is_sent_by_the_sweep() -> None:
    factories.decider("bob")
    factories.held()
    assert tasks.sweep() == NOTHING  # Its task is on its way.
    lose_the_tasks()
    assert tasks.sweep() == {**NOTHING, "told": 1}
    lose_the_tasks()
    assert tasks.sweep() == NOTHING


def test_refused_message_is_sent_by_a_later_sweep() -> None:
    factories.decider("broken")
    factories.held()
    lose_the_tasks()
    with override_settings(**mailers.using("tests.mailers.Refusing")):
        assert tasks.sweep()["told"] == 0
    assert tasks.sweep()["told"] == 0  # Not before its time.
    lose_the_tasks()
    assert tasks.sweep()["told"] == 1


def test_message_that_cannot_be_composed_does_not_stop_the_rest() -> None:
    factories.decider("bob")
    bad, good = factories.held(), factories.held()
    lose_the_tasks()
    Notification.objects.filter(approval_request=bad).update(event="nonsense")
    assert tasks.sweep()["told"] == 1
    assert [message.subject for message in mail.outbox] == [
        f"Approval needed: customers.destroy [{good.match_code}]"
    ]


class Slow(EmailBackend):
    """A mail server that takes its time."""

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        time.sleep(0.4)
        return super().send_messages(messages)


def test_slow_mail_server_does_not_keep_a_sweep_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeping, "_SECONDS", 0.3)
    factories.decider()
    make_due(factories.held())
    for _ in range(3):
        factories.held()
    lose_the_tasks()
    with override_settings(**mailers.using("tests.test_tasks.Slow")):
        assert tasks.sweep() == {**NOTHING, "expired": 1, "told": 1}


def test_sweep_announces_no_call_that_is_over() -> None:
    factories.decider()
    row = factories.held()
    services.cancel(row, by=row.requester)
    lose_the_tasks()
    assert tasks.sweep() == NOTHING
    assert Notification.objects.get(event="held").state == Notification.State.DROPPED


def test_command_sweeps_once_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    factories.decider()
    make_due(factories.held())
    call_command("approval_sweep")
    said = "changes=0 expired=1 unknown=0 steps=0 notices=0 told=0 run=0\n"
    assert capsys.readouterr().out == said


def test_queued_names_are_the_tasks() -> None:
    from jit_approval.notifications import outbox

    assert outbox.DELIVER == f"{tasks.deliver.__module__}.{tasks.deliver.__name__}"
    assert f"{tasks.sweep.__module__}.{tasks.sweep.__name__}" == tasks.SWEEP
    assert f"{tasks.take_steps.__module__}.{tasks.take_steps.__name__}" == departures.TAKE_STEPS


# --- the schedule ----------------------------------------------------------------------------------------


def schedules() -> list[dict[str, Any]]:
    fields = ("name", "func", "schedule_type", "minutes", "repeats", "cluster")
    return list(Schedule.objects.filter(func=tasks.SWEEP).values(*fields))


EVERY_MINUTE = {
    "name": tasks.SWEEP,
    "func": tasks.SWEEP,
    "schedule_type": Schedule.MINUTES,
    "minutes": 1,
    "repeats": -1,
    "cluster": None,
}


def test_migrating_schedules_the_sweep_once() -> None:
    assert schedules() == [EVERY_MINUTE]
    call_command("migrate", verbosity=0)
    assert schedules() == [EVERY_MINUTE]


def test_deleted_schedule_comes_back_with_the_next_migrate() -> None:
    Schedule.objects.all().delete()
    call_command("migrate", verbosity=0)
    assert schedules() == [EVERY_MINUTE]


@pytest.mark.parametrize(
    "edit",
    [
        {"repeats": 0},
        {"next_run": None},
        {"minutes": 5, "cluster": "mail"},
        {"name": "tidy up approvals"},
        {"func": "project.tasks.sweep_and_report"},
    ],
)
def test_schedule_stays_as_the_operator_left_it(edit: dict[str, Any]) -> None:
    Schedule.objects.update(**edit)
    before = list(Schedule.objects.values())
    call_command("migrate", verbosity=0)
    assert list(Schedule.objects.values()) == before


def test_schedule_is_not_asked_for_on_other_databases() -> None:
    Schedule.objects.all().delete()
    tasks.ensure_schedule("elsewhere")
    assert not Schedule.objects.exists()


def test_without_the_queues_tables_there_is_no_schedule() -> None:
    with missing(Schedule):
        tasks.ensure_schedule("default")


@pytest.mark.django_db(transaction=True)
def test_two_migrations_at_once_leave_one_schedule() -> None:
    for _ in range(5):
        Schedule.objects.all().delete()
        together = threading.Barrier(4)

        def migrate(together: threading.Barrier = together) -> None:
            together.wait()
            try:
                tasks.ensure_schedule("default")
            finally:
                connections.close_all()

        threads = [threading.Thread(target=migrate) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert schedules() == [EVERY_MINUTE]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_move_and_tell_each_row_once() -> None:
    assert connection.vendor == "postgresql"
    factories.decider()
    make_due(*[factories.held(factories.user()) for _ in range(20)])
    alive = [factories.held(factories.user()) for _ in range(10)]
    lose_the_tasks()
    counts: list[dict[str, int]] = []

    def sweep() -> None:
        try:
            counts.append(tasks.sweep())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(count["expired"] for count in counts) == 20
    assert sum(count["told"] for count in counts) == len(mail.outbox) == len(alive)

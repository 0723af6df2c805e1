"""The sweep tidies what is due and nothing else, survives any one row, and is scheduled once."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import IntegrityError, connection, connections
from django.db.models import F
from django.test import override_settings
from django_q.models import Schedule

from jit_approval import services, tasks
from jit_approval.models import ApprovalRequest, AuditEvent, Notification
from jit_approval.states import Outcome, Status
from tests import factories, mailers

pytestmark = pytest.mark.django_db
NOTHING = {"changes": 0, "expired": 0, "unknown": 0, "told": 0}


def make_due(*rows: ApprovalRequest) -> None:
    due = ApprovalRequest.objects.filter(pk__in=[row.pk for row in rows])
    due.update(due_at=F("created_at") - timedelta(seconds=1))


def lose_the_tasks() -> None:
    """The rows are older than any task still on its way."""
    Notification.objects.update(next_attempt_at=F("created_at") - timedelta(minutes=1))


def forget_messages() -> None:
    Notification.objects.update(state=Notification.State.SENT)


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
    monkeypatch.setattr(tasks, "_BATCH", 2)
    factories.decider()
    make_due(*[factories.held() for _ in range(5)])
    assert tasks.sweep()["expired"] == 5


def test_one_sweep_has_an_end_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_BATCH", 2)
    monkeypatch.setattr(tasks, "_MOST_PER_SWEEP", 4)
    factories.decider()
    make_due(*[factories.held() for _ in range(5)])
    assert [tasks.sweep()["expired"] for _ in range(2)] == [4, 1]


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
    # The number of its next event is taken: every attempt to move this one raises.
    first = AuditEvent.objects.get(approval_request=rows[0])
    AuditEvent.objects.create(
        approval_request=rows[0], sequence=2, kind="x", at=first.at, body="{}", hash="0"
    )
    make_due(*rows)
    assert tasks.sweep()["expired"] == 2
    assert factories.fresh(rows[0]).status == Status.PENDING
    assert str(rows[0].pk) in caplog.text
    with pytest.raises(IntegrityError):
        services.expire(rows[0])


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


def test_hanging_mail_server_does_not_keep_a_sweep_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "_TIME_FOR_MESSAGES", -1.0)
    factories.decider()
    make_due(factories.held())
    factories.held()
    lose_the_tasks()
    assert tasks.sweep() == {**NOTHING, "expired": 1}


def test_sweep_announces_no_call_that_is_over() -> None:
    factories.decider()
    row = factories.held()
    services.cancel(row, by=row.requester)
    lose_the_tasks()
    assert tasks.sweep() == NOTHING
    assert Notification.objects.get().state == Notification.State.DROPPED


def test_command_sweeps_once_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    factories.decider()
    make_due(factories.held())
    call_command("approval_sweep")
    assert capsys.readouterr().out == "changes=0 expired=1 unknown=0 told=0\n"


def test_queued_names_are_the_tasks() -> None:
    from jit_approval.notifications import outbox

    assert outbox.DELIVER == f"{tasks.deliver.__module__}.{tasks.deliver.__name__}"
    assert f"{tasks.sweep.__module__}.{tasks.sweep.__name__}" == tasks.SWEEP


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
    table = Schedule._meta.db_table
    Schedule._meta.db_table = "not_there"
    try:
        tasks.ensure_schedule("default")
    finally:
        Schedule._meta.db_table = table


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

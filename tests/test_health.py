"""Each trouble is found, named and graded, and nothing is said where there is none."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ

from jit_approval import clock, health, services, tasks
from jit_approval.checks import HEALTH_TAG
from jit_approval.checks import health as health_checks
from jit_approval.health import Level
from jit_approval.models import ApprovalRequest, Heartbeat, Notification
from jit_approval.states import Outcome
from tests import factories
from tests.tables import missing

pytestmark = pytest.mark.django_db
WAITING = Notification.State.WAITING
QUESTIONS = [
    "sweeper",
    "overdue",
    "steps",
    "undelivered",
    "dead_letters",
    "unknown_outcomes",
    "queue",
    "trail",
    "export",
    "verification",
]


def finding(name: str) -> health.Finding:
    return next(each for each in health.report().findings if each.name == name)


def levels() -> dict[str, int]:
    """What is not as it should be."""
    return {each.name: int(each.level) for each in health.report().troubles}


def beat(age: timedelta = timedelta(0), kind: str = "clock") -> None:
    at = clock.now("default") - age
    Heartbeat.objects.create(kind=kind, host="web-1", pid=7, started_at=at, at=at)


def overdue_since(age: timedelta) -> ApprovalRequest:
    factories.decider()
    row = factories.held()
    due = {"due_at": clock.now("default") - age}
    ApprovalRequest.objects.filter(pk=row.pk).update(**due)
    quiet()
    return row


def quiet() -> None:
    """Messages sent, tasks done."""
    Notification.objects.update(state=Notification.State.SENT)
    OrmQ.objects.all().delete()


def waiting_since(age: timedelta) -> None:
    factories.decider()
    factories.held()
    Notification.objects.update(created_at=F("created_at") - age)
    OrmQ.objects.all().delete()


def task(age: timedelta, **fields: Any) -> None:
    made = {"key": Conf.CLUSTER_NAME, "payload": "x", "lock": timezone.now() - age}
    OrmQ.objects.create(**(made | fields))


# --- what is asked -----------------------------------------------------------------------------------------


def test_all_is_well_where_somebody_sweeps_and_nothing_is_late() -> None:
    factories.decider()
    factories.held()  # In time, its message and its task just made.
    tasks.sweep()
    report = health.report()
    assert [each.name for each in report.findings] == QUESTIONS
    assert report.level == Level.OK
    assert report.troubles == []


@pytest.mark.parametrize(
    ("age", "level"), [(60, 0), (150, 0), (290, 0), (310, 1), (86_000, 1)], ids=str
)
def test_sweeper_may_rest_for_five_minutes_where_nothing_is_due(age: int, level: int) -> None:
    beat(timedelta(seconds=age))
    assert finding("sweeper").level == level


@pytest.mark.parametrize(("age", "level"), [(60, 0), (110, 0), (130, 2), (310, 2)], ids=str)
def test_sweeper_may_rest_for_two_minutes_where_something_is_late(age: int, level: int) -> None:
    overdue_since(timedelta(minutes=3))
    beat(timedelta(seconds=age))
    assert finding("sweeper").level == level


def test_nobody_has_ever_swept() -> None:
    assert levels() == {"sweeper": Level.WARNING}
    overdue_since(timedelta(minutes=3))
    assert levels() == {"sweeper": Level.CRITICAL, "overdue": Level.WARNING}


def test_newest_heartbeat_of_any_kind_counts() -> None:
    beat(timedelta(hours=1), "clock")
    beat(timedelta(seconds=5), "schedule")
    found = finding("sweeper")
    assert found.level == Level.OK
    assert "schedule web-1:7" in found.message


@pytest.mark.parametrize(("age", "level"), [(-60, 0), (100, 0), (130, 1), (500, 1), (700, 2)])
def test_deadlines_that_nobody_recorded(age: int, level: int) -> None:
    overdue_since(timedelta(seconds=age))
    found = finding("overdue")
    assert (found.level, found.count) == (level, int(level > 0))
    if level:
        assert found.oldest == pytest.approx(age, abs=10)


@pytest.mark.parametrize(("age", "level"), [(-60, 0), (100, 0), (130, 1), (700, 2)])
def test_steps_on_silence_that_nobody_took(age: int, level: int) -> None:
    factories.decider()
    late = clock.now("default") - timedelta(seconds=age)
    ApprovalRequest.objects.filter(pk=factories.held().pk).update(wake_at=late)
    found = finding("steps")
    assert (found.level, found.count) == (level, int(level > 0))


def test_run_without_an_end_is_a_deadline_too() -> None:
    bob = factories.decider("bob")
    row = factories.held()
    services.approve(row, by=bob)
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    late = {"due_at": clock.now("default") - timedelta(minutes=5)}
    ApprovalRequest.objects.filter(pk=row.pk).update(**late)
    assert finding("overdue").count == 1


@pytest.mark.parametrize(("age", "level"), [(0, 0), (50, 0), (70, 1), (590, 1), (700, 2)])
def test_messages_that_wait(age: int, level: int) -> None:
    waiting_since(timedelta(seconds=age))
    found = finding("undelivered")
    assert (found.level, found.count) == (level, int(level > 0))


def test_message_that_is_tried_again_and_again_waits_too() -> None:
    waiting_since(timedelta(minutes=5))
    Notification.objects.update(attempts=3, next_attempt_at=F("created_at") + timedelta(minutes=30))
    assert finding("undelivered").count == 1


def test_dead_letters_of_the_last_day() -> None:
    factories.decider()
    for hours in (1, 25):
        row = factories.held()
        Notification.objects.filter(approval_request=row).update(
            state=Notification.State.FAILED,
            next_attempt_at=clock.now("default") - timedelta(hours=hours),
        )
    found = finding("dead_letters")
    assert (found.level, found.count) == (Level.WARNING, 1)


def test_unknown_outcomes_until_somebody_settles_them() -> None:
    bob = factories.decider("bob")
    row = factories.held()
    services.approve(row, by=bob)
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    assert finding("unknown_outcomes").level == Level.OK
    services.record_outcome(factories.fresh(row), outcome=Outcome.UNKNOWN)
    assert finding("unknown_outcomes").count == 1
    services.settle(row, by=bob, outcome=Outcome.SUCCEEDED)
    assert finding("unknown_outcomes").level == Level.OK


@pytest.mark.parametrize(("age", "level"), [(0, 0), (50, 0), (70, 1), (700, 2)])
def test_tasks_that_nobody_takes(age: int, level: int) -> None:
    task(timedelta(seconds=age))
    assert finding("queue").level == level


def test_tasks_in_work_or_of_another_queue_are_no_orphans() -> None:
    task(-timedelta(seconds=60))
    task(timedelta(hours=1), key="another")
    assert finding("queue").level == Level.OK


def test_queue_that_is_no_table_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    task(timedelta(hours=1))
    monkeypatch.setattr(Conf, "ORM", None)
    assert finding("queue").level == Level.OK
    with override_settings(Q_CLUSTER=None):
        assert finding("queue").level == Level.OK


def test_many_are_counted_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST", 3)
    factories.decider()
    for _ in range(5):
        factories.held()
    ApprovalRequest.objects.update(due_at=clock.now("default") - timedelta(minutes=4))
    found = finding("overdue")
    assert found.count == 3
    assert "not recorded: 3 or more" in found.message


@pytest.mark.postgres
def test_every_question_is_answered_from_an_index() -> None:
    beat()
    factories.decider()
    factories.held()
    with CaptureQueriesContext(connection) as captured:
        health.report()
    ours = [query["sql"] for query in captured if '"jit_approval_' in query["sql"]]
    assert len(ours) >= 7
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in ours:
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            # One row per process that sweeps: no index is worth it.
            assert "Seq Scan" not in plan or "heartbeat" in plan, f"{sql}\n{plan}"


# --- who asks ----------------------------------------------------------------------------------------------


def ask(*options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        call_command("approval_health", *options)
    return int(ended.value.code or 0)


def test_exit_status_is_the_worst_level(capsys: pytest.CaptureFixture[str]) -> None:
    beat()
    assert ask() == 0
    waiting_since(timedelta(minutes=5))
    assert ask() == 1
    overdue_since(timedelta(minutes=11))
    assert ask() == 2
    assert "critical" in capsys.readouterr().out


def test_table_names_each_question(capsys: pytest.CaptureFixture[str]) -> None:
    overdue_since(timedelta(minutes=3))
    assert ask() == 2
    lines = capsys.readouterr().out.splitlines()
    answers = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[1] for line in answers] == QUESTIONS
    assert answers[0] == "critical  sweeper           Nothing has ever swept."
    assert answers[1].startswith(
        "warning   overdue           Deadlines not recorded: 1, the oldest for 3 min"
    )
    assert "approval_clock" in lines[1]  # what to do about it


def test_json_for_monitors(capsys: pytest.CaptureFixture[str]) -> None:
    waiting_since(timedelta(minutes=5))
    beat()
    assert ask("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "warning"
    assert [each["name"] for each in found["findings"]] == QUESTIONS
    undelivered = found["findings"][QUESTIONS.index("undelivered")]
    assert (undelivered["level"], undelivered["count"]) == ("warning", 1)
    assert undelivered["oldest"] == pytest.approx(300, abs=10)


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.django_db(transaction=True)
def test_database_that_cannot_be_asked_is_critical(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with missing(Heartbeat):
        assert ask(*options) == 2
        assert run_checks(tags=[HEALTH_TAG], include_deployment_checks=True) == []
    assert "not_there" in capsys.readouterr().out


def test_troubles_are_warnings_of_check_deploy() -> None:
    def said(deploy: bool = True) -> list[str | None]:
        return [each.id for each in run_checks(tags=[HEALTH_TAG], include_deployment_checks=deploy)]

    assert said() == ["jit_approval.W020"]
    assert said(deploy=False) == []
    overdue_since(timedelta(minutes=3))
    waiting_since(timedelta(minutes=3))
    row = factories.held()
    Notification.objects.filter(approval_request=row).update(state=Notification.State.FAILED)
    ApprovalRequest.objects.filter(pk=row.pk).update(outcome=Outcome.UNKNOWN)
    task(timedelta(minutes=3))
    assert sorted(map(str, said())) == [f"jit_approval.W02{number}" for number in range(6)]
    beat()
    assert "jit_approval.W020" not in said()


def test_each_question_has_a_check_of_its_own() -> None:
    asked = {finding.name for finding in health.report().findings}
    assert asked == set(health_checks._IDS)
    assert len(set(health_checks._IDS.values())) == len(asked)


# --- the admin's front page ------------------------------------------------------------------------------


def now() -> Any:
    return clock.now("default")


def front_page(user: Any) -> str:
    return front_page_of("/admin/", user)


def front_page_of(path: str, user: Any) -> str:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_front_page_says_what_is_not_as_it_should_be_once() -> None:
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    waiting_since(timedelta(minutes=4))
    Notification.objects.create(
        event="unavailable", state="failed", created_at=now(), next_attempt_at=now()
    )
    shown = front_page(chief)
    for text in ("Nothing has ever swept.", "Messages not delivered: 1", "Messages given up"):
        assert shown.count(text) == 1
    assert "Messages not delivered" not in front_page_of("/admin/auth/user/", chief)


def test_front_page_is_silent_where_all_is_well() -> None:
    beat()
    assert "messagelist" not in front_page(
        factories.user("chief", is_staff=True, is_superuser=True)
    )


def test_front_page_says_nothing_to_those_who_see_no_calls_of_others() -> None:
    bob = factories.decider("bob", is_staff=True)
    assert "Nothing has ever swept" not in front_page(bob)
    bob.user_permissions.add(Permission.objects.get(codename="view_heartbeat"))
    assert "Nothing has ever swept" in front_page(type(bob).objects.get(pk=bob.pk))


@pytest.mark.django_db(transaction=True)
def test_front_page_opens_where_nothing_can_be_asked() -> None:
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    with missing(Heartbeat):
        assert "Site administration" in front_page(chief)


def test_heartbeats_are_read_and_never_edited() -> None:
    beat()
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    assert "web-1" in front_page_of("/admin/jit_approval/heartbeat/", chief)

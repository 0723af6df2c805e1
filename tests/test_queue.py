"""A task is queued only if what it is about was committed; a queue in trouble costs a message, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule

from jit_approval import queue, services
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import outbox
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
both_databases = pytest.mark.django_db(transaction=True, databases="__all__")
HERE = "tests.test_queue.note"
notes: list[tuple[str, bool]] = []


def note(word: str) -> None:
    """A task that writes down whether it ran inside a transaction."""
    notes.append((word, connection.in_atomic_block))


@pytest.fixture(autouse=True)
def _no_notes() -> None:
    notes.clear()


@pytest.fixture
def no_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Redis broker, with nothing behind it."""
    monkeypatch.setattr(Conf, "ORM", None)
    monkeypatch.setattr(Conf, "REDIS", {"host": "127.0.0.1", "port": 1})
    monkeypatch.setattr(queue, "_paused_until", 0.0)


@pytest.fixture(scope="module")
def second_database(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A second database with every table; what is where is for the router to say."""
    name = str(tmp_path_factory.mktemp("queue") / "queue.sqlite3")
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
    configured = connections.configure_settings({"default": {}, "queue": settings})
    connections.settings["queue"] = configured["queue"]
    with django_db_blocker.unblock():
        call_command("migrate", database="queue", verbosity=0)
        yield "queue"
        connections["queue"].close()
    del connections["queue"]
    del connections.settings["queue"]


@pytest.fixture
def another_database(second_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ORM broker, with its queue on another database."""
    monkeypatch.setattr(Conf, "ORM", second_database)
    return second_database


def queued(using: str = "default") -> list[tuple[str, tuple[Any, ...]]]:
    return [(task.task["func"], task.task["args"]) for task in OrmQ.objects.using(using)]


# --- the ORM broker on our database ----------------------------------------------------------------------


def test_task_is_part_of_the_transaction() -> None:
    with transaction.atomic():
        queue.enqueue(HERE, "a", using="default")
        assert queued() == [(HERE, ("a",))]
    assert queued() == [(HERE, ("a",))]


def test_rollback_drops_the_task() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        queue.enqueue(HERE, "a", using="default")
        raise ZeroDivisionError
    assert queued() == []


def test_opening_queues_the_delivery_of_its_outbox_row() -> None:
    factories.decider()
    factories.held()
    assert queued() == [(outbox.DELIVER, (Notification.objects.get().pk,))]


def test_queueing_in_the_transaction_closes_no_connection() -> None:
    # After a commit the broker closes every connection that is past its age: a new one per held call.
    factories.decider()
    connection.ensure_connection()
    connection.close_at, before = 0, connection.connection
    try:
        factories.held()
        assert connection.connection is before
    finally:
        connection.close_at = None


# --- another broker --------------------------------------------------------------------------------------


@both_databases
def test_broker_on_another_database_is_asked_after_the_commit(another_database: str) -> None:
    with transaction.atomic():
        queue.enqueue(HERE, "a", using="default")
        assert queued(another_database) == []
    assert queued(another_database) == [(HERE, ("a",))]
    assert queued() == []


@both_databases
def test_rollback_asks_no_other_broker(another_database: str) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        queue.enqueue(HERE, "a", using="default")
        raise ZeroDivisionError
    assert queued(another_database) == []


@both_databases
def test_schedule_is_kept_where_the_router_keeps_it(another_database: str) -> None:
    # The scheduler reads by the router, wherever the broker is.
    assert Schedule.objects.exists()
    assert not Schedule.objects.using(another_database).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SYNC", True),
        ("BROKER_CLASS", "project.Broker"),
        ("IRON_MQ", {"token": "x"}),
        ("SQS", {}),
        ("ORM", "elsewhere"),
        ("ORM", None),
    ],
)
def test_broker_is_told_as_django_q_tells_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    assert queue._shares_database("default")
    monkeypatch.setattr(Conf, name, value)
    assert not queue._shares_database("default")


@pytest.mark.usefixtures("no_broker_answers")
def test_broker_that_does_not_answer_keeps_nobody_from_a_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bob = factories.decider()
    row = factories.held()
    services.approve(row, by=bob)
    assert ApprovalRequest.objects.get().status == "approved"
    assert caplog.text.count("the sweeper will make it good") == 1


def test_broker_that_failed_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    # A Redis client tries for seconds before it gives up: not once per held call.
    monkeypatch.setattr(queue, "_paused_until", 0.0)
    monkeypatch.setattr(Conf, "BROKER_CLASS", "tests.test_queue.missing")
    queue.enqueue(HERE, "a", using="default")
    monkeypatch.setattr(Conf, "BROKER_CLASS", "django_q.brokers.orm.ORM")
    queue.enqueue(HERE, "b", using="default")
    assert queued() == []
    monkeypatch.setattr(queue, "_paused_until", monotonic() - 1)
    queue.enqueue(HERE, "c", using="default")
    assert queued() == [(HERE, ("c",))]


def test_sync_runs_the_task_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conf, "SYNC", True)
    with transaction.atomic():
        queue.enqueue(HERE, "a", using="default")
        assert notes == []
    assert notes == [("a", False)]


def test_sync_tells_people_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conf, "SYNC", True)
    factories.decider("bob")
    factories.held()
    assert [message.to for message in mail.outbox] == [["bob@example.test"]]


def test_sync_task_that_fails_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Conf, "SYNC", True)
    with transaction.atomic():
        queue.enqueue("tests.test_queue.missing", using="default")
    assert "Could not queue tests.test_queue.missing" in caplog.text


# --- no queue --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [None, {}])
def test_without_a_cluster_everything_works_and_nothing_is_queued(setting: Any) -> None:
    with override_settings(Q_CLUSTER=setting):
        bob = factories.decider()
        row = factories.held()
        services.approve(row, by=bob)
        services.consume(factories.fresh(row), state_digest=factories.STATE)
    assert queued() == []
    assert Notification.objects.filter(state="waiting").count() == 2


@pytest.mark.usefixtures("no_broker_answers")
def test_project_without_the_setting_queues_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings():
        from django.conf import settings

        del settings.Q_CLUSTER
        factories.decider()
        factories.held()
    assert caplog.text == ""

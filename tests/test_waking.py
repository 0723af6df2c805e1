"""One listener per process wakes who waits: on a NOTIFY, by looking, after failures, and in no other process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from jit_approval import services, waking
from tests import factories
from tests.lines import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)
ON_POSTGRES = pytest.mark.postgres


@pytest.fixture(autouse=True)
def _ends(settings) -> Iterator[None]:
    settings.JIT_APPROVAL = {"MAX_WAIT": 60}
    yield
    waking.stop()


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def row(bob) -> Any:
    return factories.held()


@pytest.fixture
def event() -> threading.Event:
    return threading.Event()


def silent(event: threading.Event) -> bool:
    """Whether nothing was heard in a while that is long for a listener."""
    return not event.wait(0.3)


def test_who_waits_is_woken_by_a_change_and_not_before(row, bob, event):
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)


def test_who_comes_too_late_is_woken_at_once(row, bob, event):
    services.approve(row, by=bob)
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert event.wait(PATIENCE)


def test_so_is_one_who_joins_others_too_late(row, bob, event, monkeypatch):
    monkeypatch.setattr(waking._Source, "look_every", 10 * PATIENCE)
    monkeypatch.setattr(waking._Notified, "look_every", 10 * PATIENCE)
    other = factories.held()
    with waking.watching(other.pk, other.audit_seq, lambda: None):
        services.approve(row, by=bob)
        with waking.watching(row.pk, row.audit_seq, event.set):
            assert event.wait(PATIENCE)


def test_a_change_of_another_request_wakes_nobody(row, bob, event):
    other = factories.held()
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        services.approve(other, by=bob)
        assert silent(event)


def test_what_is_not_committed_is_not_heard(row, bob, event, monkeypatch):
    # As a service whose commit fails, at the last moment.
    class Fails(Exception):
        pass

    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        with pytest.raises(Fails), transaction.atomic():
            with connection.cursor() as cursor:
                along = waking.along(row, row.audit_seq + 1, "default")
                if along is not None:
                    cursor.execute(f"SELECT {along[0]}", along[1])
            raise Fails
        assert silent(event)


def test_a_request_that_is_gone_is_no_reason_to_wait(event):
    with waking.watching(uuid4(), 1, event.set):
        assert event.wait(PATIENCE)


def test_one_thread_listens_for_all_and_ends(row, event):
    def listeners() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "jit_approval.waking"]

    with (
        waking.watching(row.pk, row.audit_seq, event.set),
        waking.watching(row.pk, row.audit_seq, event.set),
    ):
        assert len(listeners()) == 1
    waking.stop()
    assert not listeners()


def test_it_ends_by_itself_when_nobody_waits(row, event, monkeypatch):
    monkeypatch.setattr(waking, "_LINGER", 0.05)
    with waking.watching(row.pk, row.audit_seq, event.set):
        thread = waking._listener._ears.thread
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with waking.watching(row.pk, row.audit_seq - 1, event.set):  # and begins anew
        assert event.wait(PATIENCE)


def test_a_database_that_fails_is_asked_again(row, bob, event, monkeypatch, caplog):
    monkeypatch.setattr(waking, "_RETRY", 0.05)
    real, failures = waking._Source.open, []

    def fails(self: Any) -> None:
        if len(failures) < 2:
            failures.append(1)
            raise OSError("not now")
        real(self)

    monkeypatch.setattr(waking._Source, "open", fails)
    with waking.watching(row.pk, row.audit_seq, event.set):
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)
    # Said once, not once a try.
    assert caplog.text.count("is not woken") == 1
    assert "is woken again" in caplog.text


@ON_POSTGRES
def test_a_connection_that_is_lost_is_made_anew(row, bob, event, monkeypatch):
    monkeypatch.setattr(waking, "_RETRY", 0.05)

    def listening() -> list[int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND query LIKE ANY (ARRAY['LISTEN%%', 'SELECT id, audit_seq%%'])",
                (),
            )
            return [pid for (pid,) in cursor.fetchall()]

    with waking.watching(row.pk, row.audit_seq, event.set):
        (old,) = until(lambda: (found := listening())[:1] == found and found)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [old])
        until(lambda: (found := listening()) and old not in found)
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)


@ON_POSTGRES
def test_a_notification_that_is_missed_is_made_good(row, bob, event, monkeypatch, settings):
    monkeypatch.setattr(waking._Notified, "look_every", 0.2)
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        settings.JIT_APPROVAL = {}  # who decides believes that nobody waits
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)


@ON_POSTGRES
def test_no_look_is_needed_where_a_notification_arrives(row, bob, event, monkeypatch):
    monkeypatch.setattr(waking._Notified, "look_every", 10 * PATIENCE)
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)


@ON_POSTGRES
@pytest.mark.parametrize(
    "payload", ["", "x", "1 2", "0198c0de-7f3a-4c1e-9d55-0f6f5a1c2b3d x", "\n" * 50]
)
def test_nonsense_from_others_is_not_heard(row, bob, event, payload):
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [waking.CHANNEL, payload])
        assert silent(event)
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_process_that_forks_leaves_the_listener_to_its_parent(row, bob, event):
    with waking.watching(row.pk, row.audit_seq, event.set):
        assert silent(event)
        child = os.fork()
        if not child:
            # No thread of the parent's is here, and nothing of it may be closed.
            os._exit(0 if waking._listener._ears is None and waking._inherited else 1)
        end = time.monotonic() + PATIENCE
        while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(done[1]) == 0
        services.approve(row, by=bob)
        assert event.wait(PATIENCE)

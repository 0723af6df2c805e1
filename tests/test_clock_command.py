"""The clock records deadlines as they pass, goes on whatever happens, and ends when it is asked to."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models import F

from jit_approval import clock, clockwork
from jit_approval.calls import Step
from jit_approval.models import ApprovalRequest, AuditEvent, Heartbeat, Notification
from jit_approval.states import Status
from jit_approval.stopping import Stop
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
SOON = {"decide_within": timedelta(seconds=1)}


@contextmanager
def running(**options: Path) -> Iterator[None]:
    """A clock in a thread of this process, stopped in the end."""
    stop = Stop()

    def run() -> None:
        try:
            clockwork.Clockwork(stop, **options).run()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.ask()
        thread.join(10)
        stop.close()
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def expired() -> int:
    return ApprovalRequest.objects.filter(status=Status.EXPIRED).count()


def make_due(row: ApprovalRequest) -> None:
    due = ApprovalRequest.objects.filter(pk=row.pk)
    due.update(due_at=F("created_at") - timedelta(seconds=1))


# --- what it does ------------------------------------------------------------------------------------------


def test_deadline_is_recorded_as_it_passes() -> None:
    factories.decider()
    with running():
        time.sleep(0.3)  # It sleeps already.
        row = factories.held(terms=SOON)
        wait_for(lambda: expired() == 1)
    event = AuditEvent.objects.get(approval_request=row, target=Status.EXPIRED)
    assert timedelta(0) <= event.at - row.decide_by < timedelta(seconds=1)


def test_step_on_silence_is_taken_as_its_moment_comes() -> None:
    factories.decider("bob")
    with running():
        time.sleep(0.3)  # It sleeps already.
        steps = (Step(after=timedelta(seconds=1), deciders=True),)
        row = factories.held(terms={"steps": steps})
        taken = AuditEvent.objects.filter(approval_request=row, kind="escalated")
        wait_for(taken.exists)
    assert taken.get().at >= row.created_at + timedelta(seconds=1)


def test_message_whose_task_was_lost_is_sent_by_the_clock() -> None:
    factories.decider("bob")
    with running():
        factories.held()
        wait_for(lambda: len(mail.outbox) == 1)
    assert mail.outbox[0].to == ["bob@example.test"]


def test_clock_leaves_heartbeats_and_touches_its_file(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    factories.decider()
    make_due(factories.held())
    with running(health_file=path):
        wait_for(lambda: Heartbeat.objects.exists() and path.exists())
        wait_for(lambda: expired() == 1)
        first = Heartbeat.objects.get()
    last = Heartbeat.objects.get()
    assert (last.kind, last.pid) == (Heartbeat.Kind.CLOCK, os.getpid())
    # It beats as it ends, so that its counts are whole.
    assert last.at > first.at
    assert last.counts["expired"] == 1
    assert last.lateness is not None


def test_once_sweeps_once_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    factories.decider()
    make_due(factories.held())
    call_command("approval_clock", "--once")
    said = "changes=0 expired=1 unknown=0 steps=0 notices=0 told=0 run=0\n"
    assert capsys.readouterr().out == said
    assert Heartbeat.objects.get().kind == Heartbeat.Kind.CLOCK


def test_health_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("approval_clock", "--health-file", str(tmp_path / "no" / "alive"))


# --- whatever happens --------------------------------------------------------------------------------------


def test_error_is_said_once_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    factories.decider()
    table, ApprovalRequest._meta.db_table = ApprovalRequest._meta.db_table, "not_there"
    try:
        with running():
            wait_for(lambda: "held up" in caplog.text)
            time.sleep(1.2)  # It tries again, and fails again.
            ApprovalRequest._meta.db_table = table
            make_due(factories.held())
            wait_for(lambda: expired() == 1)
    finally:
        ApprovalRequest._meta.db_table = table
    said = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert len([line for line in said if "held up" in line]) == 1
    assert len([line for line in said if "goes on, after" in line]) == 1


def test_row_that_cannot_be_moved_does_not_make_the_clock_spin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    factories.decider()
    row = factories.held()
    first = AuditEvent.objects.get(approval_request=row)
    AuditEvent.objects.create(
        approval_request=row, sequence=2, kind="x", at=first.at, body="{}", hash="0"
    )
    make_due(row)
    with running(), caplog.at_level(logging.ERROR):
        time.sleep(2.5)
    assert caplog.text.count("could not move") == 1
    # Looked at every second, not all the time.
    assert Heartbeat.objects.get().sweeps <= 4


def test_pauses_are_never_shorter_or_longer_than_said() -> None:
    def pause(deadline: float | None, message: float | None = None, moved: bool = False) -> float:
        return clockwork._pause(clockwork.Due(deadline, message), moved=moved)

    assert pause(None) == pause(50.0) == pause(None, 50.0) == clockwork.INTERVAL
    # Due, and nothing was moved: it is another's, or cannot be.
    assert pause(-3.0) == pause(-3.0, -3.0) == clockwork.INTERVAL
    assert pause(0.001) == pause(-3.0, moved=True) == clockwork._SHORTEST
    assert 0.5 < pause(0.5) < 0.52
    assert 0.5 < pause(0.7, 0.5) < 0.52
    assert 0.5 < pause(-1.0, 0.5) < 0.52


# --- how it ends -------------------------------------------------------------------------------------------


def start(*options: str, **environment: str) -> subprocess.Popen[str]:
    """A clock in a process of its own, once it has said that it runs."""
    chosen = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "JIT_WORKER_DB": str(connection.settings_dict["NAME"]),
        "JIT_WORKER_MAIL": "/nonexistent",
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "approval_clock", *options],
        env=chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "started" in line, line + process.stdout.read()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    # How soon is measured where nothing else runs: tests/races/test_clock.py.
    process = start()
    wait_for(Heartbeat.objects.exists)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "approval_clock: stopped\n")


def test_clock_without_a_database_waits_for_one_and_can_be_stopped() -> None:
    process = start(JIT_WORKER_DB="/nonexistent/database", JIT_TEST_DB_PORT="1")
    assert process.stdout is not None
    assert "held up" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "approval_clock: stopped"
    assert Heartbeat.objects.count() == 0


def test_stop_wakes_up_a_sleeper() -> None:
    stop = Stop()
    threading.Timer(0.1, stop.ask).start()
    began = time.monotonic()
    stop.wait(10)
    assert time.monotonic() - began < 5
    assert stop.asked
    stop.close()


def test_times_are_the_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is wrong wakes up at the right moment."""
    factories.decider()
    row = factories.held(terms=SOON)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with running():
        wait_for(lambda: expired() == 1)
    assert factories.fresh(row).decide_by <= clock.now("default")
    assert Notification.objects.filter(event="expired", recipient="").count() == 1

"""Clocks in processes of their own, on the test's database, and what they are measured by."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.core.mail.backends.locmem import EmailBackend
from django.db import connection, connections

from jit_approval import clock
from jit_approval.clockwork import Clockwork
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.states import Status
from jit_approval.stopping import Stop


class Hanging(EmailBackend):
    """A mail server that swallows packets."""

    def send_messages(self, messages: Any) -> int:
        time.sleep(60)
        return 0


def environment(mail: str = "django.core.mail.backends.dummy.EmailBackend") -> dict[str, str]:
    """The environment of a process beside this one, on the same database."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.races.clock_settings",
        "JIT_CLOCK_DB": str(connection.settings_dict["NAME"]),
        "JIT_CLOCK_MAIL": mail,
    }


def start(mail: str = "django.core.mail.backends.dummy.EmailBackend") -> subprocess.Popen[str]:
    """`manage.py approval_clock`, once it has said that it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "approval_clock"],
        env=environment(mail),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "started" in line, line + process.stdout.read()
    return process


@contextmanager
def running(count: int = 1, **options: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """So many clocks, killed in the end if they have not ended by themselves."""
    with ExitStack() as stack:
        processes = [start(**options) for _ in range(count)]
        for process in processes:
            stack.callback(_kill, process)
        yield processes


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str, float]:
    """Ask a clock to stop; return its exit status, what it said, and how many seconds it took."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    return process.returncode, output, time.monotonic() - began


def due_at(rows: list[ApprovalRequest], moment: datetime) -> None:
    """Let the time of all of them be over at a moment."""
    keys = [row.pk for row in rows]
    late = {"due_at": moment, "decide_by": moment}
    ApprovalRequest.objects.filter(pk__in=keys).update(**late)


def due_in(rows: list[ApprovalRequest], seconds: float) -> None:
    """Let the time of all of them be over so many seconds from now."""
    due_at(rows, clock.now("default") + timedelta(seconds=seconds))


def expired() -> int:
    """How many calls are recorded as expired."""
    return ApprovalRequest.objects.filter(status=Status.EXPIRED).count()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def lateness() -> list[float]:
    """Seconds from deadline to record, of every call that expired, in order."""
    events = AuditEvent.objects.filter(target=Status.EXPIRED).select_related("approval_request")
    moments = [(event.at, event.approval_request.decide_by) for event in events]  # type: ignore[union-attr]
    return sorted((at - deadline).total_seconds() for at, deadline in moments)


class LockWaits(threading.Thread):
    """Looks, all the time, for processes that wait for one another's rows."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[str] = []
        self.looks = 0
        self._ended = False

    def run(self) -> None:
        try:
            with connection.cursor() as cursor:
                while not self._ended:
                    cursor.execute(
                        "SELECT wait_event || ': ' || query FROM pg_stat_activity "
                        "WHERE wait_event_type = 'Lock' AND datname = current_database() "
                        "AND pid <> pg_backend_pid()"
                    )
                    self.seen += [line for (line,) in cursor.fetchall()]
                    self.looks += 1
                    time.sleep(0.002)
        finally:
            connections.close_all()

    def __enter__(self) -> LockWaits:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.join()


def doomed(before: int, seed: int) -> None:
    """Run a clock, and kill this process (-9) at some instant after the first row was recorded."""
    threading.Thread(target=_kill_in_mid_sweep, args=(before, seed), daemon=True).start()
    Clockwork(Stop()).run()


def _kill_in_mid_sweep(before: int, seed: int) -> None:
    while expired() == before:
        pass
    time.sleep(random.Random(seed).uniform(0, 0.06))
    os.kill(os.getpid(), signal.SIGKILL)

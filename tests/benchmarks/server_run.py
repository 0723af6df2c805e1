"""How soon after its approval a call has been run by the server, with either broker of django-q2."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from django.conf import settings
from django.db import connection
from django.test import override_settings
from django_q.conf import Conf
from rest_framework.authtoken.models import Token

from jit_approval import queue, services
from jit_approval.models import ApprovalRequest
from tests import factories
from tests.benchmarks import scenes
from tests.benchmarks.waiting import Row, of
from tests.races import runners

REDIS = os.environ.get("JIT_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
REDIS_LIMIT = 150.0
"""Milliseconds from approval to the end of the run, for 99 of 100; with the ORM as broker its poll and 100 more."""
_WARM_UP = 5
_PATIENCE, _QUIET = 60.0, 3.0


def all_rows(rounds: int = 100) -> list[Row]:
    """Measure on the database of this process."""
    scenes.forget()
    key = secrets.token_urlsafe(32)
    bob, erin = factories.decider("bob"), factories.user("erin")
    factories.policy(actions="gated.*", execution="server")
    token = Token.objects.create(user=erin).key
    orm_limit = float(Conf.POLL) * 1000 + 100
    with override_settings(JIT_APPROVAL={**settings.JIT_APPROVAL, "SECRET_KEYS": [key]}):
        with _cluster(key):
            taken = [_once(token, bob, number) for number in range(rounds + _WARM_UP)]
        found = [of("approved, run by the server: ORM", taken[_WARM_UP:], orm_limit)]
        with _redis() as prefix, _cluster(key, prefix):
            taken = [_once(token, bob, -1 - number) for number in range(rounds + _WARM_UP)]
        return [*found, of("approved, run by the server: Redis", taken[_WARM_UP:], REDIS_LIMIT)]


def _once(token: str, bob: object, number: int) -> float:
    """Return milliseconds from the decision to the end of the run, both by the database's clock."""
    answer = runners.client(token).post("/gated/", {"amount": number})
    assert answer.status_code == 403, answer.content
    row = ApprovalRequest.objects.get(pk=answer["Approval-Id"])
    _wait_for_messages()
    services.approve(row, by=bob)  # type: ignore[arg-type]
    until = time.monotonic() + _PATIENCE
    while True:
        row = ApprovalRequest.objects.get(pk=row.pk)
        if row.finished_at is not None and row.decided_at is not None:
            return (row.finished_at - row.decided_at).total_seconds() * 1000
        assert time.monotonic() < until, f"it was not run: {row.status}"
        time.sleep(0.02)


def _wait_for_messages() -> None:
    """Let the one worker empty its queue: one that is busy with messages is another measurement."""
    until = time.monotonic() + _QUIET
    while queue.depth() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)  # the task in hand is put away


@contextmanager
def _redis() -> Iterator[str]:
    """Let this process queue into Redis."""
    prefix, before = f"jit_benchmark_{uuid4().hex}", {}
    for name, value in {
        "ORM": None,
        "REDIS": REDIS,
        "PREFIX": prefix,
        "CLUSTER_NAME": prefix,
    }.items():
        before[name] = getattr(Conf, name)
        setattr(Conf, name, value)
    try:
        yield prefix
    finally:
        for name, value in before.items():
            setattr(Conf, name, value)


@contextmanager
def _cluster(key: str, prefix: str = "") -> Iterator[None]:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.worker_settings",
        "JIT_WORKER_DB": str(connection.settings_dict["NAME"]),
        "JIT_WORKER_KEY": key,
        "JIT_WORKER_REDIS": REDIS if prefix else "",
        "JIT_WORKER_QUEUE": prefix,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "qcluster"],
        env=environment,
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

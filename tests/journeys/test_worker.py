"""A real django-q2 cluster in processes of its own tells people; what it loses, the next one makes good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.models import Schedule

from jit_approval import services, tasks
from jit_approval.models import ApprovalRequest, Notification, StoredCall
from jit_approval.states import Outcome
from tests import factories
from tests.callers import client_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
REDIS = os.environ.get("JIT_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
# The scheduler looks every 30 seconds; the rest is for slow machines.
PATIENCE = 75.0


@pytest.fixture(params=["orm", pytest.param("redis", marks=pytest.mark.postgres)])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """This process and the cluster beside it use the same database and the same broker."""
    chosen = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "JIT_WORKER_DB": str(connection.settings_dict["NAME"]),
        "JIT_WORKER_MAIL": str(tmp_path / "mail"),
    }
    # Deletes nothing: a schedule that is never due.
    Schedule.objects.update(next_run=None)
    if request.param == "redis":
        queue = f"jit_approval_{uuid4().hex}"
        for name, value in {"ORM": None, "REDIS": REDIS, "PREFIX": queue}.items():
            monkeypatch.setattr(Conf, name, value)
        monkeypatch.setattr(Conf, "CLUSTER_NAME", queue)
        chosen |= {"JIT_WORKER_REDIS": REDIS, "JIT_WORKER_QUEUE": queue}
    return chosen


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A cluster that is killed, all its processes at once, in the end."""
    log = Path(environment["JIT_WORKER_MAIL"] + ".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "qcluster"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def mails(environment: dict[str, str]) -> list[str]:
    folder = Path(environment["JIT_WORKER_MAIL"])
    files = [path.read_text() for path in folder.iterdir()] if folder.exists() else []
    # Two connections of one second may share a file's name.
    return [mail for text in files for mail in text.split(f"\n{'-' * 79}\n") if mail.strip()]


def wait_for_mail(environment: dict[str, str], *words: str) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for mail in mails(environment):
            if all(word in mail for word in words):
                return mail
        time.sleep(0.2)
    log = Path(environment["JIT_WORKER_MAIL"] + ".log").read_text()
    pytest.fail(f"no mail with {words}; the cluster said:\n{log}")


def all_settled() -> bool:
    return not Notification.objects.filter(state=Notification.State.WAITING).exists()


def test_worker_tells_deciders_and_then_the_requester(environment: dict[str, str]) -> None:
    bob = factories.decider("bob")
    with cluster(environment):
        row = factories.held(factories.user("erin"), payload="amount 250000")
        held = wait_for_mail(environment, "To: bob@example.test", str(row.pk))
        assert "250000" not in held
        services.approve(row, by=bob, comment="checked")
        wait_for_mail(environment, "To: erin@example.test", "Approved: ", "checked")
        until = time.monotonic() + PATIENCE
        while not all_settled() and time.monotonic() < until:
            time.sleep(0.1)
    assert all_settled()
    assert len(mails(environment)) == 2


def test_what_a_killed_cluster_lost_is_made_good_by_the_scheduled_sweep(
    environment: dict[str, str],
) -> None:
    factories.decider("bob")
    with cluster(environment):
        pass  # Killed at once.
    held, late = (factories.held(factories.user(name)) for name in ("erin", "eve"))
    get_broker().purge_queue()
    ApprovalRequest.objects.filter(pk=late.pk).update(due_at=F("created_at") - timedelta(seconds=1))
    Notification.objects.update(next_attempt_at=F("created_at") - timedelta(minutes=1))
    Schedule.objects.update(next_run=timezone.now())
    with cluster(environment):
        wait_for_mail(environment, "To: bob@example.test", str(held.pk))
        wait_for_mail(environment, "To: eve@example.test", "Nobody decided your call in time")
    assert not any(str(late.pk) in mail and "bob@" in mail for mail in mails(environment))
    assert factories.fresh(late).status == "expired"


@pytest.mark.parametrize(
    ("swallows", "run_limit"), [(False, 900), (True, 8)], ids=["told to end", "killed"]
)
def test_a_run_that_the_worker_cuts_off_is_unknown_and_never_run_again(
    environment: dict[str, str],
    tmp_path: Path,
    settings: Any,
    swallows: bool,
    run_limit: int,
) -> None:
    settings.ROOT_URLCONF = "tests.line_views"
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    bob = factories.decider("bob")
    factories.policy(execution="server")
    client = client_of(factories.user("erin"))
    call = {"number": 1, "until": str(tmp_path / "never"), "swallows": swallows}
    assert client.post("/pay/", call, format="json").status_code == 403
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    runs, log = tmp_path / "runs", Path(environment["JIT_WORKER_MAIL"] + ".log")
    cuts_off = {"JIT_WORKER_TIMEOUT": "2", "JIT_WORKER_RUN_LIMIT": str(run_limit)}
    with cluster(environment | cuts_off | {"JIT_LINE_RUNS": str(runs)}):
        until = time.monotonic() + PATIENCE
        while factories.fresh(row).outcome != Outcome.UNKNOWN and time.monotonic() < until:
            time.sleep(0.2)
            tasks.sweep()
        # The queue delivers again what was not acknowledged.
        while times_run(log) < 2 and Conf.ORM and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(1)
    row = factories.fresh(row)
    assert row.outcome == Outcome.UNKNOWN, log.read_text()
    assert runs.read_text().split() == ["1"]
    assert Conf.ORM is None or times_run(log) >= 2, log.read_text()
    assert not StoredCall.objects.exists()
    assert Notification.objects.filter(approval_request=row, event="unknown").exists()
    assert row.exception == ("" if swallows else "django_q.exceptions.TimeoutException")


def times_run(log: Path) -> int:
    """How often the queue has delivered the task that runs the call."""
    return len(re.findall(r"processing \S+ 'jit_approval\.tasks\.run'", log.read_text()))

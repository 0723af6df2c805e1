"""Several machines on one database, and a cluster that hangs: real mail and HTTP servers say what arrived."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django_q.models import Schedule
from standardwebhooks import Webhook

from jit_approval import queue, services
from jit_approval.models import ApprovalRequest, Channel, Heartbeat, Notification
from jit_approval.notifications import outbox
from jit_approval.notifications.channels import webhook
from tests import factories
from tests.faults import books, plant, scenes
from tests.faults.plant import Plant
from tests.faults.scenes import wait_for
from tests.races import clocks
from tests.receivers import Receiver, serving
from tests.sinks import Sink, sink

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]
CALLS = 24


@pytest.fixture
def server() -> Iterator[Sink]:
    Schedule.objects.update(next_run=None)
    with sink() as found:
        yield found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    path.touch()
    return path


@pytest.fixture(params=["orm", "redis"])
def shared(request: pytest.FixtureRequest, server: Sink, runs: Path) -> Iterator[Plant]:
    with Plant(server.port, str(runs), request.param).here() as found:
        yield found


def double_all_tasks() -> None:
    for pk in Notification.objects.values_list("pk", flat=True):
        queue.enqueue(outbox.DELIVER, pk, using="default")


# --- two of each -----------------------------------------------------------------------------------------


def test_two_of_each_lose_and_double_nothing(shared: Plant, server: Sink, runs: Path) -> None:
    people = scenes.People.made()
    climbing = scenes.on_a_ladder(people)
    with ExitStack() as stack:
        for target in (plant.clock, plant.cluster) * 2:
            stack.enter_context(plant.running(shared, target))
        sites = [scenes.Site(shared, people, stack) for _ in range(2)]
        with ThreadPoolExecutor(4) as callers:
            list(callers.map(lambda number: live(sites, number), range(CALLS)))
        left = ApprovalRequest.objects.filter(status="pending").exclude(pk=climbing.pk)
        clocks.due_in(list(left), -1)
        double_all_tasks()
        wait_for(scenes.is_quiet)
        wait_for(lambda: Heartbeat.objects.filter(kind="clock").count() == 2)
    rows = ApprovalRequest.objects.exclude(pk=climbing.pk)
    assert sorted(row.status for row in rows) == sorted(ends(CALLS))
    books.ensure_right([climbing.pk, *(row.pk for row in rows)], server, runs)
    ran = {grant for grant in range(CALLS) if grant % 3 == 0}
    assert sorted(map(int, runs.read_text().split())) == sorted(ran)


def live(sites: list[scenes.Site], number: int) -> None:
    """Hold a call at one server, decide it at the other, and make it at both at the same time."""
    here, there = sites[number % 2], sites[1 - number % 2]
    key = here.hold(number)
    if number % 3 == 0:
        there.decide(key, "approve")
        with ThreadPoolExecutor(2) as both:
            answers = list(both.map(lambda site: site.call(number, key), sites))
        assert sorted(answer.status_code for answer in answers) == [201, 403]
    elif number % 3 == 1:
        there.decide(key, "reject")


def ends(calls: int) -> list[str]:
    return [("consumed", "rejected", "expired")[number % 3] for number in range(calls)]


# --- a cluster that hangs --------------------------------------------------------------------------------


def stop(cluster: Any) -> None:
    os.killpg(cluster.pid, signal.SIGSTOP)


def kill_idle_workers(cluster: Any) -> None:
    """Its known fault: one of them holds the lock of the queue while it waits, and nobody gets it any more."""
    (sentinel,) = children(cluster.pid)
    for worker in children(sentinel)[:2]:
        os.kill(worker, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, the oldest first."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(map(int, found))


@pytest.mark.parametrize("hang", [stop, kill_idle_workers])
def test_clock_sweeps_and_tells_while_the_cluster_hangs(
    hang: Callable[[Any], None], server: Sink, runs: Path
) -> None:
    erin, bob = factories.user("erin"), factories.decider("bob")
    with Plant(server.port, str(runs), workers=2).here() as shared:
        with plant.running(shared, plant.cluster) as cluster, plant.running(shared, plant.clock):
            first = factories.held(erin)
            wait_for(scenes.is_quiet)  # All its processes have started, and wait.
            hang(cluster)
            held, approved, overdue = (factories.held(erin) for _ in range(3))
            services.approve(approved, by=bob)
            clocks.due_in([overdue], -1)
            wait_for(scenes.is_told)
            assert factories.fresh(overdue).status == "expired"
            told = Counter(str(mail["To"]) for mail in server.got)
            # That they wait, and what became of the two that did not.
            assert told >= Counter({"bob@example.test": 2, "erin@example.test": 2})
        # The tasks that it took are delivered again by the next one, and tell nobody twice.
        scenes.heal(shared)
    rows = [first, held, approved, overdue]
    books.ensure_right([row.pk for row in rows], server, runs)


# --- what arrives ----------------------------------------------------------------------------------------


def test_worker_and_clock_tell_by_mail_and_by_webhook(
    shared: Plant, server: Sink, tmp_path: Path
) -> None:
    erin, bob = factories.user("erin"), factories.decider("bob")
    secret = webhook.make_secret()
    with serving(tmp_path) as endpoint, on_the_internet(shared, endpoint).here() as whole:
        policy = factories.policy()
        policy.channels.set([to_endpoint(endpoint, secret), to_deciders()])
        terms = {"policy_id": policy.pk, "policy_slug": policy.slug}
        with plant.running(whole, plant.cluster), plant.running(whole, plant.clock):
            decided, overdue = (factories.held(erin, terms=terms) for _ in range(2))
            wait_for(scenes.is_quiet)
            services.approve(decided, by=bob)
            clocks.due_in([overdue], -1)
            wait_for(scenes.is_quiet)
    contents = [Webhook(secret).verify(body, got) for _path, got, body in endpoint.got]
    heard = Counter((found["type"], found["data"]["approval_id"]) for found in contents)
    keys = [str(decided.pk), str(overdue.pk)]
    ends = [("approval.decided", keys[0]), ("approval.expired", keys[1])]
    assert heard >= Counter([*(("approval.held", key) for key in keys), *ends])
    assert set(heard.values()) == {1}, heard
    told = Counter((str(mail["To"]), str(mail["References"]).split(".")[1]) for mail in server.got)
    assert told >= Counter(
        (f"{name}@example.test", key) for name in ("bob", "erin") for key in keys
    )
    assert max(Counter(str(mail["Message-ID"]) for mail in server.got).values()) == 1


def on_the_internet(shared: Plant, endpoint: Receiver) -> Plant:
    approval = {"WEBHOOK_PORTS": [endpoint.port]}
    return replace(shared, approval=approval, internet=(endpoint.port, endpoint.authority))


def to_endpoint(endpoint: Receiver, secret: str) -> Channel:
    made = Channel(slug="ops", name="ops", kind="webhook", enabled=True)
    made.configuration = {"url": endpoint.url}
    made.keep_secrets({"secret": secret})
    made.save()
    return made


def to_deciders() -> Channel:
    return Channel.objects.create(slug="deciders", name="deciders", kind="email", enabled=True)

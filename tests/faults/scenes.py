"""What each victim is doing when it dies, and how the rest of the plant puts it right."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from django.db.models import F
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.models import OrmQ
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from jit_approval import clock, escalating, policies, queue, services
from jit_approval.models import ApprovalRequest, EscalationStep, Notification, StoredCall
from jit_approval.notifications import outbox
from jit_approval.states import Execution
from tests import factories
from tests.faults import plant as plants
from tests.faults.dying import Fault
from tests.races import clocks

PATIENCE = 90.0
"""Seconds for anything to happen on a machine that does a lot besides."""

State = Notification.State
_grants = itertools.count(1)


@dataclass(frozen=True)
class People:
    """Who calls and who decides, and how they prove it."""

    erin: Any
    bob: Any
    carol: Any
    dave: Any

    @classmethod
    def made(cls) -> People:
        """Return a requester and a decider with tokens, and two who hear of a call when he is silent."""
        others = (factories.user(name) for name in ("carol", "dave"))
        people = cls(factories.user("erin"), factories.decider("bob"), *others)
        for user in (people.erin, people.bob):
            Token.objects.create(user=user)
        return people


# --- the victims -----------------------------------------------------------------------------------------


def worker(plant: plants.Plant, people: People, fault: Fault) -> list[UUID]:
    """A cluster tells people of a held and of an approved call. Each of its tasks is doubled."""
    held, approved = (factories.held(people.erin) for _ in range(2))
    services.approve(approved, by=people.bob)
    for pk in Notification.objects.filter(state=State.WAITING).values_list("pk", flat=True):
        queue.enqueue(outbox.DELIVER, pk, using="default")
    with plants.running(plant, plants.cluster, fault=fault):
        wait_for(lambda: bool(fault.killed()) or is_quiet())
        if not fault.whole:
            wait_for(lambda: is_quiet(), seconds=0.5, give_up=True)
    return [held.pk, approved.pk]


def clockwork(plant: plants.Plant, people: People, fault: Fault) -> list[UUID]:
    """A clock finds deadlines of every kind, steps to be taken, and messages whose tasks were lost."""
    rows = [factories.held(people.erin) for _ in range(4)] + [on_a_ladder(people)]
    _waiting, overdue, unused, running, _climbing = rows
    for row in (unused, running):
        services.approve(row, by=people.bob)
    services.consume(factories.fresh(running), state_digest=factories.STATE)
    get_broker().purge_queue()
    lose_time()
    late = clock.now("default") - timedelta(seconds=1)
    clocks.due_at([overdue], late)
    for row in (unused, running):
        ApprovalRequest.objects.filter(pk=row.pk).update(due_at=late, usable_until=late)
    with plants.running(plant, plants.clock, fault=fault):
        wait_for(lambda: bool(fault.killed()) or is_told())
    return [row.pk for row in rows]


def on_a_ladder(people: People) -> ApprovalRequest:
    """Hold a call of which nobody took any notice until three of its four steps were due."""
    day = timedelta(days=1)
    policy = factories.policy(decide_within=day, enabled=False)
    for share, told in ((20, people.carol), (40, None), (60, people.dave), (90, people.carol)):
        step = EscalationStep.objects.create(policy=policy, share=share, deciders=told is None)
        step.users.set([told] if told else [])
    row = factories.held(people.erin, terms=vars(policies.terms(policy)))
    names = ("created_at", "decide_by", "due_at", "wake_at")
    back = {name: F(name) - day * 0.7 for name in names}
    ApprovalRequest.objects.filter(pk=row.pk).update(**back)
    return row


def executor(plant: plants.Plant, people: People, fault: Fault) -> list[UUID]:
    """A cluster runs an approved call on its requester's behalf. Its tasks are doubled."""
    policy = factories.policy(execution=Execution.SERVER, actions="counted.post")
    caller = APIClient(headers={"Authorization": f"Token {people.erin.auth_token.key}"})
    key = caller.post("/counted/", {"grant": next(_grants)}).data["approval_id"]
    services.approve(ApprovalRequest.objects.get(pk=key), by=people.bob)
    queue.enqueue(services.RUN, str(key), using="default")
    with plants.running(plant, plants.cluster, fault=fault):
        wait_for(lambda: bool(fault.killed()) or is_quiet())
    type(policy).objects.update(enabled=False)
    return [UUID(str(key))]


def web(plant: plants.Plant, people: People, fault: Fault) -> list[UUID]:
    """One call is held, approved and made; another is held and rejected. Who gets no answer asks again."""
    with ExitStack() as stack:
        site = Site(plant, people, stack, fault)
        grant, other = next(_grants), next(_grants)
        key = site.hold(grant)
        site.decide(key, "approve")
        done = site.call(grant, key)
        assert done.status_code == 201 or done.json()["code"] == "approval_consumed", done.text
        site.decide(site.hold(other), "reject")
    rows = ApprovalRequest.objects.filter(action="counted.post").order_by("-created_at")
    return [row.pk for row in rows[:2]]


class Site:
    """A web server that is put up again when it is gone, and its callers, who repeat what was not answered."""

    def __init__(
        self, plant: plants.Plant, people: People, stack: ExitStack, fault: Fault | None = None
    ) -> None:
        self._plant, self._people, self._stack = plant, people, stack
        self._client = stack.enter_context(httpx.Client(timeout=PATIENCE))
        self._fault = fault
        self._start(fault)

    def hold(self, grant: int) -> str:
        """Make a call for the first time; return the id it is held under."""
        answer = self.call(grant)
        assert answer.json().get("code") == "approval_pending", answer.text
        return str(answer.json()["approval_id"])

    def call(self, grant: int, key: str = "") -> httpx.Response:
        """Make a call, for the first time or again."""
        headers = {"Approval-Id": key} if key else {}
        return self._post("/counted/", self._people.erin, {"grant": grant}, headers)

    def decide(self, key: str, verb: str) -> None:
        """Let Bob approve or reject; that he has done so before is fine."""
        answer = self._post(f"/approvals/{key}/{verb}/", self._people.bob, {}, {})
        assert answer.status_code == 200 or (
            answer.json()["code"] in ("illegal_transition", "already_decided")
        ), answer.text

    def _post(self, path: str, user: Any, data: Any, headers: dict[str, str]) -> httpx.Response:
        # Behind a balancer all servers have one name, which an approval is bound to.
        headers = {**headers, "Host": "testserver", "Authorization": f"Token {user.auth_token.key}"}
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._client.post(f"{self._url}{path}", json=data, headers=headers)
            except httpx.TransportError:
                assert time.monotonic() < until, "the server does not come up"
                self._revive()

    def _revive(self) -> None:
        if self._fault is not None and self._fault.whole and self._fault.killed():
            self._fault = None
            self._start(None)
        time.sleep(0.05)

    def _start(self, fault: Fault | None) -> None:
        port = plants.free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._stack.enter_context(plants.running(self._plant, plants.web, port, fault=fault))


# --- afterwards ------------------------------------------------------------------------------------------


def in_flight() -> set[int]:
    """Return the messages that were claimed, and not written down as sent."""
    rows = Notification.objects.filter(state=State.WAITING, attempts__gt=0).exclude(recipient="")
    return set(rows.values_list("pk", flat=True))


def lose_time() -> None:
    """Let the time be over that a claim holds for, a run may take, and after which a task is delivered again."""
    ago = clock.now("default") - timedelta(minutes=1)
    ApprovalRequest.objects.filter(outcome="running").update(due_at=ago)
    Notification.objects.filter(state=State.WAITING).update(next_attempt_at=ago)
    StoredCall.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=ago)
    OrmQ.objects.update(lock=timezone.now() - timedelta(minutes=1))


def heal(plant: plants.Plant) -> None:
    """Start a clock and a cluster that live, and wait until there is nothing left to do."""
    lose_time()
    with plants.running(plant, plants.clock), plants.running(plant, plants.cluster):
        wait_for(is_quiet)


def is_told() -> bool:
    """Tell whether no deadline is unrecorded and nobody is still to be told of anything."""
    rows = ApprovalRequest.objects
    if rows.filter(due_at__lte=clock.now("default")).exists() or escalating.due("default").exists():
        return False
    if rows.filter(status="approved", execution=Execution.SERVER).exists():
        return False
    return not Notification.objects.filter(state=State.WAITING).exists()


def is_quiet() -> bool:
    """Tell whether there are no tasks left either."""
    return is_told() and not OrmQ.objects.exists() and not get_broker().queue_size()


def wait_for(
    condition: Callable[[], bool], *, seconds: float = PATIENCE, give_up: bool = False
) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            assert give_up, "it did not happen in time"
            return
        time.sleep(0.02)

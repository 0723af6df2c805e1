"""How long people wait to hear of it: of a call that is held, of silence, of an end. On PostgreSQL.

With each broker, and with and without a clock. A real SMTP server says when a message arrived.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django_q.models import Schedule
from django_q.tasks import async_task

from jit_approval import clock, policies, tasks
from jit_approval.models import ApprovalRequest, AuditEvent, Notification
from tests import factories
from tests.benchmarks import scenes
from tests.benchmarks.timers import Timer
from tests.faults import plant as plants
from tests.faults.plant import Plant
from tests.races import clocks
from tests.sinks import Sink, sink

WITH_CLOCK, WITHOUT_CLOCK = 1.5, 65.0
"""Seconds from deadline, or step, to record and to the mailbox, for 99 of 100 calls."""

_HELD = 200
_HOUR = timedelta(hours=1)


def all_rows() -> list[Timer]:
    """Measure, for about five minutes: most of it is waiting for the schedule."""
    among = ApprovalRequest.objects.count()
    if not policies.quorum_is_reachable(policies.terms(None)):
        factories.decider()
    ApprovalRequest.objects.filter(due_at__isnull=False).update(due_at=None, wake_at=None)
    scenes.forget_messages()
    found: list[Timer] = []
    with sink() as server:
        for broker in ("orm", "redis"):
            with _plant(server, broker).here() as plant:
                found += _held_to_told(plant, server, among)
        with _plant(server, "orm").here() as plant:
            found += _lateness(
                plant, server, among, "clock", count=100, apart=0.2, limit=WITH_CLOCK
            )
            found += _lateness(
                plant, server, among, "no clock", count=100, apart=1.3, limit=WITHOUT_CLOCK
            )
    return found


def _plant(server: Sink, broker: str) -> Plant:
    """As docs/deploy.md has it."""
    return Plant(server.port, "", broker, workers=2, poll=0.2, guard_cycle=0.5)


# --- held to told ------------------------------------------------------------------------------------------


def _held_to_told(plant: Plant, server: Sink, among: int) -> Iterator[Timer]:
    """Time calls, and in turn with them bare tasks of django-q2 that send one mail."""
    held: dict[str, float] = {}
    bare: dict[str, float] = {}
    with plants.running(plant, plants.cluster):
        _wait_for_worker(server)
        for number in range(_HELD):
            began = time.perf_counter()
            held[str(factories.held().pk)] = began
            time.sleep(0.1)
            began = time.perf_counter()
            subject = f"bare, {plant.broker}, {number}"
            _bare(subject)
            bare[subject] = began
            time.sleep(0.1)
        wanted = held.keys() | bare.keys()
        clocks.wait_for(lambda: _arrived(server).keys() >= wanted, seconds=120)
    arrived = _arrived(server)
    took, floors = (
        sorted(arrived[key] - start for key, start in each.items()) for each in (held, bare)
    )
    for percent in (50, 99):
        place = _HELD * percent // 100 - 1
        name = f"held to told, {plant.broker}, p{percent}"
        yield Timer(name, among, took[place], floor=floors[place])


def _bare(subject: str) -> None:
    async_task("django.core.mail.send_mail", subject, "body", None, ["nobody@example.test"])


def _wait_for_worker(server: Sink) -> None:
    before = len(server.got)
    _bare("is anybody there?")
    clocks.wait_for(lambda: len(server.got) > before, seconds=120)


def _arrived(server: Sink) -> dict[str, float]:
    """Return when the first mail arrived of each request, or of each subject where it is about none."""
    first: dict[str, float] = {}
    for mail, at in zip(list(server.got), list(server.at), strict=False):
        thread = mail["References"]
        first.setdefault(str(thread).split(".")[1] if thread else str(mail["Subject"]), at)
    return first


# --- lateness ----------------------------------------------------------------------------------------------


def _lateness(
    plant: Plant, server: Sink, among: int, name: str, *, count: int, apart: float, limit: float
) -> Iterator[Timer]:
    """Deadlines and steps, one of each every `apart` seconds; a cluster sweeps, and the clock where there is one."""
    terms = vars(policies.terms(None))
    overdue, silent = ([factories.held(terms=terms) for _ in range(count)] for _ in range(2))
    scenes.forget_messages()
    tasks.ensure_schedule("default")
    Schedule.objects.filter(func=tasks.SWEEP).update(next_run=timezone.now())
    with ExitStack() as stack:
        stack.enter_context(plants.running(plant, plants.cluster))
        if name == "clock":
            stack.enter_context(plants.running(plant, plants.clock))
        _wait_for_worker(server)
        start = clock.now("default") + timedelta(seconds=5)
        moments = [start + timedelta(seconds=number * apart) for number in range(count)]
        for moment, first, second in zip(moments, overdue, silent, strict=True):
            clocks.due_at([first], moment)
            _silence_until(second, moment)
        told = Notification.objects.filter(state="sent", sent_at__isnull=False).exclude(
            recipient=""
        )
        ended, reminded = (told.filter(event=event) for event in ("expired", "reminder"))
        clocks.wait_for(
            lambda: _requests(ended) >= _keys(overdue) and _requests(reminded) >= _keys(silent),
            seconds=count * apart + 180,
        )
    ends, steps = (dict(zip(_order(rows), moments, strict=True)) for rows in (overdue, silent))
    events = AuditEvent.objects.order_by("pk")
    for what, late in {
        "deadline to record": _late(events.filter(target="expired"), "at", ends),
        "deadline to told": _late(ended, "sent_at", ends),
        "step to record": _late(events.filter(kind="escalated"), "at", steps),
        "step to told": _late(reminded, "sent_at", steps),
    }.items():
        yield Timer(f"{what}, {name}, p50", among, late[len(late) // 2])
        yield Timer(f"{what}, {name}, p99", among, late[len(late) * 99 // 100 - 1], limit=limit)


def _silence_until(row: ApprovalRequest, moment: Any) -> None:
    """Let half of its hour be over then: the moment of the one step there is by default."""
    half = _HOUR / 2
    ends = {"decide_by": moment + half, "due_at": moment + half}
    ladder = [{**row.ladder[0], "after": int(half.total_seconds() * 1000)}, *row.ladder[1:]]
    changes = {"created_at": moment - half, "wake_at": moment, "ladder": ladder, **ends}
    ApprovalRequest.objects.filter(pk=row.pk).update(**changes)


def _order(rows: list[ApprovalRequest]) -> list[Any]:
    return [row.pk for row in rows]


def _keys(rows: list[ApprovalRequest]) -> set[Any]:
    return set(_order(rows))


def _requests(rows: Any) -> set[Any]:
    return set(rows.values_list("approval_request", flat=True))


def _late(rows: Any, column: str, moments: dict[Any, Any]) -> list[float]:
    found = rows.filter(approval_request__in=moments).values_list("approval_request", column)
    return sorted((at - moments[key]).total_seconds() for key, at in found)

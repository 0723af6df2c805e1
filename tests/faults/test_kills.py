"""kill -9 at every commit: nothing is lost, and a doubled task doubles nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice, zip_longest
from pathlib import Path
from uuid import UUID

import pytest
from django_q.models import Schedule

from tests.faults import books, scenes
from tests.faults.dying import Fault
from tests.faults.plant import Plant
from tests.sinks import sink

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]
ROUNDS = int(os.environ.get("JIT_TEST_ROUNDS", "12"))
"""Kills; 408 are one before and one after each commit of what each of them does, with each broker."""

Victim = Callable[[Plant, scenes.People, Fault], list[UUID]]
# Each with how many commits it makes (one or two less now and then): with Redis, a queue is no table.
VICTIMS: list[tuple[Victim, str, int]] = [
    (scenes.worker, "orm", 27),
    (scenes.clockwork, "redis", 52),
    (scenes.web, "orm", 6),
    (scenes.worker, "redis", 13),
    (scenes.clockwork, "orm", 52),
    (scenes.web, "redis", 6),
    (scenes.executor, "orm", 29),
    (scenes.executor, "redis", 19),
]
# Heartbeats, on a machine that is slow.
_BEATS = 3


def faults(folder: Path) -> Iterator[tuple[Victim, str, Fault]]:
    """Every boundary of every victim, in an order that begins with some of each."""
    places = [
        [(victim, broker, at, before) for at in range(1, most + 1) for before in (True, False)]
        for victim, broker, most in VICTIMS
    ]
    for each in places:
        random.Random(4).shuffle(each)
    mixed = [place for place in chain.from_iterable(zip_longest(*places)) if place is not None]
    for number, (victim, broker, at, before) in enumerate(cycle(mixed)):
        yield victim, broker, Fault(folder / f"round-{number}", at, before, whole=number % 2 == 0)


def test_processes_killed_at_any_commit_lose_and_double_nothing(tmp_path: Path) -> None:
    Schedule.objects.update(next_run=None)
    runs = tmp_path / "runs"
    runs.touch()
    people = scenes.People.made()
    died: Counter[str] = Counter()
    twice = in_flight = 0
    with sink() as server:
        for victim, broker, fault in islice(faults(tmp_path), ROUNDS):
            with Plant(server.port, str(runs), broker).here() as plant:
                keys = victim(plant, people, fault)
                claimed = scenes.in_flight()
                scenes.heal(plant)
                twice += books.ensure_right(keys, server, runs, claimed)
            in_flight += len(claimed)
            died[f"{victim.__name__} {'dead' if fault.killed() else 'alive'}"] += 1
            print(f"\n{victim.__name__}, {broker}: {fault.killed() or fault.commits()}")
    print(
        f"\n{dict(died)}; messages in flight at a kill: {in_flight}, of which came twice: {twice}"
    )
    assert sum(count for name, count in died.items() if "dead" in name) >= ROUNDS * 0.8


def test_no_commit_is_left_out_of_the_table(tmp_path: Path) -> None:
    Schedule.objects.update(next_run=None)
    runs = tmp_path / "runs"
    runs.touch()
    people = scenes.People.made()
    made = {}
    with sink() as server:
        for victim, broker, listed in VICTIMS:
            lives = Fault(tmp_path / f"{victim.__name__}-{broker}", at=10**6)
            with Plant(server.port, str(runs), broker).here() as plant:
                victim(plant, people, lives)
                scenes.heal(plant)
            made[victim.__name__, broker, listed] = len(lives.commits())
    print(f"\n{made}")
    assert all(count <= listed + _BEATS for (_, _, listed), count in made.items()), made

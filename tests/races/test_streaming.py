"""Senders in several processes, and one that is killed: every event arrives, and the cursor never goes back."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from jit_approval import clock
from jit_approval.audit import chain, keys, seal
from jit_approval.audit.selection import Selection
from jit_approval.models import TrailTask
from jit_approval.streaming import pump
from tests.races.processes import TIME_LIMIT, race

pytestmark = [
    pytest.mark.race,
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
]

EVENTS, SENDERS, KILLED = 400, 4, 9


class Lines(logging.FileHandler):
    """Appends whole lines: what several processes write to one file stays apart."""

    def __init__(self, path: str, die_after: int = 0) -> None:
        super().__init__(path, mode="a", encoding="utf-8")
        self.die_after = die_after
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.count += 1
        if self.count == self.die_after:
            os._exit(KILLED)


def listen(path: str, die_after: int = 0) -> None:
    logger = logging.getLogger("tests.races.trail")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [Lines(path, die_after)]


def send(barrier: Any, path: str) -> int:
    listen(path)
    barrier.wait()
    count = 0
    for _ in range(30):
        # As if it could not be relied on: nothing is to depend on the claim.
        TrailTask.objects.update(claimed_until=None)
        count += sum(pump.run(1).values())
    return count


def send_and_die(path: str, name: str, settings: dict[str, Any]) -> None:
    """Die after lines were written, and before the cursor moves: in a process of its own."""
    connections["default"].settings_dict["NAME"] = name
    override_settings(**settings).enable()
    listen(path, die_after=150)
    pump.run(10)


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    key = keys.generate("approvals.example/trail", tmp_path / "key")
    values = {"AUDIT_KEY_FILE": str(tmp_path / "key"), "AUDIT_LOGGER": "tests.races.trail"}
    with override_settings(JIT_APPROVAL=values):
        at = clock.now("default")
        for number in range(EVENTS):
            chain.single_event("allowed", at=at, label="erin", data={"n": number}).save()
        seal.seal(at_once=True)
        yield key, {"JIT_APPROVAL": values}


def ensure_all_arrived(path: Path, key: Any) -> None:
    report = Selection(path).verify([key])
    assert report.status() == 0, report.findings
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {line["index"] for line in lines if "index" in line} == set(range(EVENTS))
    assert TrailTask.objects.get().index == EVENTS


def test_of_many_senders_none_loses_an_event(trail: Any, tmp_path: Path) -> None:
    key, settings = trail
    path = tmp_path / "received.jsonl"
    race(send, *[(str(path),)] * SENDERS, settings=settings)
    ensure_all_arrived(path, key)


def test_a_sender_that_is_killed_between_sending_and_noting_it_loses_nothing(
    trail: Any, tmp_path: Path
) -> None:
    key, settings = trail
    path = tmp_path / "received.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.races.preload"])
    name = str(connections["default"].settings_dict["NAME"])
    process = context.Process(target=send_and_die, args=(str(path), name, settings))
    process.start()
    process.join(timeout=TIME_LIMIT)
    assert process.exitcode == KILLED
    assert TrailTask.objects.get().index == 0
    listen(str(path))
    assert sum(pump.run(10).values()) == 0, "another may be at it still"
    TrailTask.objects.update(claimed_until=clock.now("default"))
    pump.run(10)
    ensure_all_arrived(path, key)

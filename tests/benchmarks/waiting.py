"""How soon who waits on the line is served, what the others feel of it, and what a thousand long polls weigh."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from django.conf import settings
from django.db import connection, connections
from django.test import override_settings
from rest_framework.authtoken.models import Token

from jit_approval import services
from jit_approval.models import ApprovalRequest
from tests import factories
from tests.benchmarks import scenes
from tests.line_servers import Server, serving

LIMITS = {"postgresql": 50.0, "sqlite": 250.0}
"""Milliseconds from the approver's call to the waiting call's handler, for 99 of 100."""
_HEALTH_LIMIT, _MEMORY_LIMIT = 100.0, 150.0
_POOL = 10


@dataclass(frozen=True)
class Row:
    """One row: a median and a 99th percentile, in `unit`."""

    name: str
    count: int
    p50: float
    p99: float
    unit: str = "ms"
    limit: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        return None if self.limit is None else self.p99 <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return the row for `--json`."""
        return {**asdict(self), "reached": self.reached}


def of(name: str, taken: list[float], limit: float | None = None) -> Row:
    """Return the row of these milliseconds."""
    cuts = quantiles(taken, n=100, method="inclusive")
    return Row(name, len(taken), cuts[49], cuts[98], limit=limit)


def all_rows(waiters: int = 300, polls: int = 1000) -> list[Row]:
    """Measure on the database of this process."""
    scenes.forget()
    people = _People()
    # Who decides must know that somebody may wait: it is their transaction that notifies.
    config = {**settings.JIT_APPROVAL, "MAX_WAIT": 600}
    try:
        with override_settings(JIT_APPROVAL=config):
            return _measured(people, waiters, polls)
    finally:
        people.close()


def _measured(people: _People, waiters: int, polls: int) -> list[Row]:
    rows = [_floor()] if connection.vendor == "postgresql" else []
    with tempfile.TemporaryDirectory() as folder:
        rows += asyncio.run(_threads(people, Path(folder), waiters))
        pool = _POOL if connection.vendor == "postgresql" else 0
        with serving("uvicorn", people.token, Path(folder), pool=pool) as server:
            rows += asyncio.run(_loop(server, people, waiters))
        with serving("uvicorn", people.token, Path(folder), pool=pool) as server:
            rows += asyncio.run(_polls(server, people, polls))
    return rows


class _People:
    def __init__(self) -> None:
        self.bob = factories.decider("bob")
        self.erin = factories.user("erin")
        self.token = Token.objects.create(user=self.erin).key
        self._thread = ThreadPoolExecutor(1)

    async def doing(self, what: Callable[..., Any], *args: Any) -> Any:
        """Do what asks the database, in the one thread that has a connection for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, what, *args)

    def close(self) -> None:
        self._thread.submit(connections.close_all).result()
        self._thread.shutdown()

    def approve(self, row: ApprovalRequest) -> int:
        """Approve; return when that was asked for, by the machine's monotonic clock."""
        at = time.monotonic_ns()
        services.approve(row, by=self.bob)
        return at

    def pending(self) -> list[ApprovalRequest]:
        return list(ApprovalRequest.objects.filter(status="pending"))


def _floor() -> Row:
    """From a NOTIFY to who listens, both on bare connections."""
    heard: list[float] = []
    with _connected() as ear, _connected() as mouth:
        ear.execute("LISTEN benchmark")
        listening = threading.Thread(
            target=lambda: heard.extend(
                time.monotonic_ns() - int(each.payload)
                for each in ear.notifies(timeout=60, stop_after=300)
            )
        )
        listening.start()
        for _ in range(300):
            mouth.execute("SELECT pg_notify('benchmark', %s)", [str(time.monotonic_ns())])
            time.sleep(0.005)
        listening.join()
    return of("floor: a NOTIFY is heard", [each / 1e6 for each in heard])


@contextmanager
def _connected() -> Iterator[Any]:
    made = connection.copy()
    made.connect()
    try:
        yield made.connection
    finally:
        made.close()


async def _threads(people: _People, folder: Path, waiters: int) -> list[Row]:
    taken: list[float] = []
    threads, number = 18, 1_000_000
    with serving("gunicorn-threads", people.token, folder, threads=threads) as server:
        while len(taken) < waiters:
            numbers = range(number, number + threads - 2)
            taken += (await _served(server, people, numbers))[0]
            number = numbers.stop
    return [of("gunicorn gthread: approved -> runs", taken, LIMITS[connection.vendor])]


async def _served(
    server: Server, people: _People, numbers: range
) -> tuple[list[float], list[float]]:
    """Let calls wait, approve them one by one; return when each ran, and was answered, after that."""
    calls = {number: asyncio.create_task(server.pay(number)) for number in numbers}
    await server.until_waiting(len(calls))
    await asyncio.sleep(0.5)
    rows = await people.doing(people.pending)
    random.Random(0).shuffle(rows)
    asked: dict[str, int] = {}
    answered: dict[str, tuple[int, int]] = {}

    async def note(call: asyncio.Task[Any]) -> None:
        answer = await call
        assert answer.status == 201, answer
        answered[answer.headers["approval-id"]] = answer.json["at"], time.monotonic_ns()

    noting = [asyncio.create_task(note(call)) for call in calls.values()]
    for row in rows:
        asked[str(row.pk)] = await people.doing(people.approve, row)
        await asyncio.sleep(0.03)
    await asyncio.gather(*noting)
    ran = [(answered[pk][0] - asked[pk]) / 1e6 for pk in asked]
    heard = [(answered[pk][1] - asked[pk]) / 1e6 for pk in asked]
    return ran, heard


async def _loop(server: Server, people: _People, waiters: int) -> list[Row]:
    calls = [asyncio.create_task(server.pay(number)) for number in range(waiters)]
    await server.until_waiting(waiters)
    quiet = await _health(server, 300)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await server.until_waiting(0)
    await people.doing(scenes.forget)
    ran, heard = await _served(server, people, range(waiters, 2 * waiters))
    numbers = range(waiters, 2 * waiters)
    assert sorted(n for n in server.runs if n in numbers) == list(numbers), "each ran once"
    return [
        of("uvicorn: approved -> runs", ran, LIMITS[connection.vendor]),
        of("uvicorn: approved -> answered", heard),
        of(f"/health while {waiters} wait", quiet, _HEALTH_LIMIT),
    ]


async def _health(server: Server, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        start = time.monotonic_ns()
        assert (await server.send("GET", "/health/")).status == 200
        taken.append((time.monotonic_ns() - start) / 1e6)
        await asyncio.sleep(0.01)
    return taken


async def _polls(server: Server, people: _People, polls: int) -> list[Row]:
    row = await people.doing(factories.held, people.erin)
    url = f"/approvals/{row.pk}/"
    tag = (await server.send("GET", url)).headers["etag"]
    await _health(server, 50)
    inside = await server.inside()
    idle = _resident(inside["pid"])
    looks = [
        asyncio.create_task(server.send("GET", url, If_None_Match=tag, Prefer="wait=500"))
        for _ in range(polls)
    ]
    await server.until_waiting(polls)
    more = _resident(inside["pid"]) - idle
    open_now = await people.doing(_connections)
    await people.doing(people.approve, row)
    answers = await asyncio.gather(*looks)
    assert {answer.status for answer in answers} == {200}
    return [
        Row(f"uvicorn: {polls} long polls", polls, more, more, "MB above idle", _MEMORY_LIMIT),
        Row("connections that listen", polls, open_now, open_now, "", 1),
    ]


def _resident(pid: int) -> float:
    """Megabytes of a process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no such process")


def _connections() -> float:
    """How many connections listen to this database."""
    if connection.vendor != "postgresql":
        return 1.0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE ANY (ARRAY['LISTEN%%', 'SELECT id, audit_seq%%'])",
            (),
        )
        return float(cursor.fetchone()[0])

"""Callers who wait on the line of real servers: they are served, hold nothing meanwhile, and leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from os import environ
from typing import Any

import httpx
import pytest
from django.db import connection
from rest_framework.authtoken.models import Token

from jit_approval import execution, services
from jit_approval.client import ApprovalAuth
from jit_approval.models import ApprovalRequest, StoredCall
from jit_approval.states import Status
from tests import factories
from tests.line_servers import PATIENCE, Server, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

WAITERS = int(environ.get("JIT_TEST_WAITERS", "40"))
"""How many wait at once; 300 and more were waiting when docs/benchmarks.md was written."""
POOL = 10


@pytest.fixture
def bob(settings) -> Any:
    # Who decides must know that somebody may wait: it is their transaction that notifies.
    settings.JIT_APPROVAL = {"MAX_WAIT": 600}
    return factories.decider("bob")


@pytest.fixture
def erin(bob) -> Any:
    return factories.user("erin")


@pytest.fixture
def token(erin) -> str:
    return Token.objects.create(user=erin).key


@pytest.fixture(scope="module")
def servers(django_db_setup, tmp_path_factory) -> Iterator[Callable[[str], Server]]:
    """Servers that are started once for all tests here."""
    made: dict[str, Server] = {}
    pool = POOL if connection.vendor == "postgresql" else 0
    with ExitStack() as stack:

        def server(kind: str) -> Server:
            if kind not in made:
                folder = tmp_path_factory.mktemp(kind)
                made[kind] = stack.enter_context(serving(kind, "", folder, pool=pool))
            return made[kind]

        yield server


@pytest.fixture(params=["uvicorn", "gunicorn-threads"])
def server(request, servers, token: str) -> Server:
    return ready(servers(request.param), token)


@pytest.fixture
def uvicorn(servers, token: str) -> Server:
    return ready(servers("uvicorn"), token)


def ready(server: Server, token: str) -> Server:
    server.token = token
    server.forget()
    return server


def approving(bob: Any) -> Callable[[], None]:
    """What approves all that is pending, from a thread, as the tests' loop may not ask the database."""

    def approve() -> None:
        try:
            for row in ApprovalRequest.objects.filter(status=Status.PENDING):
                services.approve(row, by=bob)
        finally:
            connection.close()

    return approve


def run(journey: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(journey, 4 * PATIENCE))


def calls(server: Server, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(server.pay(number)) for number in range(count)]


def test_each_who_waits_gets_the_answer_of_its_own_call(server, bob):
    async def journey() -> list[Any]:
        waiting = calls(server, 4)
        await server.until_waiting(4)
        assert server.runs == []
        await asyncio.to_thread(approving(bob))
        return await asyncio.gather(*waiting)

    answers = run(journey())
    assert {answer.status for answer in answers} == {201}
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=500"}
    assert sorted(server.runs) == [0, 1, 2, 3]


def test_who_hangs_up_is_not_run_for_and_leaves_no_seat_taken(server, bob):
    async def journey() -> None:
        waiting = calls(server, 3)
        await server.until_waiting(3)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await server.until_waiting(0)
        await asyncio.to_thread(approving(bob))
        assert (await server.send("GET", "/health/")).status == 200

    run(journey())
    assert server.runs == []
    assert ApprovalRequest.objects.filter(status=Status.APPROVED).count() == 3


def test_a_worker_without_threads_lets_nobody_wait(token, tmp_path, bob):
    with serving("gunicorn-sync", token, tmp_path) as server:
        answer = run(server.pay(1))
    assert (answer.status, answer.json["code"]) == (403, "approval_pending")
    assert "preference-applied" not in answer.headers
    assert "one request at a time" in (tmp_path / "gunicorn-sync.log").read_text()


def test_many_wait_with_few_connections_and_the_others_notice_nothing(uvicorn, bob):
    held: list[int] = []

    def look() -> None:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%%'"
                )
                held.append(cursor.fetchone()[0])
        connection.close()

    async def journey() -> list[Any]:
        waiting = calls(uvicorn, WAITERS)
        await uvicorn.until_waiting(WAITERS)
        for _ in range(20):
            assert (await uvicorn.send("GET", "/health/")).status == 200
        await asyncio.to_thread(look)
        await asyncio.to_thread(approving(bob))
        return await asyncio.gather(*waiting)

    answers = run(journey())
    assert {answer.status for answer in answers} == {201}
    assert sorted(uvicorn.runs) == list(range(WAITERS))
    assert not any(held)


def test_many_long_polls_take_one_connection_that_listens(uvicorn, bob, erin):
    row = factories.held(erin)
    url = f"/approvals/{row.pk}/"

    async def journey() -> list[Any]:
        tag = (await uvicorn.send("GET", url)).headers["etag"]
        polls = [
            asyncio.create_task(uvicorn.send("GET", url, If_None_Match=tag, Prefer="wait=500"))
            for _ in range(WAITERS)
        ]
        await uvicorn.until_waiting(WAITERS)
        if connection.vendor == "postgresql":
            assert await asyncio.to_thread(listening, uvicorn) == 1
        await asyncio.to_thread(approving(bob))
        return await asyncio.gather(*polls)

    answers = run(journey())
    assert {answer.status for answer in answers} == {200}
    assert {answer.json["status"] for answer in answers} == {"approved"}


def listening(server: Server) -> int:
    """How many connections of the server do nothing but listen."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s "
                "AND query LIKE ANY (ARRAY['LISTEN%%', 'SELECT id, audit_seq%%'])",
                [server.name],
            )
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def work(server, bob, settings, monkeypatch) -> Callable[[], None]:
    """What runs all that the server is to run, from a thread: this process is the worker."""
    settings.JIT_APPROVAL = {"MAX_WAIT": 600, "BIND_HOST": False, "SECRET_KEYS": ["k" * 40]}
    settings.ROOT_URLCONF = "tests.line_views"
    monkeypatch.setenv("JIT_LINE_RUNS", str(server.log_of_runs))
    factories.policy(execution="server")

    def work() -> None:
        try:
            for call in StoredCall.objects.all():
                assert execution.run(call.pk)
        finally:
            connection.close()

    return work


def test_each_who_waits_gets_the_answer_of_the_servers_run(server, bob, work):
    async def journey() -> list[Any]:
        waiting = calls(server, 4)
        await server.until_waiting(4)
        await asyncio.to_thread(approving(bob))
        await asyncio.sleep(0.5)
        assert (await server.inside())["waiters"] == 4
        assert server.runs == []
        await asyncio.to_thread(work)
        return await asyncio.gather(*waiting)

    answers = run(journey())
    assert {answer.status for answer in answers} == {201}
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=500"}
    assert len({answer.headers["approval-id"] for answer in answers}) == 4
    assert [answer.json["number"] for answer in answers] == [0, 1, 2, 3]
    assert sorted(server.runs) == [0, 1, 2, 3]


class Client:
    """The package's own client, and what it sends."""

    def __init__(self, server: Server, hold: float) -> None:
        self.sent: list[str] = []
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}",
            headers={"Authorization": f"Token {server.token}"},
            auth=ApprovalAuth(hold=hold),
            event_hooks={"request": [lambda request: self.sent.append(request.method)]},
            timeout=PATIENCE,
        )

    def pay(self, **data: Any) -> Any:
        with self._client as client:
            return client.post("/pay/", json=data)

    async def until_looking(self, times: int) -> None:
        until = time.monotonic() + PATIENCE
        while self.sent.count("GET") < times:
            assert time.monotonic() < until, self.sent
            await asyncio.sleep(0.02)


def test_the_client_that_holds_the_line_sends_one_request(server, bob, work):
    client = Client(server, hold=300)

    async def journey() -> Any:
        answer = asyncio.create_task(asyncio.to_thread(client.pay, number=7))
        await server.until_waiting(1)
        await asyncio.to_thread(approving(bob))
        await asyncio.to_thread(work)
        return await answer

    answer = run(journey())
    assert (answer.status_code, answer.json()["number"]) == (201, 7)
    assert answer.headers["approval-status"] == "consumed"
    assert (client.sent, server.runs) == (["POST"], [7])


@pytest.mark.parametrize("leaves", ["before the run", "during the run"])
def test_the_client_fetches_what_took_longer_than_its_hold(server, bob, work, tmp_path, leaves):
    client, end = Client(server, hold=2), tmp_path / "end"

    async def journey() -> Any:
        answer = asyncio.create_task(asyncio.to_thread(client.pay, number=7, until=str(end)))
        await server.until_waiting(1)
        await asyncio.to_thread(approving(bob))
        if leaves == "before the run":
            await client.until_looking(1)
        ran = asyncio.create_task(asyncio.to_thread(work))
        await client.until_looking(2)
        end.touch()
        await ran
        return await answer

    answer = run(journey())
    assert (answer.status_code, answer.json()["number"]) == (201, 7)
    assert (client.sent.count("POST"), server.runs) == (1, [7])


@pytest.mark.race
@pytest.mark.postgres
def test_of_two_servers_and_many_lines_each_call_runs_once(token, tmp_path, bob):
    (tmp_path / "other").mkdir()
    with (
        serving("uvicorn", token, tmp_path, pool=POOL) as one,
        serving("uvicorn", token, tmp_path / "other", pool=POOL) as two,
    ):

        async def journey() -> list[Any]:
            waiting = [*calls(one, 10), *calls(two, 10)]
            await one.until_waiting(10)
            await two.until_waiting(10)
            await asyncio.to_thread(approving(bob))
            return await asyncio.gather(*waiting)

        answers = run(journey())
        assert sorted(one.runs + two.runs) == list(range(10))
    codes = [answer.status for answer in answers]
    assert (codes.count(201), codes.count(403)) == (10, 10)

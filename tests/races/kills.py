"""Processes of the server-run path that are killed (-9) at one boundary each: before or after something is committed.

A boundary is the commit of a transaction, a statement that writes in a transaction of its own, or the side effect
of the view, which is a line in a file: no rollback takes it back, and no retry hides it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

from django.db import connection, connections
from django.urls import include, path
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval import tasks
from jit_approval.permissions import RequiresApproval
from tests.races import runners

SETTINGS: dict[str, Any] = {
    "ROOT_URLCONF": "tests.races.kills",
    "JIT_APPROVAL": {
        "MAX_OPEN_PER_REQUESTER": 10_000,
        "OPENINGS_PER_REQUESTER": "100000/hour",
        "OPENINGS_PER_POLICY": "100000/hour",
        "SECRET_KEYS": ["k" * 40],
        "RUN_LIMIT": 2,
    },
}
TIME_LIMIT = 60
# No process of this path has more; what lies beyond its last boundary ends without being killed.
POINTS = [
    (role, number)
    for role, last in (("open", 2), ("approve", 2), ("run", 8))
    for number in range(last)
]


def _nothing() -> None:
    pass


_step: Callable[[], None] = _nothing


class CountedView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request: Any) -> Response:
        _step()
        runs = os.open(os.environ["JIT_TEST_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(runs, f"{request.data['grant']}\n".encode())
        os.close(runs)
        _step()
        return Response({"ran": True}, status=201)


urlpatterns = [
    path("counted/", CountedView.as_view()),
    path("approvals/", include("jit_approval.urls")),
]


def killed(role: str, at: int | None, runs: str, *args: Any) -> int | None:
    """Play a role in a process of its own, and kill it at its `at`-th boundary; return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.races.preload"])
    name = str(connections["default"].settings_dict["NAME"])
    process = context.Process(target=_play, args=(role, at, runs, name, args))
    process.start()
    process.join(TIME_LIMIT)
    process.kill()
    return process.exitcode


def _play(role: str, at: int | None, runs: str, name: str, args: tuple[Any, ...]) -> None:
    from django.test import override_settings

    connections["default"].settings_dict["NAME"] = name
    override_settings(**SETTINGS).enable()
    os.environ["JIT_TEST_RUNS"] = runs
    if at is not None:
        _arm(at)
    try:
        _ROLES[role](*args)
    finally:
        connections.close_all()


def _arm(at: int) -> None:
    """Count the boundaries, and die at one of them."""
    global _step
    numbers = count()

    def step() -> None:
        if next(numbers) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        alone = not connection.in_atomic_block and sql.startswith(("INSERT", "UPDATE", "DELETE"))
        if alone:
            step()
        result = execute(sql, params, many, context)
        if alone:
            step()
        return result

    commit = type(connections["default"]).commit

    def committed(self: Any) -> None:
        step()
        commit(self)
        step()

    _step = step
    type(connections["default"]).commit = committed
    connection.execute_wrappers.append(around)


def run_all(barrier: Any, runs: str, pks: list[str]) -> int:
    """Run each call at the same instant as everybody else; return how many were run here."""
    os.environ["JIT_TEST_RUNS"] = runs
    count = 0
    for pk in pks:
        barrier.wait()
        count += tasks.run(pk)
    return count


def _open(token: str, number: int) -> None:
    assert runners.call(runners.client(token), number).status_code == 403


def _approve(token: str, pk: str) -> None:
    assert runners.client(token).post(f"/approvals/{pk}/approve/").status_code == 200


def _run(pk: str) -> None:
    tasks.run(pk)


_ROLES: dict[str, Callable[..., None]] = {"open": _open, "approve": _approve, "run": _run}

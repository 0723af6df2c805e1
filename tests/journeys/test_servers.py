"""The main job on real servers: WSGI (gunicorn, sync and threads) and ASGI (uvicorn), over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.db import connection
from rest_framework.authtoken.models import Token

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome
from tests import factories
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
PATIENCE = 30.0
# No control socket: all servers of a user share its path.
GUNICORN = [
    "gunicorn",
    "--no-control-socket",
    "--workers=2",
    "django.core.wsgi:get_wsgi_application()",
]
SERVERS = {
    "gunicorn-sync": [*GUNICORN, "--bind=127.0.0.1:{port}"],
    "gunicorn-threads": [*GUNICORN, "--threads=4", "--bind=127.0.0.1:{port}"],
    "uvicorn": [
        "uvicorn",
        "--factory",
        "--lifespan=off",
        "--port={port}",
        "django.core.asgi:get_asgi_application",
    ],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server of its own on this test's database."""
    port = free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONFAULTHANDLER": "1",
        "JIT_WORKER_DB": str(connection.settings_dict["NAME"]),
        "JIT_WORKER_MAIL": str(tmp_path / "mail"),
    }
    command = [part.format(port=port) for part in SERVERS[request.param]]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        # All its processes at once: that it ends in good order is not what takes time here.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first answer. A server that gives none says where it hangs, if it has a fault handler."""
    until, why = time.monotonic() + PATIENCE, ""
    while time.monotonic() < until:
        assert process.poll() is None, f"the server has ended:\n{log.read_text()}"
        try:
            httpx.get(f"{url}/api/transfers/")
            return
        except httpx.TransportError as error:
            why = repr(error)
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGSEGV)
    process.wait(PATIENCE)
    raise AssertionError(f"the server did not come up: {why}\n{log.read_text()}")


@pytest.fixture
def erin(server: str) -> Iterator[httpx.Client]:
    token = Token.objects.create(user=factories.user("erin"))
    headers = {"Authorization": f"Token {token.key}"}
    with httpx.Client(base_url=server, headers=headers, timeout=PATIENCE) as client:
        yield client


def test_a_call_is_held_approved_and_runs_once(erin):
    bob = factories.decider("bob")
    customer = Customer.objects.create(name="Ada")
    path = f"/api/customers/{customer.pk}/"
    reason = {"Approval-Reason": "Löschung, Fall 7".encode()}
    held = erin.delete(path, headers=reason)
    assert (held.status_code, held.headers["Content-Type"]) == (403, "application/problem+json")
    row = ApprovalRequest.objects.get()
    assert row.reason == "Löschung, Fall 7"
    assert erin.delete(path).json()["approval_id"] == str(row.pk)
    assert erin.get(held.json()["status_url"]).json()["next"] == "wait"

    services.approve(row, by=bob)
    assert erin.get(held.headers["Location"]).json()["next"] == "repeat_call"
    done = erin.delete(path, headers={"Approval-Id": str(row.pk)})
    assert (done.status_code, done.headers["Approval-Status"]) == (204, "consumed")
    assert not Customer.objects.exists()
    row.refresh_from_db()
    assert (row.outcome, row.response_status) == (Outcome.SUCCEEDED, 204)
    lost = erin.delete(path, headers={"Approval-Id": str(row.pk)})
    assert lost.status_code in (403, 404)


def test_a_body_without_a_length_is_411_and_opens_nothing(erin):
    factories.decider("bob")
    json = {"Content-Type": "application/json"}
    answer = erin.post("/api/transfers/", content=iter([b'{"amount":', b" 5}"]), headers=json)
    assert (answer.status_code, answer.json()["code"]) == (411, "unbindable_call")
    assert not ApprovalRequest.objects.exists()


def test_the_body_that_was_held_is_the_body_that_runs(erin):
    bob = factories.decider("bob")
    first = erin.post("/api/transfers/", json={"amount": 5}).json()["approval_id"]
    other = erin.post("/api/transfers/", json={"amount": 6}).json()["approval_id"]
    assert first != other
    services.approve(ApprovalRequest.objects.get(pk=first), by=bob)
    assert erin.post("/api/transfers/", json={"amount": 6}).status_code == 403
    assert erin.post("/api/transfers/", json={"amount": 5}).status_code == 201


@pytest.mark.parametrize(
    "path", ["/api/customers/{pk}/?q=%00%F0%9F%92%A3%2F", "/api/custom%65rs/{pk}/"]
)
def test_an_odd_path_is_one_call_and_runs_once(erin, path):
    bob = factories.decider("bob")
    path = path.format(pk=Customer.objects.create(name="Ada").pk)
    held = erin.delete(path).json()["approval_id"]
    assert erin.delete(path).json()["approval_id"] == held
    assert erin.delete(path + ("&" if "?" in path else "?") + "more").json()["approval_id"] != held
    services.approve(ApprovalRequest.objects.get(pk=held), by=bob)
    assert erin.delete(path).status_code == 204
    assert erin.delete(path).status_code == 404

"""Callers that wait, against the real thing: httpx sync and async, requests, the command."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import UUID

import httpx
import pytest
import requests
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.http import HttpResponse

from jit_approval import services
from jit_approval.client import ApprovalAuth, ApprovalTransport, AsyncApprovalTransport, errors
from jit_approval.client.__main__ import main
from jit_approval.client.requests import ApprovalAdapter
from jit_approval.execution import running
from jit_approval.models import ApprovalRequest
from tests import factories
from tests.callers import token_of
from tests.testapp.models import Customer
from tests.testapp.views import RUNS, TransferView

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "http://testserver"


@pytest.fixture(autouse=True)
def _fast(settings: Any) -> None:
    RUNS.clear()
    settings.JIT_APPROVAL = {"POLL_INTERVAL": 1}


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def headers(bob: Any) -> dict[str, str]:
    return {"Authorization": token_of(factories.user("erin"))}


class Wire(httpx.BaseTransport):
    """The project over WSGI, remembering what was sent."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []
        self.inner = httpx.WSGITransport(app=get_wsgi_application())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.sent.append(request)
        return self.inner.handle_request(request)

    def calls(self) -> list[httpx.Request]:
        return [each for each in self.sent if not each.url.path.startswith("/approvals/")]


def deciding(by: Any, service: Any = services.approve, comment: str = "") -> Any:
    """Whom `on_pending` tells: somebody who decides at once."""

    def decide(pending: Any) -> None:
        if pending.status == "pending":
            row = ApprovalRequest.objects.get(pk=pending.approval_id)
            service(row, by=by, comment=comment)

    return decide


def through(kind: str, wire: httpx.BaseTransport, headers: Any, **options: Any) -> httpx.Client:
    """A client that waits as authentication, or as transport."""
    if kind == "auth":
        auth = ApprovalAuth(**options)
        return httpx.Client(transport=wire, auth=auth, headers=headers, base_url=BASE)
    waiting = ApprovalTransport(wire, **options)
    return httpx.Client(transport=waiting, headers=headers, base_url=BASE)


KINDS = pytest.mark.parametrize("kind", ["auth", "transport"])


@KINDS
@pytest.mark.parametrize("reason", ["café, für den Lieferanten", "pay € five"])
def test_a_reason_in_any_letters_is_told_and_the_call_goes_through(
    kind, reason, bob, headers, live_server
) -> None:
    # Over a socket: httpx gives a WSGI application no other letters than ASCII.
    wire = httpx.HTTPTransport()
    with through(kind, wire, headers, on_pending=deciding(bob), reason=reason) as client:
        answer = client.post(f"{live_server.url}/api/transfers/", json={"amount": "1"})
    assert answer.status_code == 201
    assert ApprovalRequest.objects.get().reason == reason


@KINDS
def test_a_held_call_is_made_again_byte_for_byte_and_runs_once(kind, bob, headers) -> None:
    wire = Wire()
    with through(kind, wire, headers, on_pending=deciding(bob), reason="GDPR 811") as client:
        answer = client.post(
            "/api/transfers/", json={"amount": "1.000"}, headers={"Idempotency-Key": "k1"}
        )
    assert answer.status_code == 201
    assert answer.headers["approval-status"] == "consumed"
    assert RUNS == [("transfer", {"amount": "1.000"})]
    first, second = wire.calls()
    assert first.content == second.content
    assert (first.url, first.method) == (second.url, second.method)
    assert [each.headers["idempotency-key"] for each in wire.calls()] == ["k1", "k1"]
    row = ApprovalRequest.objects.get()
    assert second.headers["approval-id"] == str(row.pk)
    assert row.reason == "GDPR 811"


@KINDS
def test_no_idempotency_key_is_invented(kind, bob, headers) -> None:
    wire = Wire()
    with through(kind, wire, headers, on_pending=deciding(bob)) as client:
        client.post("/api/transfers/", json={})
    assert not any("idempotency-key" in each.headers for each in wire.sent)


@KINDS
def test_questions_carry_the_credentials_and_nothing_else_of_the_call(kind, bob, headers) -> None:
    wire = Wire()
    with through(kind, wire, headers, on_pending=deciding(bob)) as client:
        client.post("/api/transfers/", json={"a": 1}, headers={"Idempotency-Key": "k1"})
    (look,) = [each for each in wire.sent if each.url.path.startswith("/approvals/")]
    assert look.method == "GET"
    assert look.headers["authorization"] == headers["Authorization"]
    assert not {"idempotency-key", "content-type", "content-length"} & set(look.headers)


@KINDS
def test_a_rejection_is_raised_with_its_comment_and_nothing_runs(kind, bob, headers) -> None:
    wire = Wire()
    told = deciding(bob, services.reject, "use the other account")
    with through(kind, wire, headers, on_pending=told) as client:
        with pytest.raises(errors.Rejected, match="use the other account") as caught:
            client.post("/api/transfers/", json={})
        with pytest.raises(errors.Rejected):  # cooling down: said at once
            client.post("/api/transfers/", json={})
    assert caught.value.comment == "use the other account"
    assert caught.value.response.status_code == 200
    assert RUNS == []


@KINDS
def test_nobody_to_ask_is_raised(kind, headers, bob) -> None:
    bob.delete()
    with through(kind, Wire(), headers) as client, pytest.raises(errors.Unavailable):
        client.post("/api/transfers/", json={})


@KINDS
def test_without_time_to_wait_the_call_stays_open_and_later_goes_on(kind, bob, headers) -> None:
    with through(kind, Wire(), headers, wait=0) as client, pytest.raises(errors.TimedOut) as caught:
        client.post("/api/transfers/", json={})
    row = ApprovalRequest.objects.get()
    assert caught.value.approval_id == str(row.pk)
    services.approve(row, by=bob)
    with through(kind, Wire(), headers, wait=0) as client:
        assert client.post("/api/transfers/", json={}).status_code == 201
    assert len(RUNS) == 1


@KINDS
def test_an_object_that_changed_is_stale(kind, bob, headers) -> None:
    customer = Customer.objects.create(name="Ada")

    def meddle(pending: Any) -> None:
        deciding(bob)(pending)
        Customer.objects.update(name="Eve")

    with (
        through(kind, Wire(), headers, on_pending=meddle) as client,
        pytest.raises(errors.Stale) as caught,
    ):
        client.delete(f"/api/customers/{customer.pk}/")
    assert caught.value.differs == ["name"]
    assert RUNS == []


@KINDS
def test_a_streamed_body_is_sent_with_its_length(kind, bob, headers) -> None:
    wire = Wire()
    with through(kind, wire, headers, on_pending=deciding(bob)) as client:
        answer = client.post(
            "/api/transfers/",
            content=iter([b'{"a"', b": 1}"]),
            headers={"Content-Type": "application/json"},
        )
    assert answer.status_code == 201
    assert [each.headers["content-length"] for each in wire.calls()] == ["8", "8"]


@KINDS
def test_files_are_repeated_under_one_boundary(kind, bob, headers) -> None:
    wire = Wire()
    with through(kind, wire, headers, on_pending=deciding(bob)) as client:
        answer = client.post("/api/transfers/", files={"file": ("a.txt", b"hello")})
    assert answer.status_code == 201
    first, second = wire.calls()
    assert first.content == second.content


class Cut(httpx.BaseTransport):
    """A network that fails at the n-th call proper, after the server took it."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire, self.number = wire, number

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.wire.handle_request(request)
        if len(self.wire.calls()) == self.number and request.method != "GET":
            raise httpx.ReadError("cut")
        return response


@KINDS
def test_a_repeat_whose_answer_is_lost_is_raised_and_not_sent_again(kind, bob, headers) -> None:
    wire = Wire()
    options = {"on_pending": deciding(bob)}
    with through(kind, Cut(wire, 2), headers, **options) as client, pytest.raises(httpx.ReadError):
        client.post("/api/transfers/", json={})
    assert len(wire.calls()) == 2
    assert len(RUNS) == 1


def test_a_look_that_is_lost_is_looked_again(bob, headers) -> None:
    wire = Wire()
    lost: list[str] = []

    class Flaky(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.startswith("/approvals/") and not lost:
                lost.append(request.url.path)
                raise httpx.ConnectError("down")
            return wire.handle_request(request)

    with through("transport", Flaky(), headers, on_pending=deciding(bob)) as client:  # type: ignore[arg-type]
        assert client.post("/api/transfers/", json={}).status_code == 201
    assert lost and len(RUNS) == 1


def test_another_authentication_is_asked_for_every_request(bob, headers) -> None:
    wire = Wire()
    asked: list[str] = []

    def sign(request: httpx.Request) -> httpx.Request:
        asked.append(request.url.path)
        request.headers["Authorization"] = headers["Authorization"]
        return request

    auth = ApprovalAuth(sign, on_pending=deciding(bob))
    with httpx.Client(transport=wire, auth=auth, base_url=BASE) as client:
        assert client.post("/api/transfers/", json={}).status_code == 201
    assert len(asked) == len(wire.sent) == 3


def test_a_held_answer_of_another_origin_is_not_waited_for() -> None:
    """A redirect led there: what that origin says must not fetch credentials, nor repeat the call."""
    seen: list[str] = []
    body = {
        "type": "urn:jit-approval:approval-pending",
        "code": "approval_pending",
        "executed": False,
        "approval_id": "1",
        "status_url": "/approvals/1/",
    }

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        if request.url.host == "a.example":
            return httpx.Response(307, headers={"Location": "https://b.example/call/"})
        return httpx.Response(403, json=body)

    client = httpx.Client(
        transport=httpx.MockTransport(answer),
        auth=ApprovalAuth(("erin", "pw")),
        follow_redirects=True,
    )
    assert client.post("https://a.example/call/", json={}).status_code == 403
    assert seen == ["https://a.example/call/", "https://b.example/call/"]


def test_a_status_url_elsewhere_is_never_asked() -> None:
    seen: list[str] = []
    body = {
        "type": "urn:jit-approval:approval-pending",
        "code": "approval_pending",
        "executed": False,
        "approval_id": "1",
        "status_url": "https://evil.example/approvals/1/",
    }

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(403, json=body)

    client = httpx.Client(transport=httpx.MockTransport(answer), auth=ApprovalAuth(wait=0))
    with pytest.raises(errors.TimedOut):
        client.post("https://api.example/call/")
    assert set(seen) == {"api.example"}


def test_the_answer_of_a_call_that_ran_is_left_to_stream(bob, headers) -> None:
    with (
        through("auth", Wire(), headers, on_pending=deciding(bob)) as client,
        client.stream("POST", "/api/transfers/", json={}) as answer,
    ):
        assert not answer.is_stream_consumed
        assert b"".join(answer.iter_bytes()) == b'{"moved":true}'


@KINDS
def test_the_server_keeps_a_look_on_the_line_until_there_is_news(
    kind, bob, headers, settings
) -> None:
    settings.JIT_APPROVAL = {"MAX_WAIT": 8}
    asked = Event()

    class Told(Wire):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if "if-none-match" in request.headers:
                asked.set()
            return super().handle_request(request)

    def decide_when_asked() -> None:
        try:
            assert asked.wait(60)
            services.approve(ApprovalRequest.objects.get(), by=bob)
        finally:
            connections.close_all()

    wire = Told()
    with ThreadPoolExecutor(1) as pool, through(kind, wire, headers) as client:
        decided = pool.submit(decide_when_asked)
        assert client.post("/api/transfers/", json={}).status_code == 201
        decided.result()
    looks = [each for each in wire.sent if each.method == "GET"]
    assert all(each.headers["prefer"].startswith("wait=") for each in looks)
    assert ["if-none-match" in each.headers for each in looks][:2] == [False, True]
    assert len(RUNS) == 1


# --- the server runs it -----------------------------------------------------------------------------------


@pytest.fixture
def by_server(settings: Any, bob: Any) -> Any:
    """A policy that lets the server run transfers, and a worker that does so as soon as they are approved."""
    settings.JIT_APPROVAL = {"POLL_INTERVAL": 1, "SECRET_KEYS": ["k" * 40]}
    factories.policy(actions="transfer.post", execution="server")

    def decide_and_run(pending: Any) -> None:
        if pending.status == "pending":
            deciding(bob)(pending)
            assert running.run(UUID(pending.approval_id))

    return decide_and_run


@KINDS
@pytest.mark.parametrize("prefer", [{}, {"Prefer": "respond-async"}])
def test_what_the_server_ran_is_answered_as_if_it_had_run_now(
    kind, prefer, headers, by_server
) -> None:
    wire = Wire()
    with through(kind, wire, headers | prefer, on_pending=by_server) as client:
        answer = client.post("/api/transfers/", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"moved": True})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["approval-status"] == "consumed"
    assert len(wire.calls()) == 1
    assert RUNS == [("transfer", {"a": 1})]


@KINDS
def test_what_the_server_ran_before_is_not_run_again(kind, headers, by_server) -> None:
    with through(kind, Wire(), headers, on_pending=by_server) as client:
        client.post("/api/transfers/", json={"a": 1})
        with pytest.raises(errors.Consumed) as caught:
            client.post("/api/transfers/", json={"a": 1})
    assert caught.value.outcome == "succeeded"
    assert len(RUNS) == 1


# --- async ------------------------------------------------------------------------------------------------


class AsyncWire(httpx.AsyncBaseTransport):
    """Answers of a server, one after the other; sync code, so that it may ask the database."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return self.answers.pop(0)


def _held(**members: Any) -> httpx.Response:
    body = {
        "type": "urn:jit-approval:approval-pending",
        "code": "approval_pending",
        "executed": False,
        "approval_id": "1",
        "status_url": "/approvals/1/",
        "interval": 1,
    }
    return httpx.Response(403, json=body | members)


@KINDS
@pytest.mark.anyio
async def test_async_clients_wait_in_the_same_way(kind: str) -> None:
    approved = {"id": "1", "status": "approved", "next": "repeat_call"}
    ran = httpx.Response(204, headers={"Approval-Status": "consumed"})
    wire = AsyncWire(_held(), httpx.Response(200, json=approved), ran)
    how: Any = (
        {"transport": wire, "auth": ApprovalAuth()}
        if kind == "auth"
        else {"transport": AsyncApprovalTransport(wire)}
    )
    async with httpx.AsyncClient(**how) as client:
        answer = await client.put("https://api.example/call/", json={"a": 1})
    assert answer.status_code == 204
    first, look, again = wire.sent
    assert (first.content, again.headers["approval-id"]) == (again.content, "1")
    assert str(look.url) == "https://api.example/approvals/1/"


@KINDS
@pytest.mark.anyio
async def test_async_clients_raise_the_same_errors(kind: str) -> None:
    decisions = [{"verdict": "reject", "comment": "no"}]
    rejected = {"id": "1", "status": "rejected", "next": "none", "decisions": decisions}
    wire = AsyncWire(_held(), httpx.Response(200, json=rejected))
    how: Any = (
        {"transport": wire, "auth": ApprovalAuth()}
        if kind == "auth"
        else {"transport": AsyncApprovalTransport(wire)}
    )
    async with httpx.AsyncClient(**how) as client:
        with pytest.raises(errors.Rejected):
            await client.put("https://api.example/call/", json={"a": 1})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- requests ---------------------------------------------------------------------------------------------


@pytest.fixture
def session(live_server, headers) -> Any:
    with requests.Session() as session:
        session.headers.update(headers)
        yield session


def test_requests_waits_in_the_same_way(live_server, session, bob) -> None:
    adapter = ApprovalAdapter(on_pending=deciding(bob), reason="Grüße")
    session.mount(live_server.url, adapter)
    answer = session.post(f"{live_server.url}/api/transfers/", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"moved": True})
    assert RUNS == [("transfer", {"a": 1})]
    assert ApprovalRequest.objects.get().reason == "Grüße"


def test_requests_raises_the_same_errors(live_server, session, bob) -> None:
    session.mount(live_server.url, ApprovalAdapter(on_pending=deciding(bob, services.reject, "no")))
    with pytest.raises(errors.Rejected) as caught:
        session.post(f"{live_server.url}/api/transfers/", json={})
    assert caught.value.comment == "no"


def test_requests_fetches_what_the_server_ran(live_server, session, by_server) -> None:
    session.mount(live_server.url, ApprovalAdapter(on_pending=by_server))
    answer = session.post(f"{live_server.url}/api/transfers/", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"moved": True})
    assert answer.headers["Approval-Status"] == "consumed"
    assert len(RUNS) == 1


@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_what_the_view_compressed_is_read_as_it_was_meant(
    library, live_server, session, headers, by_server, monkeypatch
) -> None:
    def compressed(self: Any, request: Any) -> HttpResponse:
        content = gzip.compress(b'{"long": true}')
        return HttpResponse(content, "application/json", headers={"Content-Encoding": "gzip"})

    monkeypatch.setattr(TransferView, "post", compressed)
    if library == "requests":
        session.mount(live_server.url, ApprovalAdapter(on_pending=by_server))
        answer = session.post(f"{live_server.url}/api/transfers/", json={})
    else:
        with through("auth", Wire(), headers, on_pending=by_server) as client:
            answer = client.post("/api/transfers/", json={})
    assert (answer.json(), answer.text) == ({"long": True}, '{"long": true}')


def test_requests_rewinds_a_file(live_server, session, bob, tmp_path) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(b'--{"a": 1}')
    session.mount(live_server.url, ApprovalAdapter(on_pending=deciding(bob)))
    with path.open("rb") as file:
        file.seek(2)
        url, kind = f"{live_server.url}/api/transfers/", {"Content-Type": "application/json"}
        assert session.post(url, data=file, headers=kind).status_code == 201
    assert RUNS == [("transfer", {"a": 1})]


def test_requests_says_at_once_that_a_used_up_stream_cannot_be_repeated(monkeypatch) -> None:
    body = iter([b"{}"])
    request = requests.Request("POST", "http://127.0.0.1:9/", data=body).prepare()
    held = requests.Response()
    held.status_code, held._content = 403, _held().content
    held.headers["Content-Type"] = "application/problem+json"
    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", lambda *_, **__: held)
    with pytest.raises(errors.NotReplayable) as caught:
        ApprovalAdapter().send(request)
    assert caught.value.approval_id == "1"


# --- the command, and what it stands on -------------------------------------------------------------------


def test_the_command_waits_and_prints_the_answer(
    live_server, headers, bob, monkeypatch, capfd
) -> None:
    from jit_approval.client.progress import Progress

    shown = Progress.__call__
    decide = deciding(bob)

    def show_and_decide(self: Progress, pending: Any) -> None:
        shown(self, pending)
        decide(pending)

    monkeypatch.setattr(Progress, "__call__", show_and_decide)
    arguments = ["post", f"{live_server.url}/api/transfers/", "--reason", "why not"]
    given = [f"Authorization: {headers['Authorization']}", "Content-Type: application/json"]
    for each in given:
        arguments += ["-H", each]
    assert main([*arguments, "-d", '{"a": 1}']) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"moved": True}
    assert "transfer.post waits for approval" in err and "HTTP 201" in err


@pytest.mark.parametrize(
    "wrong",
    [
        ["-d", "@/nowhere/at/all"],
        ["--reason", "two\nlines"],
        ["--agent", "a\x7f"],
        ["-H", "X: a\nb"],
    ],
)
def test_what_cannot_be_sent_is_wrong_usage_and_no_answer(wrong, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["POST", "https://a.example/call/", *wrong])
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("service", "status"), [(services.reject, 3), (services.approve, 0), (None, 5)]
)
def test_the_commands_exit_status_says_what_became_of_the_call(
    live_server, headers, bob, service, status, monkeypatch, capfd
) -> None:
    from jit_approval.client.progress import Progress

    if service is not None:
        decide = deciding(bob, service)
        monkeypatch.setattr(Progress, "__call__", lambda self, pending: decide(pending))
    arguments = ["POST", f"{live_server.url}/api/transfers/", "--wait", "0"]
    assert main([*arguments, "-H", f"Authorization: {headers['Authorization']}"]) == status


def test_the_command_says_that_the_network_failed(capfd) -> None:
    assert main(["DELETE", "http://127.0.0.1:9/", "-q"]) == 7


@pytest.mark.parametrize("arguments", [["DELETE", "ftp://x/"], ["DELETE", "http://x/", "-H", "x"]])
def test_wrong_usage_is_said_before_anything_is_sent(arguments, capfd) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_the_client_imports_no_django() -> None:
    code = (
        "import sys\n"
        "for name in ('django', 'rest_framework'): sys.modules[name] = None\n"
        "import jit_approval.client as c, jit_approval.client.requests, jit_approval.client.__main__\n"
        "assert all(getattr(c, name) for name in c.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_and_the_flow_need_no_httpx() -> None:
    code = (
        "import sys\n"
        "for name in ('django', 'httpx', 'anyio'): sys.modules[name] = None\n"
        "from jit_approval.client import Rejected, Pending\n"
        "import jit_approval.client.requests\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_redirect_on_the_same_origin_repeats_the_request_that_was_held() -> None:
    seen: list[tuple[str, str, bytes]] = []
    approved = {"id": "1", "status": "approved", "next": "repeat_call"}

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path, request.content))
        if request.url.path == "/old/":
            return httpx.Response(307, headers={"Location": "/new/"})
        if request.url.path == "/approvals/1/":
            return httpx.Response(200, json=approved)
        if "approval-id" in request.headers:
            return httpx.Response(204, headers={"Approval-Status": "consumed"})
        return _held()

    transport, auth = httpx.MockTransport(answer), ApprovalAuth()
    client = httpx.Client(transport=transport, auth=auth, follow_redirects=True)
    assert client.post("https://a.example/old/", content=b"x").status_code == 204
    assert seen == [
        ("POST", "/old/", b"x"),
        ("POST", "/new/", b"x"),
        ("GET", "/approvals/1/", b""),
        ("POST", "/new/", b"x"),
    ]


def test_sixteen_looks_stay_within_what_httpx_takes_for_redirects(monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pending = {"id": "1", "status": "pending", "next": "wait"}
    looks: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/approvals/1/":
            looks.append(request.url.path)
            return httpx.Response(200, json=pending)
        return _held()

    client = httpx.Client(transport=httpx.MockTransport(answer), auth=ApprovalAuth())
    with pytest.raises(errors.TimedOut):
        client.post("https://a.example/")
    assert len(looks) == 16


def test_progress_counts_down_on_a_terminal_and_writes_lines_elsewhere() -> None:
    from io import StringIO

    from jit_approval.client import Pending
    from jit_approval.client.progress import Progress

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (StringIO(), Terminal()):
        with Progress(stream) as progress:
            progress(Pending("1", "a.b", match_code="7K42", expires_in=60))
            progress(Pending("1", "a.b", match_code="7K42", status="approved", expires_in=60))
        assert "[7K42] a.b waits for approval" in stream.getvalue()
        assert stream.getvalue().endswith("approved\n")

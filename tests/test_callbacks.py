"""A requester's own endpoint: few, told the id and the state, on the open Internet alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from rest_framework.test import APIClient
from standardwebhooks import Webhook

from jit_approval import services, tasks
from jit_approval.models import ApprovalRequest, Callback, Notification
from jit_approval.states import Outcome
from tests import factories
from tests.receivers import Receiver, receiver

pytestmark = pytest.mark.django_db
URL = "/approvals/callbacks/"
KEYS = {"SECRET_KEYS": ["k" * 40]}
Event, State = Notification.Event, Notification.State


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Receiver]:
    with (
        receiver(tmp_path) as found,
        override_settings(JIT_APPROVAL={**KEYS, "WEBHOOK_PORTS": [found.port]}),
    ):
        yield found


@pytest.fixture
def erin() -> Any:
    factories.decider("bob")
    return factories.user("erin")


def client(user: Any) -> APIClient:
    made = APIClient()
    made.force_authenticate(user)
    return made


def registered(user: Any, endpoint: Receiver) -> dict[str, Any]:
    response = client(user).post(URL, {"url": endpoint.url})
    assert response.status_code == 201, response.content
    found: dict[str, Any] = response.json()
    return found


def deliver(row: ApprovalRequest, event: str) -> None:
    tasks.deliver(Notification.objects.get(approval_request=row, event=event, recipient="").pk)
    for pk in Notification.objects.filter(state=State.WAITING).values_list("pk", flat=True):
        tasks.deliver(pk)


def test_it_is_called_back_with_the_id_and_the_state_and_nothing_else(erin, endpoint):
    secret = registered(erin, endpoint)["secret"]
    row = factories.held(erin, payload="amount 250000")
    deliver(row, Event.HELD)
    assert endpoint.got == []  # the requester knows
    bob = type(erin).objects.get(username="bob")
    services.approve(row, by=bob, comment="well known")
    deliver(row, Event.DECIDED)
    [(_, headers, body)] = endpoint.got
    content = Webhook(secret).verify(body, headers)
    assert content["type"] == "approval.decided"
    assert content["data"] == {"approval_id": str(row.pk), "status": "approved", "outcome": None}
    assert b"250000" not in body
    assert b"well known" not in body


def test_the_end_of_a_run_by_the_server_is_told(erin, endpoint):
    registered(erin, endpoint)
    row = factories.held(erin, terms={"execution": "server"})
    services.approve(row, by=type(erin).objects.get(username="bob"))
    spent = services.consume(factories.fresh(row), state_digest=row.state_digest)
    services.record_outcome(spent, outcome=Outcome.FAILED, response_status=500)
    deliver(row, Event.CONSUMED)
    assert b'"outcome":"failed"' in endpoint.got[-1][2]


def test_nobody_elses_endpoint_hears_of_a_request(erin, endpoint):
    registered(factories.user("eve"), endpoint)
    row = factories.held(erin)
    services.reject(row, by=type(erin).objects.get(username="bob"))
    deliver(row, Event.DECIDED)
    assert endpoint.got == []


def test_an_endpoint_that_is_gone_is_disabled_and_says_so(erin, endpoint):
    made = registered(erin, endpoint)
    endpoint.status = 410
    row = factories.held(erin)
    services.reject(row, by=type(erin).objects.get(username="bob"))
    deliver(row, Event.DECIDED)
    shown = client(erin).get(f"{URL}{made['id']}/").json()
    assert (shown["enabled"], "410" in shown["disabled_because"]) == (False, True)


def test_an_endpoint_that_fails_is_one_line_in_the_log(erin, endpoint, caplog):
    registered(erin, endpoint)
    endpoint.status = 503
    row = factories.held(erin)
    services.reject(row, by=type(erin).objects.get(username="bob"))
    deliver(row, Event.DECIDED)
    [record] = [each for each in caplog.records if "Could not deliver" in each.message]
    assert "503" in record.message
    assert record.exc_info is None


def test_the_secret_is_shown_once_and_stored_encrypted(erin, endpoint):
    secret = registered(erin, endpoint)["secret"]
    assert "secret" not in client(erin).get(URL).json()["results"][0]
    assert secret not in Callback.objects.get().sealed


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"url": 1},
        {"url": "http://hooks.example.com/"},
        {"url": "https://127.0.0.1/"},
        {"url": "https://localhost./"},
        {"url": "https://u:p@hooks.example.com/"},
        {"url": "https://hooks.example.com/", "secret": "short"},
        {"url": "https://hooks.example.com/", "user": 1},
    ],
)
def test_what_would_not_be_called_is_refused(erin, settings, body):
    settings.JIT_APPROVAL = KEYS
    response = client(erin).post(URL, body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert not Callback.objects.exists()


def test_without_a_key_none_is_registered(erin):
    response = client(erin).post(URL, {"url": "https://hooks.example.com/"})
    assert response.status_code == 503
    assert not Callback.objects.exists()


def test_there_are_few(erin, settings):
    settings.JIT_APPROVAL = {**KEYS, "MAX_CALLBACKS": 2}
    for _ in range(2):
        made = client(erin).post(URL, {"url": "https://hooks.example.com/"})
    assert client(erin).post(URL, {"url": "https://hooks.example.com/"}).status_code == 409
    assert client(erin).delete(f"{URL}{made.json()['id']}/").status_code == 204
    assert client(erin).post(URL, {"url": "https://hooks.example.com/"}).status_code == 201


def test_others_endpoints_do_not_exist(erin, settings):
    settings.JIT_APPROVAL = KEYS
    made = client(erin).post(URL, {"url": "https://hooks.example.com/"}).json()
    eve = client(factories.user(is_superuser=True))
    assert eve.get(f"{URL}{made['id']}/").status_code == 404
    assert eve.delete(f"{URL}{made['id']}/").status_code == 404
    assert eve.get(URL).json() == {"results": []}
    answer = client(erin).get(f"{URL}nonsense/")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such callback.")
    assert APIClient().post(URL, {"url": "https://hooks.example.com/"}).status_code in (401, 403)


def test_a_deactivated_account_is_not_called_back(erin, endpoint):
    registered(erin, endpoint)
    row = factories.held(erin)
    type(erin).objects.filter(pk=erin.pk).update(is_active=False)
    services.reject(row, by=type(erin).objects.get(username="bob"))
    deliver(row, Event.DECIDED)
    assert endpoint.got == []


def test_a_secret_moved_to_another_endpoint_signs_nothing(erin, endpoint):
    registered(erin, endpoint)
    Callback.objects.update(url=endpoint.url + "&other")
    row = factories.held(erin)
    services.reject(row, by=type(erin).objects.get(username="bob"))
    deliver(row, Event.DECIDED)
    assert endpoint.got == []

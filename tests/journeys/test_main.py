"""The main job over HTTP: a call is held, somebody else approves it, it runs once."""

from __future__ import annotations

import pytest
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp.models import Customer
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()


def client_of(user) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
    return client


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    return client_of(factories.user("erin"))


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ada")


def test_a_call_is_held_approved_and_runs_once(erin, bob, customer):
    url = f"/api/customers/{customer.pk}/"
    first = erin.delete(url, headers={"Approval-Reason": "GDPR erasure #811"})
    assert first.status_code == 403
    assert first["Content-Type"] == "application/problem+json"
    body = first.json()
    assert body["code"] == "approval_pending"
    assert body["executed"] is False
    assert body["expires_in"] > 800
    assert first["Approval-Id"] == body["approval_id"]
    assert (first["Retry-After"], first["Cache-Control"]) == ("5", "no-store")
    again = erin.delete(url)
    assert again.json()["approval_id"] == body["approval_id"]

    row = ApprovalRequest.objects.get()
    assert (row.action, row.reason, row.object_label) == (
        "customers.destroy",
        "GDPR erasure #811",
        "Ada",
    )
    services.approve(row, by=bob, comment="fine")
    done = erin.delete(url)
    assert done.status_code == 204
    assert (done["Approval-Id"], done["Approval-Status"]) == (body["approval_id"], "consumed")
    assert RUNS == [("destroy", customer.pk)]
    row.refresh_from_db()
    assert (row.status, row.outcome, row.response_status) == (
        Status.CONSUMED,
        Outcome.SUCCEEDED,
        204,
    )
    kinds = list(AuditEvent.objects.order_by("sequence").values_list("kind", flat=True))
    assert kinds == ["held", "approved", "consumed", "outcome"]


def test_the_next_identical_call_is_held_anew(erin, bob):
    for _ in range(2):
        held = erin.post("/api/transfers/", {"amount": 5})
        assert held.json()["code"] == "approval_pending"
        services.approve(ApprovalRequest.objects.get(pk=held["Approval-Id"]), by=bob)
        assert erin.post("/api/transfers/", {"amount": 5}).status_code == 201
    assert len(RUNS) == 2
    assert ApprovalRequest.objects.count() == 2

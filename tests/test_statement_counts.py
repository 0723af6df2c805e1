"""How many statements a gated call costs, BEGIN, COMMIT and SAVEPOINT aside."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from tests import factories
from tests.testapp.models import Customer

pytestmark = pytest.mark.django_db(transaction=True)
FRAME = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")
URL = "/api/transfers/"


class Statements(CaptureQueriesContext):
    """The statements of a block, without those that only frame transactions."""

    @property
    def texts(self) -> list[str]:
        return [
            query["sql"] for query in self.captured_queries if not query["sql"].startswith(FRAME)
        ]


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient()
    client.force_authenticate(factories.user("erin"))
    return client


def test_an_ungated_method_costs_nothing(erin):
    with Statements(connection) as counted:
        erin.get(URL)
    assert counted.texts == []


def test_opening_costs_two_before_six_in_one_transaction_and_the_enqueue(erin):
    with Statements(connection) as counted:
        erin.post(URL, {"amount": 1})
    assert len(counted.texts) <= 2 + 6 + 1, counted.texts


def test_repeating_while_pending_costs_one_read(erin):
    erin.post(URL, {"amount": 1})
    with Statements(connection) as counted:
        erin.post(URL, {"amount": 1})
    assert len(counted.texts) == 1
    assert counted.texts[0].startswith("SELECT")


def test_repeating_with_an_object_costs_one_more(erin):
    customer = Customer.objects.create(name="Ada")
    erin.delete(f"/api/customers/{customer.pk}/")
    with Statements(connection) as counted:
        erin.delete(f"/api/customers/{customer.pk}/")
    assert len(counted.texts) == 2
    assert all(text.startswith("SELECT") for text in counted.texts)


@pytest.mark.urls("tests.testapp.odd_urls")
def test_by_policy_an_unnamed_call_costs_one_and_a_pending_one_two(erin):
    with Statements(connection) as counted:
        assert erin.post("/bypolicy/").status_code == 200
    assert len(counted.texts) == 1
    factories.policy(actions="bypolicy.*")
    erin.post("/bypolicy/")
    with Statements(connection) as counted:
        assert erin.post("/bypolicy/").status_code == 403
    assert len(counted.texts) == 2
    assert all(text.startswith("SELECT") for text in counted.texts)


def test_deciding_at_quorum_one_costs_six_with_its_enqueue(erin, bob):
    erin.post(URL, {"amount": 1})
    row = ApprovalRequest.objects.get()
    with Statements(connection) as counted:
        services.approve(row, by=bob)
    assert len(counted.texts) <= 6, counted.texts


def test_waking_who_waits_costs_no_statement_of_its_own(erin, bob, settings):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60}
    erin.post(URL, {"amount": 1})
    row = ApprovalRequest.objects.get()
    with Statements(connection) as counted:
        services.approve(row, by=bob)
    assert len(counted.texts) <= 6, counted.texts
    telling = [text for text in counted.texts if "pg_notify" in text]
    assert len(telling) == (connection.vendor == "postgresql")


def test_nobody_is_told_where_nobody_can_wait(erin, bob):
    erin.post(URL, {"amount": 1})
    with Statements(connection) as counted:
        services.approve(ApprovalRequest.objects.get(), by=bob)
    assert not any("pg_notify" in text for text in counted.texts)


def test_asking_to_wait_costs_no_statement_where_nobody_may(erin):
    erin.post(URL, {"amount": 1})
    with Statements(connection) as counted:
        erin.post(URL, {"amount": 1}, headers={"Prefer": "wait=9"})
    assert len(counted.texts) == 1


def test_an_approved_call_adds_six_and_two_commits(erin, bob):
    erin.post(URL, {"amount": 1})
    services.approve(ApprovalRequest.objects.get(), by=bob)
    with Statements(connection) as counted:
        assert erin.post(URL, {"amount": 1}).status_code == 201
    assert len(counted.texts) <= 6, counted.texts
    commits = [query for query in counted.captured_queries if query["sql"].startswith("COMMIT")]
    assert len(commits) == 2

"""Policies from the caller's side: allow, deny, observe, the object's own approvers, a stand-in, groups."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from guardian.shortcuts import assign_perm
from rest_framework.test import APIClient

from jit_approval import clock, policies
from jit_approval.models import ApprovalRequest, AuditEvent, Delegation, PolicyGroupRequirement
from jit_approval.states import Effect
from tests import factories
from tests.callers import client_of
from tests.testapp.models import Customer
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)

TRANSFERS = "/api/transfers/"


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()


@pytest.fixture
def erin() -> APIClient:
    return client_of(factories.user("erin"))


def decide(user, response, verdict: str = "approve") -> int:
    """What the status API answers to a decision on a held call."""
    assert response.json()["code"] == "approval_pending", response.content
    url = f"/approvals/{response['Approval-Id']}/{verdict}/"
    return client_of(user).post(url, {"comment": "seen"}, format="json").status_code


def transfer(client: APIClient, amount: object, **headers: str):
    return client.post(TRANSFERS, {"amount": amount}, format="json", headers=headers)


def kinds() -> list[str]:
    of_calls = AuditEvent.objects.exclude(kind="policy_changed").order_by("pk")
    return list(of_calls.values_list("kind", flat=True))


def test_small_transfers_run_large_ones_wait_and_none_goes_to_a_closed_account(erin):
    bob = factories.decider("bob")
    factories.policy(
        slug="closed",
        actions="transfer.*",
        priority=10,
        effect=Effect.DENY,
        condition='request.data.to == "closed"',
    )
    factories.policy(
        slug="small",
        actions="transfer.*",
        priority=20,
        effect=Effect.ALLOW,
        condition="request.data.amount <= 100",
    )
    factories.policy(slug="large", actions="transfer.*", priority=30)

    def send(**data):
        return erin.post(TRANSFERS, data, format="json")

    assert send(to="open", amount=100).status_code == 201
    denied = send(to="closed", amount=1)
    assert (denied.status_code, denied.json()["code"]) == (403, "approval_denied")
    assert denied.json()["executed"] is False
    held = send(to="open", amount=101)
    assert held.json()["policy"] == "large"
    assert decide(bob, held) == 200
    assert send(to="open", amount=101).status_code == 201
    assert [data["amount"] for _, data in RUNS] == [100, 101]
    assert kinds() == ["allowed", "denied", "held", "approved", "consumed", "outcome"]


def test_a_shadow_policy_is_seen_in_the_trail_alone(erin):
    bob = factories.decider("bob")
    factories.policy(slug="shadow", effect=Effect.OBSERVE, required_approvals=2)
    held = transfer(erin, 5)
    assert held.json()["policy"] is None
    assert decide(bob, held) == 200
    assert transfer(erin, 5).status_code == 201
    assert kinds() == ["observed", "held", "approved", "consumed", "outcome"]


def test_who_may_approve_this_customer_approves_for_this_customer(erin):
    carol, dave = factories.user("carol"), factories.user("dave")
    hers, other = (Customer.objects.create(name=name) for name in ("Ada", "Eve"))
    assign_perm("testapp.change_customer", carol, hers)
    assign_perm("testapp.change_customer", dave, other)
    factories.policy(actions="customers.destroy", object_permission="testapp.change_customer")
    url = f"/api/customers/{hers.pk}/"
    held = erin.delete(url)
    assert decide(dave, held) == 404
    assert erin.delete(url).json()["code"] == "approval_pending"
    assert decide(carol, held) == 200
    assert erin.delete(url).status_code == 204
    assert list(Customer.objects.all()) == [other]


def test_a_stand_in_decides_for_the_delegator_and_it_is_shown(erin):
    alice, bob = factories.decider("alice"), factories.user("bob")
    held = transfer(erin, 5)
    assert decide(bob, held) == 404
    now = clock.now(policies.database())
    lent = Delegation.objects.create(
        delegator=alice, stand_in=bob, starts_at=now, ends_at=now + timedelta(days=7)
    )
    assert decide(bob, held) == 200
    shown = erin.get(held["Location"]).json()
    assert [(one["by"], one["on_behalf_of"]) for one in shown["decisions"]] == [("bob", ["alice"])]
    lent.revoked_at = clock.now(policies.database())
    lent.save()
    again = transfer(erin, 5)  # back early: what he approved for her is void
    assert again.json()["code"] == "approval_pending"
    assert again["Approval-Id"] != held["Approval-Id"]
    assert decide(alice, again) == 200
    assert transfer(erin, 5).status_code == 201
    assert len(RUNS) == 1


def test_two_of_security_and_one_of_finance(erin):
    policy = factories.policy(required_approvals=3)
    users = {name: factories.decider(name) for name in ("sam", "sue", "fay", "max")}
    for name, count, members in (
        ("security", 2, ["sam", "sue", "max"]),
        ("finance", 1, ["fay", "max"]),
    ):
        group = Group.objects.create(name=name)
        group.user_set.add(*(users[member] for member in members))
        PolicyGroupRequirement.objects.create(policy=policy, group=group, count=count)
    held = transfer(erin, 5)
    for name in ("sam", "max"):
        assert decide(users[name], held) == 200
        assert transfer(erin, 5)["Approval-Id"] == held["Approval-Id"]
    assert RUNS == []
    assert decide(users["sue"], held) == 200
    assert transfer(erin, 5).status_code == 201
    assert ApprovalRequest.objects.count() == 1


def test_where_nobody_can_decide_nothing_is_opened(erin):
    factories.policy(required_approvals=2)
    factories.decider("bob")
    refused = transfer(erin, 5)
    assert (refused.status_code, refused.json()["code"]) == (403, "approval_unavailable")
    assert not ApprovalRequest.objects.exists()
    assert RUNS == []

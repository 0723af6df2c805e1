"""How far a request is from its quorum: what people are told is what deciding will count."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jit_approval import services
from jit_approval.models import ApprovalRequest, Delegation
from jit_approval.policies import progress
from jit_approval.states import Status
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import INBOX, client_of, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def groups() -> dict[str, Group]:
    return {name: Group.objects.create(name=name) for name in ("security", "finance")}


def member(name: str, *groups: Group) -> Any:
    made = factories.decider(name, is_staff=True)
    made.groups.add(*groups)
    return made


def held(groups: dict[str, Group], **counts: int) -> ApprovalRequest:
    required = tuple((groups[name].pk, name, count) for name, count in counts.items())
    return factories.held(terms={"group_requirements": required})


def said(row: ApprovalRequest) -> list[tuple[str, int, int]]:
    where = progress.of(factories.fresh(row))
    listed = progress.of_page([factories.fresh(row)])[row.pk]
    assert listed.groups == where.groups
    return [(each.group, each.given, each.needed) for each in where.groups]


def test_groups_still_to_be_represented_are_told(groups) -> None:
    bob, carol = member("bob", groups["security"]), member("carol", groups["security"])
    member("frank", groups["finance"])
    row = held(groups, security=2, finance=1)
    services.approve(row, by=bob)
    assert said(row) == [("security", 1, 2), ("finance", 0, 1)]
    client = client_of(carol)
    shown = text_of(client.get(page(row)))
    assert "<strong>1 of 3</strong>" in shown
    assert "<b>security</b> 1 of 2" in shown
    assert "<b>finance</b> 0 of 1" in shown
    listed = text_of(client.get(INBOX))
    assert "security 1 of 2" in listed
    assert "finance 0 of 1" in listed
    told = text_of(client.post(page(row), {"verdict": "approve"}, follow=True))
    assert "Still needed: 1 approval, of them finance 1." in told


def test_one_person_fills_one_place(groups) -> None:
    both = member("both", *groups.values())
    member("bob", groups["security"])
    member("frank", groups["finance"])
    row = held(groups, security=1, finance=1)
    services.approve(row, by=both)
    assert sum(given for _name, given, _needed in said(row)) == 1
    assert progress.of(factories.fresh(row)).missing == 1


def test_vote_of_who_left_the_group_is_taken_back_from_it(groups) -> None:
    bob = member("bob", groups["security"])
    member("carol", groups["security"])
    member("frank", groups["finance"])
    row = held(groups, security=1, finance=1)
    services.approve(row, by=bob)
    bob.groups.clear()
    assert said(row) == [("security", 0, 1), ("finance", 0, 1)]


def test_stand_in_represents_the_delegators_group(groups) -> None:
    alice, bob = member("alice", groups["security"]), factories.user("bob", is_staff=True)
    member("frank", groups["finance"])
    now = timezone.now()
    Delegation.objects.create(
        delegator=alice, stand_in=bob, starts_at=now, ends_at=now + timedelta(hours=1)
    )
    row = held(groups, security=1, finance=1)
    services.approve(row, by=bob)
    assert said(row) == [("security", 1, 1), ("finance", 0, 1)]


def test_vote_that_rests_on_a_delegation_is_not_called_void() -> None:
    alice, bob = factories.decider("alice"), factories.user("bob", is_staff=True)
    factories.decider()
    now = timezone.now()
    Delegation.objects.create(
        delegator=alice, stand_in=bob, starts_at=now, ends_at=now + timedelta(hours=1)
    )
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=bob)
    assert "does not count" not in text_of(client_of(bob).get(page(row)))
    assert progress.of(factories.fresh(row)).void == 0


def test_new_member_of_a_deciding_group_is_told_on_top_while_it_is_open(groups) -> None:
    bob = member("bob")
    groups["security"].permissions.add(factories.decide_permission())
    row = factories.held()
    with TestCase.captureOnCommitCallbacks(execute=True):
        factories.user("eve").groups.add(groups["security"])
    shown = text_of(client_of(bob).get(page(row)))
    assert "eve joined security 0 s ago, while this was open." in shown
    assert "Deciders changed" in shown
    assert services.approve(row, by=bob).status == Status.APPROVED


def test_terms_that_bind_the_requester_and_the_object_are_shown() -> None:
    bob = factories.decider("bob", is_staff=True)
    row = factories.held(
        terms={
            "require_approval_id": True,
            "severity": "critical",
            "object_permission": -1,
            "object_permission_label": "testapp.change_customer",
        }
    )
    shown = text_of(client_of(bob).get(page(row)))
    assert "jit-severity-critical" in shown
    assert "who holds <code>testapp.change_customer</code> on this object" in shown
    assert "must name this approval" in shown
    assert "jit-severity-critical" in text_of(client_of(bob).get(INBOX))


def test_number_of_queries_of_the_inbox_does_not_grow(groups) -> None:
    bob = member("bob", *groups.values())
    member("carol", *groups.values())
    client = client_of(bob)

    def queries(count: int) -> int:
        for _ in range(count):
            services.approve(held(groups, security=1, finance=1), by=bob)
        with CaptureQueriesContext(connection) as found:
            assert client.get(INBOX).status_code == 200
        return len(found)

    assert queries(2) == queries(6)

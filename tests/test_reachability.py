"""Of many policies at once, those nobody could satisfy: as the gate would find them, one by one."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import override_settings
from django.utils import timezone
from guardian.shortcuts import assign_perm

from jit_approval import policies
from jit_approval.models import ApprovalPolicy, Delegation
from jit_approval.policies import reachability
from tests import factories

pytestmark = pytest.mark.django_db


def a_small_world(seed: int) -> None:
    """Six people in three groups, four policies, some delegations: whatever the dice say."""
    dice = random.Random(seed)
    groups = [Group.objects.create(name=f"group {number}") for number in range(3)]
    if dice.random() < 0.2:
        groups[0].permissions.add(factories.decide_permission())
    people = []
    for _ in range(6):
        made = factories.user(is_superuser=dice.random() < 0.1, is_active=dice.random() < 0.9)
        made.groups.set(dice.sample(groups, dice.randrange(3)))
        people.append(made)
    for _ in range(4):
        policy = factories.policy(required_approvals=dice.randint(1, 4))
        for user in dice.sample(people, dice.randrange(4)):
            assign_perm("jit_approval.decide", user, policy)
        for group in dice.sample(groups, dice.randrange(3)):
            assign_perm("jit_approval.decide", group, policy)
        for group in dice.sample(groups, dice.randrange(2)):
            policy.group_requirements.create(group=group, count=dice.randint(1, 2))
    now = timezone.now()
    for _ in range(dice.randrange(3)):
        one, other = dice.sample(people, 2)
        covered = dice.choice([None, policy])
        Delegation.objects.create(
            delegator=one,
            stand_in=other,
            policy=covered,
            starts_at=now - timedelta(hours=1),
            ends_at=now + timedelta(hours=1),
        )


@pytest.mark.parametrize("seed", range(60))
def test_list_and_gate_agree(seed) -> None:
    a_small_world(seed)
    rows = list(ApprovalPolicy.objects.order_by("pk"))
    one_by_one = {row.pk for row in rows if not policies.quorum_is_reachable(policies.terms(row))}
    assert reachability.out_of_reach(rows) == one_by_one


def test_two_accounts_of_one_person_count_once() -> None:
    policy = factories.policy(required_approvals=2)
    for name in ("a", "b"):
        made = factories.decider(name)
        made.email = "same@example.test"
        made.save()
    assert reachability.out_of_reach([policy]) == set()
    with override_settings(JIT_APPROVAL={"PERSON_KEY": "email"}):
        assert reachability.out_of_reach([policy]) == {policy.pk}


def test_accounts_without_a_person_are_persons_of_their_own() -> None:
    policy = factories.policy(required_approvals=2)
    for name in ("a", "b"):
        made = factories.decider(name)
        made.email = ""
        made.save()
    with override_settings(JIT_APPROVAL={"PERSON_KEY": "email"}):
        assert reachability.out_of_reach([policy]) == set()


@pytest.mark.parametrize("effect", ["allow", "deny", "observe"])
def test_what_holds_no_call_needs_nobody(effect) -> None:
    assert reachability.out_of_reach([factories.policy(effect=effect)]) == set()


def test_six_queries_for_any_number(django_assert_num_queries: Any) -> None:
    group = Group.objects.create(name="g")
    rows = [factories.policy() for _ in range(10)]
    for row in rows:
        row.group_requirements.create(group=group)
    with django_assert_num_queries(6):
        reachability.out_of_reach(rows)

"""Of an erased person nothing is left beside the trail: not where they are told, nor in policies that are over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from guardian.shortcuts import assign_perm, remove_perm

from jit_approval import clock, erasure, policies, policy_changes, services
from jit_approval.audit import keys, seal
from jit_approval.models import (
    ApprovalPolicy,
    Callback,
    Channel,
    Decision,
    EscalatedDecider,
    Notification,
    PolicyChange,
    PolicyVersion,
    PreferredChannel,
)
from jit_approval.policies import erased, rungs, versions
from jit_approval.states import Outcome, Status
from tests import factories
from tests.test_delegation import delegate
from tests.test_erasure import run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def key(tmp_path: Path, settings: Any) -> Iterator[None]:
    keys.generate("approvals.example/trail", tmp_path / "trail.key")
    settings.JIT_APPROVAL = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}
    yield


@pytest.fixture(autouse=True)
def alice() -> Any:
    """Who erases, and changes policies."""
    made = factories.user("alice")
    for codename in ("erase_auditevent", "change_approvalpolicy"):
        made.user_permissions.add(Permission.objects.get(codename=codename))
    return made


@pytest.fixture
def erin() -> Any:
    return factories.user("erin")


def erase(name: str) -> str:
    status, said = run("erase", "--subject", name, "--as", "alice")
    assert status == 0, said
    return said


def end(row: Any, by: Any) -> None:
    services.approve(factories.fresh(row), by=by)
    spent = services.consume(factories.fresh(row), state_digest=row.state_digest)
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED)


def all_versions() -> str:
    return json.dumps(list(PolicyVersion.objects.values()), default=str)


# --- where they are told -------------------------------------------------------------------------------------


def test_where_a_person_is_called_back_and_told_goes_and_that_of_others_stays(erin) -> None:
    frank = factories.user("frank")
    channel = Channel.objects.create(slug="mine", name="Mine", kind="dummy")
    for user in (erin, frank):
        at = clock.now("default")
        url = f"https://hooks.example.com/{user}"
        Callback.objects.create(user=user, number=1, url=url, created_at=at)
        PreferredChannel.objects.create(user=user, channel=channel)
    erase("erin")
    assert [each.user for each in Callback.objects.all()] == [frank]
    assert [each.user for each in PreferredChannel.objects.all()] == [frank]


def test_messages_to_the_address_of_a_person_go_and_those_that_wait_stay(erin) -> None:
    factories.decider("bob")
    row = factories.held(factories.user("frank"))
    states = (Notification.State.SENT, Notification.State.WAITING)
    for number, state in enumerate(states):
        values = {"event": "expired", "occasion": number, "channel": "email", "state": state}
        Notification.objects.create(
            approval_request=row,
            recipient=erin.email,
            address=erin.email,
            next_attempt_at=row.created_at,
            created_at=row.created_at,
            **values,
        )
    erase("erin")
    left = Notification.objects.filter(address=erin.email)
    assert [each.state for each in left] == [Notification.State.WAITING]


def test_who_decided_by_a_ladder_is_forgotten_where_the_request_is_over(erin) -> None:
    bob, frank = factories.decider("bob"), factories.user("frank")
    over, waiting = (factories.held(frank) for _ in range(2))
    for row in (over, waiting):
        EscalatedDecider.objects.create(approval_request=row, user=erin, step=1)
    end(over, bob)
    erase("erin")
    assert [each.approval_request for each in EscalatedDecider.objects.all()] == [waiting]


def test_votes_of_others_for_an_erased_person_name_them_no_more() -> None:
    carol, bob = factories.decider("carol"), factories.user("bob")
    delegate(carol, bob)
    over = factories.held(factories.user("frank"))
    end(over, bob)
    factories.decider("dora")
    waiting = factories.held(factories.user("frank2"), terms={"required_approvals": 2})
    services.approve(waiting, by=bob)
    assert Decision.objects.get(approval_request=over).on_behalf_of == ["carol"]
    erase("carol")
    vote = Decision.objects.get(approval_request=over)
    assert (vote.on_behalf_of, vote.linked, vote.decider) == ([erased.GONE], [], bob)
    # It is not over: by this the vote is counted.
    vote = Decision.objects.get(approval_request=waiting)
    assert (vote.on_behalf_of, len(vote.linked)) == (["carol"], 1)


# --- what policies said ----------------------------------------------------------------------------------------


def named_once(user: Any, **fields: Any) -> ApprovalPolicy:
    """A policy that named the person as a decider, and does not any more: three versions."""
    policy = factories.policy(**fields)
    assign_perm("jit_approval.decide", user, policy)
    remove_perm("jit_approval.decide", user, policy)
    return policy


def test_versions_that_name_an_erased_person_say_a_placeholder_instead(erin) -> None:
    policy = named_once(erin, fallback="security@example.com\nerin@example.test")
    policy.fallback = "security@example.com"
    policy.save()
    assert "erin" in all_versions()
    said = erase("erin")
    assert "Still named" not in said
    assert "erin" not in all_versions()
    version = PolicyVersion.objects.get(policy=policy, number=2)
    assert version.data["users"] == {"decide": [erased.GONE]}
    assert version.data["fallback"] == ["security@example.com", erased.GONE]
    assert versions.changed_past([policy]) == set()
    # Nothing has changed: nothing new is written when the policy is touched again.
    policy.save()
    assert PolicyVersion.objects.filter(policy=policy).count() == 4


def test_steps_that_named_an_erased_person_say_a_placeholder_instead(erin) -> None:
    step = {**rungs.nothing(), "after": "1m", "users": ["erin", "bob"]}
    step["addresses"] = ["erin@example.test"]
    found = erased.without({"steps": [step]}, ["erin", "erin@example.test"])
    assert found["steps"][0]["users"] == [erased.GONE, "bob"]
    assert found["steps"][0]["addresses"] == [erased.GONE]
    assert erased.names({"steps": [step]}, ["erin"])
    assert not erased.names({"steps": [step]}, ["eri", ""])


def test_of_a_policy_that_still_names_the_person_all_versions_stay_and_it_is_told(erin) -> None:
    past, present = named_once(erin), factories.policy(slug="present")
    assign_perm("jit_approval.decide", erin, present)
    said = erase("erin")
    assert "all their versions: present\n" in said
    assert PolicyVersion.objects.get(policy=present, number=2).data["users"] == {"decide": ["erin"]}
    assert PolicyVersion.objects.get(policy=past, number=2).data["users"] == {
        "decide": [erased.GONE]
    }
    remove_perm("jit_approval.decide", erin, present)
    erase("erin")
    assert "erin" not in all_versions()


def test_versions_of_a_policy_that_was_deleted_name_the_person_no_more(erin) -> None:
    policy = factories.policy()
    assign_perm("jit_approval.decide", erin, policy)
    policy.delete()
    assert "erin" in all_versions()
    erase("erin")
    assert "erin" not in all_versions()


def test_nobody_becomes_a_decider_by_the_placeholder(erin) -> None:
    policy = named_once(erin)
    erase("erin")
    factories.user(erased.GONE)
    data = PolicyVersion.objects.get(policy=policy, number=2).data
    with pytest.raises(ValidationError, match="erased"):
        versions.restore(data)
    assert not policies.deciders(policy.pk).filter(username=erased.GONE).exists()


def test_what_an_erased_person_wrote_of_a_change_goes(erin) -> None:
    with versions.authored(erin, "my tabby died"):
        policy = factories.policy()
    erase("erin")
    version = PolicyVersion.objects.get(policy=policy)
    assert (version.author, version.author_label, version.reason) == (None, "erased", "")


def propose(alice: Any, erin: Any, policy: ApprovalPolicy) -> Any:
    with policy_changes.trial() as trial:
        assign_perm("jit_approval.decide", erin, policy)
    return policy_changes.propose(trial, by=alice)


def test_a_change_that_named_the_person_says_a_placeholder_once_it_is_over(alice, erin) -> None:
    bob = factories.decider("bob")
    rejected = propose(alice, erin, factories.policy())
    services.reject(rejected, by=bob)
    erase("erin")
    change = PolicyChange.objects.get()
    assert "erin" not in json.dumps(change.proposed)
    assert erased.GONE in json.dumps(change.proposed)


def test_a_change_that_waits_is_made_as_it_was_approved(alice, erin) -> None:
    bob, policy = factories.decider("bob"), factories.policy()
    row = propose(alice, erin, policy)
    erase("erin")
    services.approve(row, by=bob)
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert policies.deciders(policy.pk).filter(pk=erin.pk).exists()


# --- whose account is gone --------------------------------------------------------------------------------------


def test_who_only_decided_is_erased_after_the_account_was_removed() -> None:
    bob = factories.decider("bob")
    end(factories.held(factories.user("frank")), bob)
    bob.delete()
    erase("bob")
    assert Decision.objects.get().decider_label == ""
    seal.seal(at_once=True)
    with pytest.raises(erasure.ErasureRefused, match="Nobody"):
        erasure.erase(erasure.Scope(subject="bob"), by=factories.user("root", is_superuser=True))

"""A change of policies is held until another person approves it; then it is made, once."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.db import connections

from jit_approval import policy_changes, services
from jit_approval.admin import diffs
from jit_approval.exceptions import (
    ApprovalDenied,
    ApprovalUnavailable,
    ReasonRequired,
    SelfApprovalForbidden,
)
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    AuditEvent,
    PolicyChange,
    PolicyGroupRequirement,
    PolicyUserPermission,
    PolicyVersion,
)
from jit_approval.policies import durations, versions
from jit_approval.states import Outcome, Status
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> Any:
    """Who changes policies, and would approve them."""
    made = factories.decider("alice")
    made.user_permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    return type(made).objects.get(pk=made.pk)


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def policy() -> ApprovalPolicy:
    return factories.policy(slug="erasure", actions="customers.*", required_approvals=2)


def propose(policy: ApprovalPolicy, by: Any, **fields: Any) -> ApprovalRequest:
    with policy_changes.trial() as trial:
        row = ApprovalPolicy.objects.get(pk=policy.pk)
        for name, value in fields.items():
            setattr(row, name, value)
        row.save()
    return policy_changes.propose(trial, by=by, reason="quieter nights")


def test_proposed_change_takes_no_effect_until_approved(policy, alice, bob) -> None:
    propose(policy, alice, required_approvals=1)
    policy.refresh_from_db()
    assert (policy.required_approvals, policy.version) == (2, 1)


def test_approved_change_is_made_at_once_and_recorded_as_run(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    services.approve(row, by=bob)
    policy.refresh_from_db()
    row.refresh_from_db()
    assert (policy.required_approvals, policy.version) == (1, 2)
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    version = PolicyVersion.objects.get(policy=policy, number=2)
    assert version.author == alice
    assert row.match_code in version.reason
    assert PolicyChange.objects.get().applied_at is not None


def test_rejected_change_is_never_made(policy, alice, bob) -> None:
    services.reject(propose(policy, alice, required_approvals=1), by=bob)
    assert policy_changes.make_all() == 0
    policy.refresh_from_db()
    assert policy.required_approvals == 2


def test_who_proposes_a_change_does_not_approve_it(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    with pytest.raises(SelfApprovalForbidden):
        services.approve(row, by=alice)


def test_a_change_nobody_else_could_approve_is_refused(policy, alice) -> None:
    with pytest.raises(ApprovalUnavailable):
        propose(policy, alice, required_approvals=1)


def test_policy_that_moved_meanwhile_makes_the_approval_void(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    policy.usable_within = timedelta(minutes=1)
    policy.save()
    services.approve(row, by=bob)
    row.refresh_from_db()
    policy.refresh_from_db()
    assert row.status == Status.REVOKED
    assert policy.required_approvals == 2


def test_stored_change_that_was_tampered_with_is_not_made(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    change = PolicyChange.objects.get()
    change.proposed["erasure"]["enabled"] = False
    change.save()
    services.approve(row, by=bob)
    row.refresh_from_db()
    policy.refresh_from_db()
    assert row.status == Status.REVOKED
    assert policy.enabled


def test_proposer_who_lost_the_permission_changes_nothing(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    alice.user_permissions.clear()
    services.approve(row, by=bob)
    policy.refresh_from_db()
    assert policy.required_approvals == 2


def test_approved_change_is_made_once(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    services.approve(row, by=bob)
    assert policy_changes.make(row) is False
    assert PolicyVersion.objects.filter(policy=policy).count() == 2


def test_change_left_by_a_process_that_died_is_made_by_the_sweeper(policy, alice, bob) -> None:
    from jit_approval import signals

    signals.request_approved.disconnect(dispatch_uid="jit_approval.policy_changes")
    try:
        services.approve(propose(policy, alice, required_approvals=1), by=bob)
    finally:
        policy_changes.connect()
    assert policy_changes.make_all() == 1
    policy.refresh_from_db()
    assert policy.required_approvals == 1


def test_wildcard_that_allows_everything_does_not_allow_changes_of_policies(
    policy, alice, bob
) -> None:
    factories.policy(actions="*", effect="allow", priority=1)
    row = propose(policy, alice, required_approvals=1)
    assert row.status == Status.PENDING


def test_policy_may_deny_changes_of_policies(policy, alice, bob) -> None:
    factories.policy(actions="jit_approval.policy.change", effect="deny")
    with pytest.raises(ApprovalDenied):
        propose(policy, alice, required_approvals=1)
    assert AuditEvent.objects.filter(kind="denied").count() == 1


def test_same_proposal_twice_is_one_request(policy, alice, bob) -> None:
    first = propose(policy, alice, required_approvals=1)
    assert propose(policy, alice, required_approvals=1).pk == first.pk


def test_diff_is_what_the_decider_sees(policy, alice, bob) -> None:
    row = propose(policy, alice, required_approvals=1)
    assert "erasure: required_approvals: 2 -> 1" in row.payload


# --- versions ----------------------------------------------------------------------------------------------


def test_every_save_that_changes_something_is_a_numbered_version(policy) -> None:
    policy.save()
    assert policy.version == 1
    policy.priority = 5
    policy.save()
    assert policy.version == 2
    found = PolicyVersion.objects.get(policy=policy, number=2)
    assert [
        each.field
        for each in versions.differences(
            PolicyVersion.objects.get(policy=policy, number=1).data, found.data
        )
    ] == ["priority"]


ADDED_LATER = (
    "severity",
    "execution",
    "require_reason",
    "fallback",
    "rejection_cooldown",
    "channels",
    "group_requirements",
    "users",
    "groups",
)


def forget(policy: ApprovalPolicy, *names: str) -> None:
    """Make the newest version one from before there were these fields."""
    row = PolicyVersion.objects.get(policy=policy, number=policy.version)
    PolicyVersion.objects.filter(pk=row.pk).update(
        data={name: value for name, value in row.data.items() if name not in names}
    )


@pytest.mark.parametrize("name", ADDED_LATER)
def test_field_that_is_newer_than_the_version_said_its_default(policy, name) -> None:
    forget(policy, name)
    assert versions.changed_past([policy]) == set()
    policy.save()
    assert policy.version == 1
    policy.priority = 5
    policy.save()
    event = AuditEvent.objects.filter(kind="policy_changed").latest("pk")
    changes = json.loads(event.body)["data"]["changes"]
    assert [each["field"] for each in changes] == ["priority"]


def test_field_that_is_newer_than_the_version_and_says_something_is_a_change(policy, bob) -> None:
    forget(policy, *ADDED_LATER)
    ApprovalPolicy.objects.filter(pk=policy.pk).update(severity="critical")
    policy.refresh_from_db()
    assert versions.changed_past([policy]) == {policy.pk}
    policy.save()
    assert policy.version == 2
    first, second = (row.data for row in PolicyVersion.objects.order_by("number"))
    assert versions.differences(first, second) == [
        versions.Difference("severity", "normal", "critical")
    ]
    forget(policy, "users")
    PolicyUserPermission.objects.bulk_create(
        [
            PolicyUserPermission(
                user=bob, permission=factories.decide_permission(), content_object=policy
            )
        ]
    )
    assert versions.changed_past([policy]) == {policy.pk}


def test_policy_without_any_version_is_changed_past_them(policy) -> None:
    PolicyVersion.objects.all().delete()
    assert versions.changed_past([policy]) == {policy.pk}


def test_permission_given_or_taken_is_a_version(policy, bob) -> None:
    held = PolicyUserPermission.objects.create(
        user=bob, permission=factories.decide_permission(), content_object=policy
    )
    policy.refresh_from_db()
    assert policy.version == 2
    held.delete()
    policy.refresh_from_db()
    assert policy.version == 3


def test_changes_in_one_block_are_one_version_with_author_and_reason(policy, bob, alice) -> None:
    with versions.authored(alice, "why"):
        policy.priority = 7
        policy.save()
        PolicyGroupRequirement.objects.create(policy=policy, group=Group.objects.create(name="g"))
    found = PolicyVersion.objects.get(policy=policy, number=2)
    assert (found.author, found.reason) == (alice, "why")
    assert found.data["group_requirements"] == {"g": 1}


def test_version_and_change_stand_or_fall_together(policy, alice) -> None:
    with pytest.raises(RuntimeError), versions.authored(alice):
        policy.priority = 7
        policy.save()
        raise RuntimeError
    policy.refresh_from_db()
    assert policy.priority == 100
    assert PolicyVersion.objects.filter(policy=policy).count() == 1


def test_deleting_a_policy_keeps_its_versions_and_writes_an_event(policy, bob) -> None:
    PolicyUserPermission.objects.create(
        user=bob, permission=factories.decide_permission(), content_object=policy
    )
    policy.delete()
    assert PolicyVersion.objects.filter(slug="erasure", policy=None).count() == 2
    assert AuditEvent.objects.filter(kind="policy_deleted").count() == 1


def test_what_a_snapshot_says_is_what_restore_makes(policy, bob) -> None:
    PolicyUserPermission.objects.create(
        user=bob, permission=factories.decide_permission(), content_object=policy
    )
    PolicyGroupRequirement.objects.create(policy=policy, group=Group.objects.create(name="g"))
    said = versions.snapshot(policy)
    policy.delete()
    assert versions.snapshot(versions.restore(said)) == said
    assert versions.snapshots()["erasure"] == said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("users", {"decide": ["nobody-of-that-name"]}),
        ("groups", {"decide": ["no-such-group"]}),
        ("users", {"no_such_permission": []}),
        ("group_requirements", {"no-such-group": 1}),
        ("decide_within", "soon"),
        ("required_approvals", 0),
        ("effect", "perhaps"),
    ],
)
def test_restore_refuses_what_no_policy_may_say(policy, field, value) -> None:
    said = {**versions.snapshot(policy), field: value}
    with pytest.raises(ValidationError):
        versions.restore(said)
    assert PolicyVersion.objects.filter(policy=policy).count() == 1


@pytest.mark.parametrize("text", ["90s", "15m", "1h30m", "7d", "1d1h1m1s1ms", "0s"])
def test_durations_are_read_as_they_are_written(text) -> None:
    assert durations.parse(durations.as_text(durations.parse(text))) == durations.parse(text)


@pytest.mark.parametrize(
    "text", ["", "15", "m", "15 m", "-5m", "1.5h", "15mm", "\u0661m", "999999999d999999999d"]
)
def test_what_is_no_duration_is_refused(text) -> None:
    with pytest.raises(ValueError, match="duration"):
        durations.parse(text)


# --- membership --------------------------------------------------------------------------------------------


def test_group_that_decides_and_changes_is_shown_on_open_requests(bob) -> None:
    group = Group.objects.create(name="security")
    group.permissions.add(factories.decide_permission())
    row = factories.held()
    eve = factories.user("eve")
    eve.groups.add(group)
    group.user_set.remove(eve)
    eve.groups.add(group)
    eve.groups.clear()
    events = AuditEvent.objects.filter(approval_request=row, kind="deciders_changed")
    assert events.count() == 4
    assert '"users":["eve"]' in events[0].body
    assert services.approve(row, by=bob).status == Status.APPROVED


def test_group_that_decides_nothing_is_not_mentioned(bob) -> None:
    row = factories.held()
    factories.user().groups.add(Group.objects.create(name="canteen"))
    assert not AuditEvent.objects.filter(approval_request=row, kind="deciders_changed").exists()


def test_permission_to_decide_everything_that_comes_or_goes_is_shown_on_open_requests(bob) -> None:
    row = factories.held()
    eve, group = factories.user("eve"), Group.objects.create(name="late")
    eve.user_permissions.add(factories.decide_permission())
    eve.user_permissions.clear()
    group.permissions.add(factories.decide_permission())
    group.permissions.add(Permission.objects.get(codename="add_group"))
    events = AuditEvent.objects.filter(approval_request=row, kind="deciders_changed")
    assert ["eve" in event.body for event in events] == [True, True, False]
    assert "group late" in events[2].body


def test_letters_that_look_like_others_are_shown_for_what_they_are(policy, alice, bob) -> None:
    row = propose(policy, alice, actions="\u0441ustomers.*", description="Käse")
    assert r'"\u0441ustomers.*"' in row.payload
    assert "Käse" in row.payload
    change = diffs.between({"actions": ["customers.*"]}, {"actions": ["\u0441ustomers.*"]})[0]
    assert change.after == r"\u0441ustomers.*"


def test_of_two_changes_approved_at_one_moment_one_is_made(policy, alice, bob) -> None:
    carol = factories.decider("carol")
    first = propose(policy, alice, required_approvals=5)
    second = propose(policy, alice, description="other words")
    barrier = threading.Barrier(2, timeout=30)

    def approve(row: ApprovalRequest, by: Any) -> None:
        try:
            barrier.wait()
            services.approve(row, by=by)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(approve, first, bob), pool.submit(approve, second, carol)]:
            done.result()
    made = [
        row
        for row in (factories.fresh(first), factories.fresh(second))
        if row.outcome == "succeeded"
    ]
    assert len(made) == 1
    policy.refresh_from_db()
    assert (policy.required_approvals == 5) is (made[0].pk == first.pk)
    assert (policy.description == "other words") is (made[0].pk == second.pk)


def test_policy_changed_past_its_versions_makes_the_approval_void(policy, alice, bob) -> None:
    row = propose(policy, alice, description="other words")
    ApprovalPolicy.objects.filter(pk=policy.pk).update(required_approvals=7)
    services.approve(row, by=bob)
    policy.refresh_from_db()
    assert (policy.required_approvals, policy.description) == (7, "")
    assert factories.fresh(row).status == Status.REVOKED


def test_policy_that_allows_leaves_the_next_one_to_say_who_decides_a_change(
    policy, alice, bob
) -> None:
    factories.decider("carol")
    factories.policy(actions="*", effect="allow", priority=1)
    strict = factories.policy(actions="jit_approval.policy.change", required_approvals=2)
    row = propose(policy, alice, required_approvals=1)
    assert (row.policy_id, row.required_approvals) == (strict.pk, 2)


def test_failed_condition_loosens_no_term_of_a_change(policy, alice, bob) -> None:
    factories.decider("carol")
    action = "jit_approval.policy.change"
    factories.policy(
        actions=action, priority=1, required_approvals=2, condition="request.data.no == 1"
    )
    factories.policy(actions=action, priority=2, require_reason=True, reason_pattern="CHG")
    with pytest.raises(ReasonRequired):
        propose(policy, alice, required_approvals=1)


@pytest.mark.parametrize(
    "glob", ["transfer.create\u202e", "tr\u0430nsfer.create", "tran\u200bsfer.*"]
)
def test_glob_that_reads_as_another_is_refused(policy, glob) -> None:
    policy.actions = glob
    with pytest.raises(ValidationError):
        policy.full_clean()


def test_glob_in_another_alphabet_is_right(policy) -> None:
    policy.actions = "\u043f\u0435\u0440\u0435\u0432\u043e\u0434.*\nk\u00e4ufer.*"
    policy.full_clean()


def test_a_change_is_never_the_servers_to_run(policy, alice, bob) -> None:
    factories.policy(actions="*", priority=1, execution="server")
    row = propose(policy, alice, required_approvals=1)
    assert row.execution == "caller"
    services.approve(row, by=bob)
    assert factories.fresh(row).outcome == "succeeded"

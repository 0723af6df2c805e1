"""The versions of a policy in the admin: who, when, why, and what changed, in marks as well as colours."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission

from jit_approval.admin import diffs
from jit_approval.models import ApprovalPolicy, AuditEvent, PolicyVersion
from jit_approval.policies import versions
from tests import factories
from tests.test_admin_decide import EVIL, text_of
from tests.test_admin_inbox import client_of, page
from tests.test_admin_policy import POLICIES, form

pytestmark = pytest.mark.django_db


@pytest.fixture
def editor() -> Any:
    made = factories.user("editor", is_staff=True)
    permissions = Permission.objects.filter(content_type__model="approvalpolicy")
    made.user_permissions.add(*permissions.exclude(codename="decide"))
    return made


@pytest.fixture
def policy() -> ApprovalPolicy:
    return factories.policy(slug="customer-data", name="Customer data", actions="customers.*")


def url(policy: ApprovalPolicy) -> str:
    return f"{POLICIES}{policy.pk}/versions/"


def shown(client: Any, policy: ApprovalPolicy, query: str = "") -> str:
    response = client.get(url(policy) + query)
    assert response.status_code == 200
    return text_of(response)


def newest(policy: ApprovalPolicy) -> PolicyVersion:
    return PolicyVersion.objects.filter(policy=policy).order_by("-number")[0]


def test_a_save_is_one_version_with_author_and_reason_inlines_included(editor, policy) -> None:
    bob, group = factories.user("bob"), Group.objects.create(name="security")
    data = form(users=(bob,), groups=(group,), required={group: 2}, why="two pairs\nof eyes")
    response = client_of(editor).post(f"{POLICIES}{policy.pk}/change/", data)
    assert response.status_code == 302, response.context["errors"]
    assert PolicyVersion.objects.filter(policy=policy).count() == 2
    found = newest(policy)
    assert (found.author, found.reason) == (editor, "two pairs of eyes")
    assert found.data["group_requirements"] == {"security": 2}
    assert found.data["users"] == {"decide": ["bob"]}
    assert AuditEvent.objects.filter(kind="policy_changed", actor=editor).count() == 1


@pytest.mark.parametrize("action", ["disable", "archive", "enable"])
def test_actions_are_versions_with_author_and_reason(editor, policy, action) -> None:
    if action == "enable":
        policy.enabled = False
        policy.save()
    data = {"action": action, "_selected_action": [policy.pk]}
    client = client_of(editor)
    assert "Customer data" in text_of(client.post(POLICIES, data))
    client.post(POLICIES, {**data, "confirmed": "yes", "why": "after the audit"})
    policy.refresh_from_db()
    assert policy.enabled is (action == "enable")
    assert policy.archived is (action == "archive")
    assert (newest(policy).author, newest(policy).reason) == (editor, "after the audit")


def test_deletion_is_written_with_author_and_reason(editor, policy) -> None:
    data = {"post": "yes", "why": "never used"}
    client_of(editor).post(f"{POLICIES}{policy.pk}/delete/", data)
    event = AuditEvent.objects.get(kind="policy_deleted")
    assert event.actor == editor
    assert '"reason":"never used"' in event.body


def test_page_shows_who_when_why_and_before_and_after(editor, policy) -> None:
    client = client_of(editor)
    data = form(priority="5", actions="customers.*\ntransfers.create", why="louder")
    client.post(f"{POLICIES}{policy.pk}/change/", data)
    text = shown(client, policy)
    assert "Version 2" in text
    assert "<b>editor</b>" in text
    assert "<q>louder</q>" in text
    assert '<del class="jit-was">100</del>' in text
    assert '<ins class="jit-is">5</ins>' in text
    assert "<ins>transfers.create</ins>" in text
    assert "<del>customers.*</del>" not in text


def test_change_past_the_admin_is_named_as_such(editor, policy) -> None:
    policy.priority = 3
    policy.save()
    assert "past the admin and the command" in shown(client_of(editor), policy)


def test_change_that_is_no_version_at_all_is_shown_on_top(editor, policy) -> None:
    client = client_of(editor)
    assert "does not say what its newest version says" not in shown(client, policy)
    ApprovalPolicy.objects.filter(pk=policy.pk).update(priority=1)
    assert "does not say what its newest version says" in shown(client, policy)
    assert "changed past its versions" in text_of(client.get(POLICIES))


def test_older_versions_are_a_page_away(editor, policy) -> None:
    for number in range(30):
        policy.priority = number
        policy.save()
    client = client_of(editor)
    first = shown(client, policy)
    assert 'id="v31"' in first and 'id="v6"' not in first
    assert 'id="v6"' in shown(client, policy, "?upto=6")
    assert 'id="v7"' not in shown(client, policy, "?upto=6")
    for odd in ("?upto=x", "?upto=-1", "?upto=99999999999999999999", "?upto=²"):
        assert 'id="v31"' in shown(client, policy, odd)


def test_history_leads_to_the_versions_and_the_form_links_there(editor, policy) -> None:
    client = client_of(editor)
    response = client.get(f"{POLICIES}{policy.pk}/history/")
    assert (response.status_code, response["Location"]) == (302, url(policy))
    assert url(policy) in text_of(client.get(f"{POLICIES}{policy.pk}/change/"))


def test_who_may_not_see_policies_sees_no_versions(policy) -> None:
    decider = client_of(factories.decider(is_staff=True))
    assert decider.get(url(policy)).status_code == 403
    assert (
        client_of(factories.user(is_staff=True, is_superuser=True))
        .get(f"{POLICIES}4711/versions/")
        .status_code
        == 404
    )
    assert decider.get(f"{POLICIES}{policy.pk}/history/").status_code == 403


def test_decision_page_links_to_the_version_for_those_who_may_see_it(editor, policy) -> None:
    bob = factories.decider("bob", is_staff=True)
    terms = {"policy_id": policy.pk, "policy_slug": policy.slug, "policy_version": 1}
    row = factories.held(terms=terms)
    link = f"{url(policy)}?upto=1#v1"
    assert link not in text_of(client_of(bob).get(page(row)))
    bob.user_permissions.add(Permission.objects.get(codename="view_approvalpolicy"))
    assert link in text_of(client_of(bob).get(page(row)))


def test_nothing_written_into_a_policy_runs_on_the_page(editor, policy) -> None:
    policy.description = f"{EVIL}\u202e"
    policy.save()
    text = shown(client_of(editor), policy)
    assert EVIL not in text
    assert "\u202e" not in text


# --- differences -------------------------------------------------------------------------------------------


def between(**changes: Any) -> diffs.Change:
    said = versions.snapshot(factories.policy(condition="a\nb\nc", actions="x\ny"))
    (change,) = diffs.between(said, {**said, **changes})
    return change


def test_lines_that_stay_are_shown_between_those_that_do_not() -> None:
    change = between(condition="a\nB\nc")
    assert [(line.mark, line.text) for line in change.lines] == [
        (" ", "a"),
        ("-", "b"),
        ("+", "B"),
        (" ", "c"),
    ]


@pytest.mark.parametrize(
    ("changes", "label", "before", "after"),
    [
        ({"enabled": False}, "Enabled", "yes", "no"),
        ({"severity": "high"}, "Severity", "normal", "high"),
        ({"effect": "deny"}, "Effect", "require approval", "deny"),
        ({"fallback": ["a@example.test"]}, "Fallback", "-", "a@example.test"),
        ({"group_requirements": {"sec": 2}}, "Groups that must be represented", "-", "sec: 2"),
        (
            {"users": {"decide": ["bob"], "change_approvalpolicy": ["eve"]}},
            "Deciders by name",
            "-",
            "bob\neve (change_approvalpolicy)",
        ),
    ],
)
def test_fields_are_labelled_and_worded(changes, label, before, after) -> None:
    change = between(**changes)
    assert (change.label, change.before, change.after) == (label, before, after)


def test_new_policy_is_shown_against_nothing() -> None:
    said = versions.snapshot(factories.policy())
    assert {change.before for change in diffs.between(None, said)} == {"-"}

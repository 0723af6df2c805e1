"""Policies in the admin, and the lists that are for reading only."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from guardian.shortcuts import assign_perm

from jit_approval.models import ApprovalPolicy, PolicyGroupPermission, PolicyUserPermission
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import client_of

pytestmark = pytest.mark.django_db
POLICIES = "/admin/jit_approval/approvalpolicy/"
USERS, GROUPS = "policyuserpermission_set", "policygrouppermission_set"
REQUIRED = "group_requirements"


@pytest.fixture
def editor() -> Any:
    """One who may edit policies and nothing else."""
    made = factories.user("editor", is_staff=True)
    permissions = Permission.objects.filter(content_type__model="approvalpolicy")
    made.user_permissions.add(*permissions.exclude(codename="decide"))
    return made


def form(
    *,
    users: tuple[Any, ...] = (),
    groups: tuple[Any, ...] = (),
    required: Any = None,
    **fields: Any,
) -> Any:
    """What the browser posts for a new policy."""
    required = required or {}
    data = {
        "name": "Customer data",
        "slug": "customer-data",
        "enabled": "on",
        "priority": "100",
        "actions": "customers.*",
        "required_approvals": "1",
        "decide_within": "00:15:00",
        "usable_within": "00:05:00",
        "rejection_cooldown": "00:05:00",
        "max_wait": "01:00:00",
        "effect": "require",
        "severity": "normal",
        "execution": "caller",
    } | fields
    data |= {"steps-TOTAL_FORMS": 0, "steps-INITIAL_FORMS": 0}
    data |= {f"{REQUIRED}-TOTAL_FORMS": len(required), f"{REQUIRED}-INITIAL_FORMS": 0}
    for number, (group, count) in enumerate(required.items()):
        data |= {f"{REQUIRED}-{number}-group": group.pk, f"{REQUIRED}-{number}-count": count}
    for prefix, field, chosen in ((USERS, "user", users), (GROUPS, "group", groups)):
        data |= {f"{prefix}-TOTAL_FORMS": len(chosen), f"{prefix}-INITIAL_FORMS": 0}
        data |= {f"{prefix}-{n}-{field}": one.pk for n, one in enumerate(chosen)}
    return data


def test_adding_grants_the_decide_permission_to_users_and_groups(editor) -> None:
    bob, group = factories.user("bob"), Group.objects.create(name="Approvers")
    client = client_of(editor)
    assert client.get(f"{POLICIES}add/").status_code == 200
    response = client.post(f"{POLICIES}add/", form(users=(bob,), groups=(group,)))
    assert response.status_code == 302, text_of(response)
    policy = ApprovalPolicy.objects.get()
    assert PolicyUserPermission.objects.get(content_object=policy).permission.codename == "decide"
    assert PolicyGroupPermission.objects.get(content_object=policy).group == group
    assert "bob (no admin)" in text_of(client.get(f"{POLICIES}{policy.pk}/change/"))


def test_the_permission_is_not_the_editors_to_choose(editor) -> None:
    other = Permission.objects.get(codename="delete_approvalpolicy")
    data = form(users=(factories.user("bob"),)) | {f"{USERS}-0-permission": other.pk}
    client_of(editor).post(f"{POLICIES}add/", data)
    assert PolicyUserPermission.objects.get().permission.codename == "decide"


def test_other_permissions_of_a_policy_are_left_alone(editor) -> None:
    policy, bob = factories.policy(), factories.user("bob")
    assign_perm("jit_approval.view_approvalpolicy", bob, policy)
    response = client_of(editor).post(f"{POLICIES}{policy.pk}/change/", form(users=(bob,)))
    assert response.status_code == 302, text_of(response)
    held = PolicyUserPermission.objects.values_list("permission__codename", flat=True)
    assert set(held) == {"decide", "view_approvalpolicy"}


def test_the_same_decider_twice_is_refused(editor) -> None:
    bob = factories.user("bob")
    response = client_of(editor).post(f"{POLICIES}add/", form(users=(bob, bob)))
    assert "Named twice." in text_of(response)
    assert not ApprovalPolicy.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"actions": " "},
        {"actions": "a b"},
        {"decide_within": "00:00:00"},
        {"usable_within": "31 00:00:00"},
        {"rejection_cooldown": "-00:00:01"},
        {"max_wait": "-00:00:01"},
        {"max_wait": "01:00:01"},
        {"required_approvals": "0"},
    ],
)
def test_what_makes_no_sense_is_refused(editor, fields) -> None:
    response = client_of(editor).post(f"{POLICIES}add/", form(**fields))
    assert response.status_code == 200
    assert "Please correct the error" in text_of(response)
    assert not ApprovalPolicy.objects.exists()


def test_quorum_out_of_reach_is_told_on_saving_and_on_the_page(editor) -> None:
    bob = factories.user("bob")
    client = client_of(editor)
    data = form(users=(bob,), required_approvals="2")
    response = client.post(f"{POLICIES}add/", data, follow=True)
    assert "Fewer than 2 people may decide" in text_of(response)
    policy = ApprovalPolicy.objects.get()
    assert "Fewer than 2 people may decide" in text_of(client.get(f"{POLICIES}{policy.pk}/change/"))


def test_a_policy_that_nobody_may_decide_says_so(editor) -> None:
    response = client_of(editor).post(f"{POLICIES}add/", form(), follow=True)
    assert "Nobody may decide: calls under this policy" in text_of(response)


def test_policy_with_requests_is_not_deleted(editor) -> None:
    factories.decider()
    used, unused = factories.policy(), factories.policy()
    factories.held(terms={"policy_id": used.pk})
    client = client_of(editor)
    assert client.post(f"{POLICIES}{used.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"{POLICIES}{unused.pk}/delete/", {"post": "yes"})
    fields = {"action": "delete_selected", "_selected_action": [used.pk], "post": "yes"}
    client.post(POLICIES, fields)
    assert list(ApprovalPolicy.objects.all()) == [used]


def test_decider_without_policy_permissions_edits_no_policy() -> None:
    client = client_of(factories.decider(is_staff=True))
    policy = factories.policy()
    assert client.get(POLICIES).status_code == 403
    assert client.post(f"{POLICIES}{policy.pk}/change/", form()).status_code == 403


@pytest.mark.parametrize("model", ["auditevent", "notification", "decision"])
def test_history_is_read_and_never_written(model) -> None:
    from jit_approval import services

    boss = factories.user(is_staff=True, is_superuser=True)
    row = factories.held()
    services.approve(row, by=boss)
    client = client_of(boss)
    url = f"/admin/jit_approval/{model}/"
    shown = client.get(url)
    assert row.match_code in text_of(shown)
    key = apps.get_model("jit_approval", model).objects.order_by("-pk")[0].pk
    assert client.get(f"{url}{key}/change/").status_code == 200
    assert client.post(f"{url}{key}/change/", {}).status_code == 403
    assert client.get(f"{url}add/").status_code == 403
    assert client.post(f"{url}{key}/delete/", {"post": "yes"}).status_code == 403
    assert client_of(factories.decider(is_staff=True)).get(url).status_code == 403


# --- the form ----------------------------------------------------------------------------------------------


def test_every_field_a_policy_has_is_saved(editor) -> None:
    data = form(
        effect="observe",
        condition='request.data.amount > 10000 && !("treasury" in user.groups)',
        severity="critical",
        object_permission="testapp.change_customer",
        reason_pattern=r"CHG-\d+",
        require_approval_id="on",
        fallback="oncall@example.test",
    )
    response = client_of(editor).post(f"{POLICIES}add/", data)
    assert response.status_code == 302, text_of(response)
    said = ApprovalPolicy.objects.values(*(set(data) & {"effect", "condition", "severity"})).get()
    assert said == {name: data[name] for name in said}
    policy = ApprovalPolicy.objects.get()
    assert (policy.object_permission, policy.require_approval_id) == (
        data["object_permission"],
        True,
    )
    assert (policy.reason_pattern, policy.fallback) == (r"CHG-\d+", "oncall@example.test")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"condition": "request.data.amount >"}, "Line 1, column"),
        ({"object_permission": "testapp.no_such"}, "There is no permission"),
        ({"reason_pattern": "("}, "Not a regular expression"),
        ({"fallback": "nobody"}, "is not an e-mail address"),
        ({"why": "x" * 501}, "At most 500 characters"),
        ({"effect": "perhaps"}, "Select a valid choice"),
    ],
)
def test_what_could_not_work_is_refused_beside_its_field(editor, fields, said) -> None:
    response = client_of(editor).post(f"{POLICIES}add/", form(**fields))
    assert said in text_of(response)
    assert not ApprovalPolicy.objects.exists()


def test_slug_stays_once_it_is_saved(editor) -> None:
    policy = factories.policy(slug="first")
    response = client_of(editor).post(f"{POLICIES}{policy.pk}/change/", form(slug="second"))
    assert response.status_code == 302
    policy.refresh_from_db()
    assert (policy.slug, policy.name) == ("first", "Customer data")


def test_groups_that_must_be_represented_are_edited_beside_the_deciders(editor) -> None:
    group = Group.objects.create(name="security")
    client_of(editor).post(f"{POLICIES}add/", form(required={group: 2}))
    policy = ApprovalPolicy.objects.get()
    assert [(each.group, each.count) for each in policy.group_requirements.all()] == [(group, 2)]


def test_archived_policy_is_out_of_sight_and_stays_as_it_was(editor) -> None:
    old = factories.policy(name="Old one", enabled=False, archived=True)
    client = client_of(editor)
    assert "Old one" not in text_of(client.get(POLICIES))
    assert "Old one" in text_of(client.get(f"{POLICIES}?state=archived"))
    url = f"{POLICIES}{old.pk}/change/"
    assert "out of force for good" in text_of(client.get(url))
    assert client.post(url, form(enabled="on")).status_code == 403
    data = {"action": "enable", "_selected_action": [old.pk], "confirmed": "yes"}
    client.post(f"{POLICIES}?state=archived", data)
    old.refresh_from_db()
    assert (old.enabled, old.archived) == (False, True)


def test_policy_with_requests_is_archived_instead(editor) -> None:
    factories.decider()
    policy = factories.policy()
    factories.held(terms={"policy_id": policy.pk})
    client = client_of(editor)
    shown = text_of(client.get(f"{POLICIES}{policy.pk}/change/"))
    assert 'value="archive"' in shown
    assert "deletelink" not in shown
    data = {"action": "archive", "_selected_action": [policy.pk], "confirmed": "yes"}
    client.post(POLICIES, data)
    policy.refresh_from_db()
    assert policy.archived


def test_viewer_looks_and_changes_nothing() -> None:
    viewer = factories.user(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_approvalpolicy"))
    policy = factories.policy()
    client = client_of(viewer)
    url = f"{POLICIES}{policy.pk}/change/"
    assert client.get(url).status_code == 200
    assert client.post(url, form()).status_code == 403
    for action in ("enable", "disable", "archive"):
        data = {"action": action, "_selected_action": [policy.pk], "confirmed": "yes"}
        client.post(POLICIES, data)
    policy.refresh_from_db()
    assert (policy.enabled, policy.version) == (True, 1)


# --- the list ----------------------------------------------------------------------------------------------


def test_list_says_what_each_policy_does(editor) -> None:
    factories.user(is_superuser=True)
    factories.user(is_superuser=True)
    group = Group.objects.create(name="finance")
    policy = factories.policy(condition="request.data.amount > 1", severity="high")
    policy.group_requirements.create(group=group, count=2)
    factories.policy(effect="deny")
    shown = text_of(client_of(editor).get(POLICIES))
    for said in (
        "request.data.amount",
        "high",
        "2 approvals, of them finance 2",
        "require approval",
        "deny",
    ):
        assert said in shown


def test_list_warns_of_deciders_that_do_not_suffice(editor) -> None:
    policy = factories.policy()
    client = client_of(editor)
    assert "too few deciders" in text_of(client.get(POLICIES))
    assign_perm("jit_approval.decide", factories.user(), policy)
    assert "too few deciders" not in text_of(client.get(POLICIES))
    policy.group_requirements.create(group=Group.objects.create(name="nobody in it"))
    assert "too few deciders" in text_of(client.get(POLICIES))


def test_number_of_queries_of_the_list_does_not_grow(editor) -> None:
    groups = [Group.objects.create(name=f"group {number}") for number in range(5)]
    client = client_of(editor)

    def queries(count: int) -> int:
        for _ in range(count):
            policy = factories.policy(condition="action == 'x'")
            user = factories.user()
            user.groups.add(*groups[:2])
            assign_perm("jit_approval.decide", user, policy)
            assign_perm("jit_approval.decide", groups[0], policy)
            policy.group_requirements.create(group=groups[1])
        with CaptureQueriesContext(connection) as found:
            assert client.get(POLICIES).status_code == 200
        return len(found)

    assert queries(2) == queries(20) < 30


@pytest.mark.parametrize(("priority", "status"), [("5", 302), ("many", 200)])
def test_asking_for_a_copy_where_none_is_offered_saves_the_policy_itself(
    editor, priority, status
) -> None:
    policy = factories.policy(name="Customer data", slug="customer-data", priority=7)
    data = form(priority=priority, _saveasnew="1")
    response = client_of(editor).post(f"{POLICIES}{policy.pk}/change/", data)
    assert response.status_code == status, text_of(response)
    found = ApprovalPolicy.objects.values_list("pk", "priority")
    assert list(found) == [(policy.pk, 5 if status == 302 else 7)]


def test_asking_for_a_copy_does_not_change_what_is_archived(editor) -> None:
    policy = factories.policy(archived=True, enabled=False)
    url = f"{POLICIES}{policy.pk}/change/"
    assert client_of(editor).post(url, form(_saveasnew="1")).status_code == 403
    assert ApprovalPolicy.objects.count() == 1


def test_line_ends_of_browsers_are_no_change(editor) -> None:
    fields = {"actions": "a.*\nb.*", "condition": 'action == "a"\n|| action == "b"'}
    policy = factories.policy(slug="customer-data", name="Customer data", **fields)
    posted = form(**{name: text.replace("\n", "\r\n") for name, text in fields.items()})
    client_of(editor).post(f"{POLICIES}{policy.pk}/change/", posted)
    policy.refresh_from_db()
    assert (policy.version, policy.condition) == (1, fields["condition"])

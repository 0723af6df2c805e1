"""With GATE_POLICY_CHANGES on, no way through the admin changes a policy: what was tried waits for approval."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.messages import get_messages
from django.test import override_settings
from guardian.shortcuts import assign_perm

from jit_approval import services
from jit_approval.admin import ApprovalPolicyAdmin
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    PolicyChange,
    PolicyVersion,
)
from jit_approval.policies import versions
from jit_approval.states import Status
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import client_of, page
from tests.test_admin_policy import POLICIES, USERS, form

pytestmark = pytest.mark.django_db(transaction=True)
GATED = {"JIT_APPROVAL": {"GATE_POLICY_CHANGES": True}}
EDIT = ("view_approvalpolicy", "add_approvalpolicy", "change_approvalpolicy")


def editor(*codenames: str, **extra: Any) -> Any:
    made = factories.user("alice", is_staff=True, **extra)
    made.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return made


@pytest.fixture
def alice() -> Any:
    return editor(*EDIT, "delete_approvalpolicy")


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob", is_staff=True)


@pytest.fixture
def policy() -> ApprovalPolicy:
    return factories.policy(
        slug="customer-data", name="Customer data", actions="customers.*", required_approvals=1
    )


@pytest.fixture(autouse=True)
def _gated() -> Any:
    with override_settings(**GATED):
        yield


def change(policy: ApprovalPolicy) -> str:
    return f"{POLICIES}{policy.pk}/change/"


def told(response: Any) -> str:
    return " ".join(str(message) for message in get_messages(response.wsgi_request))


def proposals() -> list[ApprovalRequest]:
    return list(ApprovalRequest.objects.filter(action="jit_approval.policy.change"))


def post(client: Any, url: str, data: Any) -> str:
    """What is said after a POST that leads somewhere and must have changed nothing."""
    before = versions.snapshots()
    response = client.post(url, data)
    assert response.status_code == 302, text_of(response)
    assert versions.snapshots() == before
    return told(response)


def ways(policy: ApprovalPolicy, bob: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every way by which a POST to the admin could change policies."""
    group = Group.objects.create(name="security")
    data = {"_selected_action": [policy.pk], "confirmed": "yes"}
    return {
        "save": (change(policy), form(priority="5")),
        "save and continue": (change(policy), form(priority="5", _continue="1")),
        "save and add another": (change(policy), form(priority="5", _addanother="1")),
        "change in a popup": (change(policy), form(priority="5", _popup="1")),
        "add": (f"{POLICIES}add/", form(slug="another")),
        "add in a popup": (f"{POLICIES}add/", form(slug="another", _popup="1")),
        "a decider": (change(policy), form(users=(bob,))),
        "a group of deciders": (change(policy), form(groups=(group,))),
        "a group to represent": (change(policy), form(required={group: 1})),
        "disable": (POLICIES, {"action": "disable", **data}),
        "archive": (POLICIES, {"action": "archive", **data}),
        "delete": (f"{POLICIES}{policy.pk}/delete/", {"post": "yes"}),
        "delete in a popup": (f"{POLICIES}{policy.pk}/delete/", {"post": "yes", "_popup": "1"}),
    }


WAYS = (
    "save",
    "save and continue",
    "save and add another",
    "change in a popup",
    "add",
    "add in a popup",
    "a decider",
    "a group of deciders",
    "a group to represent",
    "disable",
    "archive",
    "delete",
    "delete in a popup",
)


@pytest.mark.parametrize("way", WAYS)
def test_no_way_changes_a_policy_before_another_person_approves(alice, bob, policy, way) -> None:
    url, data = ways(policy, bob)[way]
    said = post(client_of(alice), url, {**data, "why": "quieter nights"})
    (row,) = proposals()
    assert "Nothing has changed yet" in said
    assert f"[{row.match_code}]" in said
    assert "successfully" not in said
    assert (row.requester, row.reason) == (alice, "quieter nights")
    before = versions.snapshots()
    assert services.approve(row, by=bob).status == Status.APPROVED
    assert versions.snapshots() != before
    assert versions.snapshots() == {
        slug: said
        for slug, said in {**before, **PolicyChange.objects.get().proposed}.items()
        if said is not None
    }


def test_popup_does_not_pretend_that_there_is_a_new_policy(alice, bob, policy) -> None:
    response = client_of(alice).post(f"{POLICIES}add/", form(slug="another", _popup="1"))
    assert response["Location"] == f"{POLICIES}?_popup=1"


def test_the_ways_above_are_all_tried(policy, bob) -> None:
    assert set(WAYS) == set(ways(policy, bob))


def test_enabling_waits_too(alice, bob) -> None:
    off = factories.policy(enabled=False)
    data = {"action": "enable", "_selected_action": [off.pk], "confirmed": "yes"}
    assert "Nothing has changed yet" in post(client_of(alice), POLICIES, data)


def test_message_links_to_the_request_and_its_page_shows_the_difference(alice, bob, policy) -> None:
    said = post(client_of(alice), change(policy), form(required_approvals="2", users=(bob,)))
    (row,) = proposals()
    assert page(row) in said
    shown = text_of(client_of(bob).get(page(row)))
    assert "Required approvals" in shown
    assert "Deciders by name" in shown
    assert "<ins>bob</ins>" in shown


def test_removing_a_decider_waits(alice, bob, policy) -> None:
    held = policy.policyuserpermission_set.create(
        user=bob, permission=factories.decide_permission()
    )
    data = form() | {
        f"{USERS}-TOTAL_FORMS": 1,
        f"{USERS}-INITIAL_FORMS": 1,
        f"{USERS}-0-id": held.pk,
        f"{USERS}-0-content_object": policy.pk,
        f"{USERS}-0-user": bob.pk,
        f"{USERS}-0-DELETE": "on",
    }
    assert "Nothing has changed yet" in post(client_of(alice), change(policy), data)


def test_a_save_that_changes_nothing_says_so_and_proposes_nothing(alice, bob, policy) -> None:
    said = post(client_of(alice), change(policy), form())
    assert "Nothing to approve" in said
    assert not proposals()


def test_a_form_with_errors_is_shown_and_nothing_is_proposed(alice, bob, policy) -> None:
    response = client_of(alice).post(change(policy), form(decide_within="00:00:00"))
    assert "A window lies between" in text_of(response)
    assert not proposals()


def test_same_change_twice_is_one_request(alice, bob, policy) -> None:
    client = client_of(alice)
    first = post(client, change(policy), form(priority="5"))
    assert f"[{proposals()[0].match_code}]" in first
    assert "Nothing has changed yet" in post(client, change(policy), form(priority="5"))
    assert len(proposals()) == 1


# --- refusals ----------------------------------------------------------------------------------------------


def refused(client: Any, policy: ApprovalPolicy, **fields: Any) -> str:
    """What the form says of a change that was not even proposed; what was filled in is still there."""
    before, held = versions.snapshots(), len(proposals())
    response = client.post(change(policy), form(priority="77", **fields))
    assert response.status_code == 200
    assert versions.snapshots() == before
    assert len(proposals()) == held
    said = text_of(response)
    assert 'value="77"' in said
    return said


def test_change_nobody_else_could_approve_is_refused_on_the_form(alice, policy) -> None:
    said = refused(client_of(alice), policy)
    assert "Nobody but you could approve it now. Nothing has changed" in said


def test_superuser_does_not_approve_alone(bob, policy) -> None:
    boss = editor(is_superuser=True)
    post(client_of(boss), change(policy), form(priority="5"))
    assert proposals()[0].requester == boss


def test_too_many_open_proposals_are_refused(alice, bob, policy) -> None:
    with override_settings(JIT_APPROVAL={"GATE_POLICY_CHANGES": True, "MAX_OPEN_PER_REQUESTER": 1}):
        client = client_of(alice)
        post(client, change(policy), form(priority="5"))
        assert "Too many requests are open" in refused(client, policy)


def test_a_rejected_change_is_not_proposed_again_at_once(alice, bob, policy) -> None:
    client = client_of(alice)
    post(client, change(policy), form(priority="5"))
    services.reject(proposals()[0], by=bob)
    assert "rejected moments ago" in refused(client, policy)


def test_reason_that_a_policy_wants_is_asked_for_beside_its_field(alice, bob, policy) -> None:
    factories.policy(actions="jit_approval.policy.change", require_reason=True)
    response = client_of(alice).post(change(policy), form(priority="5"))
    assert list(response.context["adminform"].form.errors) == ["why"]
    post(client_of(alice), change(policy), form(priority="5", why="Change CHG-1"))
    assert len(proposals()) == 1


def test_denied_changes_are_refused(alice, bob, policy) -> None:
    factories.policy(actions="jit_approval.policy.change", effect="deny", slug="never")
    assert "never denies changes of policies" in refused(client_of(alice), policy)


def test_who_may_add_but_not_change_is_told_before_it_is_approved_in_vain(bob, policy) -> None:
    client = client_of(editor("add_approvalpolicy", "view_approvalpolicy"))
    response = client.post(f"{POLICIES}add/", form(slug="another"))
    assert "it takes the permission to change policies" in text_of(response)
    assert not proposals()


@pytest.mark.parametrize("way", ["disable", "archive", "delete"])
def test_refusal_without_a_form_is_a_message(alice, policy, way) -> None:
    url, data = ways(policy, alice)[way]
    assert "Nobody but you could approve it now" in post(client_of(alice), url, data)
    assert not proposals()


def test_who_may_not_edit_proposes_nothing(bob, policy) -> None:
    client = client_of(bob)
    for url, data in ways(policy, bob).values():
        response = client.post(url, data)
        assert response.status_code in (302, 403)
        assert response.headers.get("Location", "/admin/login").startswith("/admin/login")
    assert not proposals()


# --- around the gate ---------------------------------------------------------------------------------------


class LooseAdmin(ApprovalPolicyAdmin):
    """A project's subclass with every shortcut the framework has."""

    save_as = True
    list_display = ("name", "priority")
    list_editable = ("priority",)


@pytest.fixture
def loose() -> Any:
    """The same pages, as that project would have registered them."""
    site = admin.site
    before = site._registry[ApprovalPolicy]
    site.unregister(ApprovalPolicy)
    site.register(ApprovalPolicy, LooseAdmin)
    site.add_action(halve, "halve")
    _reload()
    yield
    site.disable_action("halve")
    site._registry[ApprovalPolicy] = before
    _reload()


def halve(modeladmin: Any, request: Any, queryset: Any) -> None:
    """A project-wide action that knows nothing of approvals."""
    for row in queryset:
        row.usable_within = row.usable_within / 2
        row.save()


def _reload() -> None:
    import importlib
    import sys

    from django.urls import clear_url_caches

    importlib.reload(sys.modules["tests.urls"])
    clear_url_caches()


def test_saving_as_new_waits(loose, alice, bob, policy) -> None:
    data = form(slug="copy", _saveasnew="1")
    assert "Nothing has changed yet" in post(client_of(alice), change(policy), data)


def test_saving_as_new_what_makes_no_sense_shows_the_form_again(loose, alice, bob, policy) -> None:
    response = client_of(alice).post(change(policy), form(priority="many", _saveasnew="1"))
    assert response.status_code == 200
    assert not proposals()


def test_saving_as_new_where_it_is_not_offered_waits_as_a_change(alice, bob, policy) -> None:
    data = form(name="Other", slug=policy.slug, _saveasnew="1")
    assert "Nothing has changed yet" in post(client_of(alice), change(policy), data)
    (held,) = proposals()
    assert held.policy_change.proposed.keys() == {policy.slug}
    # Nobody is left to approve it: the form is shown again.
    bob.delete()
    data |= {"name": "Another"}
    response = client_of(alice).post(change(policy), data)
    assert response.status_code == 200
    assert "Nobody but you" in text_of(response)


def test_editing_in_the_list_waits(loose, alice, bob, policy) -> None:
    data = {
        "form-TOTAL_FORMS": "1",
        "form-INITIAL_FORMS": "1",
        "form-0-id": policy.pk,
        "form-0-priority": "3",
        "_save": "Save",
    }
    assert "Nothing has changed yet" in post(client_of(alice), POLICIES, data)


def test_a_projects_own_action_waits(loose, alice, bob, policy) -> None:
    data = {"action": "halve", "_selected_action": [policy.pk], "index": "0"}
    assert "Nothing has changed yet" in post(client_of(alice), POLICIES, data)
    services.approve(proposals()[0], by=bob)
    policy.refresh_from_db()
    assert policy.usable_within == timedelta(seconds=150)


def test_deleting_several_is_not_offered(alice, bob, policy) -> None:
    data = {"action": "delete_selected", "_selected_action": [policy.pk], "post": "yes"}
    client_of(alice).post(POLICIES, data)
    assert ApprovalPolicy.objects.filter(pk=policy.pk).exists()


def test_nothing_is_left_of_what_was_tried(alice, bob, policy) -> None:
    from django.contrib.admin.models import LogEntry

    post(client_of(alice), change(policy), form(priority="5"))
    assert not LogEntry.objects.exists()
    assert PolicyVersion.objects.count() == 1


def test_approved_change_carries_its_author_and_reason(alice, bob, policy) -> None:
    post(client_of(alice), change(policy), form(priority="5", why="Louder\nnights"))
    services.approve(proposals()[0], by=bob)
    newest = PolicyVersion.objects.get(policy=policy, number=2)
    assert newest.author == alice
    assert newest.reason.startswith("Louder nights [")


def test_under_atomic_requests_a_change_is_still_proposed(alice, bob, policy, settings) -> None:
    from django.db import connections

    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    try:
        assert "Nothing has changed yet" in post(
            client_of(alice), change(policy), form(priority="5")
        )
    finally:
        connections.settings["default"]["ATOMIC_REQUESTS"] = False


def test_deleting_an_account_only_takes_a_decider_away_and_is_recorded(bob, policy) -> None:
    """The project's own admin of users: no approval is asked, for it raises the bar; but it is seen."""
    assign_perm("jit_approval.decide", bob, policy)
    boss = factories.user("boss", is_staff=True, is_superuser=True)
    url = f"/admin/auth/user/{bob.pk}/delete/"
    assert client_of(boss).post(url, {"post": "yes"}).status_code == 302
    newest = PolicyVersion.objects.filter(policy=policy).order_by("-number")[0]
    assert newest.data["users"] == {}
    assert newest.author_label == ""


def test_group_that_must_be_represented_is_not_deleted(policy) -> None:
    group = Group.objects.create(name="security")
    policy.group_requirements.create(group=group)
    boss = factories.user("boss", is_staff=True, is_superuser=True)
    client_of(boss).post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"})
    assert policy.group_requirements.count() == 1

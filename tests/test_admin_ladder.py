"""The ladder in the admin: steps as part of a policy, and who was told of a request when, and who is next."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import override_settings

from jit_approval import policies, tasks
from jit_approval.models import ApprovalPolicy, Channel, EscalationStep, Notification, PolicyChange
from jit_approval.policies import versions
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import client_of
from tests.test_admin_policy import POLICIES, form
from tests.test_escalating import climb, group, held, pass_time, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def editor() -> Any:
    """One who may edit policies and nothing else."""
    made = factories.user("editor", is_staff=True)
    permissions = Permission.objects.filter(content_type__model="approvalpolicy")
    made.user_permissions.add(*permissions.exclude(codename="decide"))
    return made


def steps(*rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    """What the browser posts for the steps of a policy."""
    data: dict[str, Any] = {"steps-TOTAL_FORMS": len(rows), "steps-INITIAL_FORMS": initial}
    for number, row in enumerate(rows):
        data |= {f"steps-{number}-{name}": value for name, value in row.items()}
    return data


def add(editor: Any, *rows: dict[str, Any], **fields: Any) -> Any:
    return client_of(editor).post(f"{POLICIES}add/", form(**fields) | steps(*rows))


# --- the policy's page -------------------------------------------------------------------------------------


def test_steps_are_saved_with_their_policy_as_one_version(editor) -> None:
    ann, managers = factories.user("ann"), group("managers")
    pager = Channel.objects.create(slug="pager", name="Pager", kind="dummy", enabled=True)
    response = add(
        editor,
        {"share": "50", "deciders": "on"},
        {
            "after": "00:10:00",
            "users": [ann.pk],
            "groups": [managers.pk],
            "addresses": "duty@example.test\r\nboss@example.test\r\n",
            "channels": [pager.pk],
            "may_decide": "on",
        },
    )
    assert response.status_code == 302, text_of(response)
    policy = ApprovalPolicy.objects.get()
    said = versions.snapshot(policy)["steps"]
    assert [each["after"] for each in said] == ["50%", "10m"]
    assert said[1] == {
        "after": "10m",
        "deciders": False,
        "users": ["ann"],
        "groups": ["managers"],
        "addresses": ["duty@example.test", "boss@example.test"],
        "channels": ["pager"],
        "may_decide": True,
    }
    assert policy.version == 1 and policy.versions.get().data["steps"] == said


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"share": "50"}, "tells somebody"),
        ({"share": "50", "deciders": "on", "may_decide": "on"}, "Name the users or groups"),
        ({"deciders": "on"}, "Say when"),
        ({"share": "50", "after": "00:01:00", "deciders": "on"}, "Say when"),
        ({"share": "100", "deciders": "on"}, "less than or equal to 99"),
        ({"share": "0", "deciders": "on"}, "greater than or equal to 1"),
        ({"after": "00:15:00", "deciders": "on"}, "is never taken"),
        ({"after": "00:00:00", "deciders": "on"}, "1 second to 30 days"),
        ({"share": "50", "addresses": "no address"}, "address"),
    ],
)
def test_step_that_makes_no_sense_is_refused_in_words(editor, row, fault) -> None:
    response = add(editor, row)
    assert response.status_code == 200
    assert fault in text_of(response)
    assert not EscalationStep.objects.exists()


def test_window_that_becomes_shorter_than_a_step_is_refused(editor) -> None:
    policy = factories.policy(slug="customer-data", decide_within=timedelta(minutes=15))
    row = step(policy, timedelta(minutes=10), deciders=True)
    posted = {"id": row.pk, "policy": policy.pk, "after": "00:10:00", "deciders": "on"}
    response = client_of(editor).post(
        f"{POLICIES}{policy.pk}/change/",
        form(decide_within="00:05:00") | steps(posted, initial=1),
    )
    assert "is never taken" in text_of(response)


@pytest.mark.parametrize("field", ["groups", "users", "channels"])
def test_whom_a_step_names_is_part_of_what_changed(field) -> None:
    policy = factories.policy()
    row = step(policy, 50, deciders=True)
    before = versions.snapshot(policy)
    number = ApprovalPolicy.objects.get(pk=policy.pk).version
    made = {
        "groups": lambda: group("managers"),
        "users": lambda: factories.user("ann"),
        "channels": lambda: Channel.objects.create(slug="pager", name="Pager", kind="dummy"),
    }[field]()
    getattr(row, field).add(made)
    after = versions.snapshot(policy)
    assert [each.field for each in versions.differences(before, after)] == ["steps"]
    assert ApprovalPolicy.objects.get(pk=policy.pk).version == number + 1


def test_steps_are_put_back_as_a_snapshot_says(editor) -> None:
    policy = factories.policy()
    step(policy, 50, deciders=True)
    step(policy, 80, groups=[group("managers")], may_decide=True)
    said = versions.snapshot(policy)
    policy.steps.all().delete()
    assert versions.snapshot(policy)["steps"] == []
    versions.restore(said)
    assert versions.snapshot(policy) == said


def test_change_of_steps_waits_where_changes_are_gated(editor) -> None:
    factories.decider("bob")
    policy = factories.policy(slug="customer-data", actions="customers.*")
    with override_settings(JIT_APPROVAL={"GATE_POLICY_CHANGES": True}):
        response = client_of(editor).post(
            f"{POLICIES}{policy.pk}/change/",
            form() | steps({"share": "50", "users": [editor.pk], "may_decide": "on"}),
        )
    assert response.status_code == 302, text_of(response)
    assert not EscalationStep.objects.exists()
    change = PolicyChange.objects.get()
    assert change.proposed["customer-data"]["steps"][0]["users"] == ["editor"]
    assert '"may_decide": true' in change.approval_request.payload


@override_settings(JIT_APPROVAL={"MANY_TOLD": 2})
def test_policy_that_would_tell_many_at_once_is_warned_of_when_it_is_saved(editor) -> None:
    many = group("everybody", *(factories.user() for _ in range(3)))
    rows = ({"share": "50", "groups": [many.pk]},)
    client = client_of(editor)
    data = form(users=(factories.user("bob"),)) | steps(*rows)
    shown = text_of(client.post(f"{POLICIES}add/", data, follow=True))
    assert "Step 1 tells 3 people at once" in shown
    assert "A held call tells" not in shown
    data = form(groups=(many,), slug="other") | steps()
    shown = text_of(client.post(f"{POLICIES}add/", data, follow=True))
    assert "A held call tells 3 people at once. More than 2 are rarely needed." in shown


def test_versions_page_shows_steps_as_people_read_them(editor) -> None:
    policy = factories.policy()
    step(policy, 50, groups=[group("managers")], may_decide=True)
    shown = text_of(client_of(editor).get(f"{POLICIES}{policy.pk}/versions/"))
    assert "Steps on silence" in shown
    assert "50%: groups [&quot;managers&quot;], may decide" in shown


# --- the decision page -------------------------------------------------------------------------------------


def page_of(row: Any, user: Any) -> str:
    response = client_of(user).get(f"/admin/jit_approval/approvalrequest/{row.pk}/decide/")
    assert response.status_code == 200
    return " ".join(text_of(response).split())


def deliver_all(row: Any) -> None:
    for pk in list(row.notifications.filter(recipient="").values_list("pk", flat=True)):
        tasks.deliver(pk)


def test_page_shows_who_was_told_and_who_is_next() -> None:
    bob = factories.decider("bob", is_staff=True)
    policy = factories.policy(decide_within=timedelta(minutes=10))
    step(policy, 50, deciders=True)
    step(policy, 70, groups=[group("managers", factories.user("max"))], may_decide=True)
    row = held(policy)
    assert "1 message on its way" in page_of(row, bob)
    deliver_all(row)
    shown = page_of(row, bob)
    assert "<b>Held</b> bob" in shown
    assert "deciders again, those who have not decided" in shown
    assert "group managers; may decide from then on" in shown
    pass_time(row, 72)
    climb()
    deliver_all(row)
    shown = page_of(row, bob)
    assert "<b>Reminder (step 1)</b> bob" in shown
    assert "<b>Escalated (step 2)</b> max" in shown
    assert "step 2: managers; may decide from then on" in shown
    assert "the end is near" in shown and "Next, in" in shown


def test_requester_is_not_shown_who_is_asked() -> None:
    factories.decider("bob")
    erin = factories.user("erin", is_staff=True)
    row = held(None, erin)
    deliver_all(row)
    pass_time(row, 60)
    climb()
    shown = page_of(row, erin)
    assert "<b>Escalated</b>" in shown and "deciders again" not in shown
    assert "Who was told" not in shown and "bob" not in shown


def test_page_of_a_decided_call_has_nothing_ahead() -> None:
    bob = factories.decider("bob", is_staff=True)
    row = held()
    from jit_approval import services

    services.reject(row, by=bob)
    assert "Next, in" not in page_of(row, bob)


def test_page_says_what_could_not_be_delivered() -> None:
    bob = factories.decider("bob", is_staff=True)
    row = held()
    deliver_all(row)
    row.notifications.exclude(recipient="").update(state=Notification.State.FAILED)
    assert "1 could not be delivered" in page_of(row, bob)


def test_page_says_when_nobody_is_left(django_capture_on_commit_callbacks) -> None:
    boss = factories.user("boss", is_staff=True)
    boss.user_permissions.add(Permission.objects.get(codename="view_approvalrequest"))
    bob = factories.decider("bob")
    row = held()
    bob.is_active = False
    with django_capture_on_commit_callbacks(execute=True):
        bob.save()
    climb()
    assert "Too few are left who may decide this" in page_of(row, boss)


def test_escalated_decider_finds_the_request_in_the_inbox() -> None:
    factories.decider("bob")
    max_ = factories.user("max", is_staff=True)
    policy = factories.policy(decide_within=timedelta(minutes=10))
    step(policy, 50, groups=[group("managers", max_)], may_decide=True)
    row = held(policy)
    client = client_of(max_)
    assert client.get("/admin/jit_approval/approvalrequest/").status_code == 403
    pass_time(row, 60)
    climb()
    shown = text_of(client.get("/admin/jit_approval/approvalrequest/"))
    assert row.match_code in shown and "approve_selected" in shown
    assert policies.may_decide(max_, row)


def test_who_joins_an_escalated_group_is_shown_on_the_request(
    django_capture_on_commit_callbacks,
) -> None:
    bob = factories.decider("bob", is_staff=True)
    managers = group("managers")
    policy = factories.policy(decide_within=timedelta(minutes=10))
    step(policy, 50, groups=[managers], may_decide=True)
    row = held(policy)
    pass_time(row, 60)
    climb()
    with django_capture_on_commit_callbacks(execute=True):
        managers.user_set.add(factories.user("newcomer"))
    assert "newcomer joined managers" in page_of(row, bob)

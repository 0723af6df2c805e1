"""Delegations in the admin: of one's own authority, within bounds, never edited, always written down."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied, ValidationError
from django.test import override_settings
from django.utils import timezone

from jit_approval import delegating, services
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import AuditEvent, Delegation
from jit_approval.states import Status
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import client_of, page

pytestmark = pytest.mark.django_db
URL = "/admin/jit_approval/delegation/"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def alice() -> Any:
    return factories.decider("alice", is_staff=True)


@pytest.fixture
def bob() -> Any:
    return factories.user("bob", is_staff=True)


@pytest.fixture
def chief() -> Any:
    """One who may enter delegations for others, and is no decider."""
    made = factories.user("chief", is_staff=True)
    made.user_permissions.add(Permission.objects.get(codename="change_delegation"))
    return type(made).objects.get(pk=made.pk)


def form(stand_in: str = "bob", start: Any = None, end: Any = DAY, **fields: Any) -> dict[str, Any]:
    """What the browser posts; `start` and `end` lie so far ahead of now."""
    data = {"stand_in": stand_in, "policy": "", "reason": "on leave"}
    for name, ahead in (("starts_at", start), ("ends_at", end)):
        moment = timezone.now() + ahead if ahead is not None else None
        data[f"{name}_0"] = moment.strftime("%Y-%m-%d") if moment else ""
        data[f"{name}_1"] = moment.strftime("%H:%M:%S") if moment else ""
    return data | fields


def entered(by: Any, **kwargs: Any) -> Delegation:
    response = client_of(by).post(f"{URL}add/", form(**kwargs))
    assert response.status_code == 302, response.context["adminform"].form.errors
    return Delegation.objects.latest("pk")


def refused(by: Any, **kwargs: Any) -> str:
    count = Delegation.objects.count()
    response = client_of(by).post(f"{URL}add/", form(**kwargs))
    assert response.status_code == 200
    assert Delegation.objects.count() == count
    return text_of(response)


def events(kind: str) -> list[Any]:
    rows = AuditEvent.objects.filter(kind=kind, approval_request=None)
    return [json.loads(row.body)["data"] for row in rows]


def test_decider_lends_their_own_authority_and_it_is_written_down(alice, bob) -> None:
    made = entered(alice)
    assert (made.delegator, made.stand_in, made.created_by) == (alice, bob, alice)
    (event,) = events("delegated")
    assert (event["delegator"], event["stand_in"], event["reason"]) == ("alice", "bob", "on leave")
    row = factories.held()
    assert services.approve(row, by=bob).status == Status.APPROVED


def test_without_a_start_it_starts_now_and_never_before_it_was_entered(alice, bob) -> None:
    assert entered(alice).starts_at >= timezone.now() - timedelta(minutes=1)
    backdated = entered(alice, stand_in=factories.user("carol").username, start=-DAY)
    assert backdated.starts_at >= timezone.now() - timedelta(minutes=1)


def test_decider_lends_nobody_elses_authority(alice, bob) -> None:
    factories.decider("victim")
    made = entered(alice, delegator="victim")
    assert made.delegator == alice
    draft = Delegation(delegator=factories.decider(), stand_in=bob, ends_at=timezone.now() + HOUR)
    with pytest.raises(PermissionDenied):
        delegating.enter(draft, by=alice)


def test_holder_of_the_permission_enters_for_others_and_is_recorded(chief, alice, bob) -> None:
    made = entered(chief, delegator="alice")
    assert (made.delegator, made.created_by) == (alice, chief)


def test_holder_of_the_permission_does_not_name_themselves(chief, alice) -> None:
    assert "does not name themselves" in refused(chief, delegator="alice", stand_in="chief")


def test_who_decides_nothing_enters_nothing(alice, bob) -> None:
    assert client_of(bob).get(f"{URL}add/").status_code == 403
    assert client_of(bob).post(f"{URL}add/", form("alice")).status_code == 403


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"stand_in": "alice"}, "Nobody stands in for themselves"),
        ({"stand_in": "nobody-of-that-name"}, "no active user of this name"),
        ({"stand_in": "gone"}, "no active user of this name"),
        ({"end": timedelta(days=91)}, "At most 90 days"),
        ({"start": 2 * DAY, "end": DAY}, "It ends after it starts"),
        ({"end": -HOUR}, "That is past"),
        ({"end": None}, "This field is required"),
        ({"policy": "4711"}, "Select a valid choice"),
    ],
)
def test_what_the_rules_exclude_is_refused_in_words(alice, bob, kwargs, said) -> None:
    factories.user("gone", is_active=False)
    assert said in refused(alice, **kwargs)


def test_exactly_ninety_days_are_allowed(alice, bob) -> None:
    entered(alice, start=DAY, end=timedelta(days=91))


def test_circle_in_an_overlapping_period_is_refused(alice, bob) -> None:
    bob.user_permissions.add(factories.decide_permission())
    bob = type(bob).objects.get(pk=bob.pk)
    entered(alice, start=DAY, end=3 * DAY)
    assert "represented, in the end, by the delegator" in refused(
        bob, stand_in="alice", start=2 * DAY, end=4 * DAY
    )
    entered(bob, stand_in="alice", start=4 * DAY, end=5 * DAY)


def test_another_account_of_the_same_person_is_refused(alice) -> None:
    alice.email = "a@example.test"
    alice.save()
    second = factories.user("alice2")
    second.email = alice.email
    second.save()
    with override_settings(JIT_APPROVAL={"PERSON_KEY": "email"}):
        assert "Nobody stands in for themselves" in refused(alice, stand_in="alice2")


def test_archived_policy_is_not_offered(alice, bob) -> None:
    old = factories.policy(enabled=False, archived=True)
    assert "Select a valid choice" in refused(alice, policy=old.pk)


def test_ended_early_it_lends_nothing_more_and_that_is_written_down(alice, bob) -> None:
    made = entered(alice)
    response = client_of(alice).post(f"{URL}{made.pk}/end/")
    assert response.status_code == 302
    made.refresh_from_db()
    assert made.revoked_at is not None
    assert [event["delegation"] for event in events("delegation_ended")] == [made.pk]
    row = factories.held()
    assert client_of(bob).post(page(row), {"verdict": "approve"}).status_code == 404


def test_only_the_delegator_or_the_permission_ends_it(alice, bob, chief) -> None:
    made = entered(alice)
    assert client_of(bob).post(f"{URL}{made.pk}/end/").status_code == 403
    assert (
        client_of(factories.decider(is_staff=True)).post(f"{URL}{made.pk}/end/").status_code == 404
    )
    made.refresh_from_db()
    assert made.revoked_at is None
    client_of(chief).post(f"{URL}{made.pk}/end/")
    made.refresh_from_db()
    assert made.revoked_at is not None


def test_looking_at_the_address_ends_nothing(alice, bob) -> None:
    made = entered(alice)
    client_of(alice).get(f"{URL}{made.pk}/end/")
    made.refresh_from_db()
    assert made.revoked_at is None


def test_ending_twice_is_told_and_written_once(alice, bob) -> None:
    made = entered(alice)
    client = client_of(alice)
    client.post(f"{URL}{made.pk}/end/")
    first = Delegation.objects.get(pk=made.pk).revoked_at
    assert "over already" in text_of(client.post(f"{URL}{made.pk}/end/", follow=True))
    assert Delegation.objects.get(pk=made.pk).revoked_at == first
    assert len(events("delegation_ended")) == 1
    with pytest.raises(IllegalTransition):
        delegating.end(made, by=alice)


def test_nothing_is_edited_or_deleted_by_superusers_either(alice, bob) -> None:
    made = entered(alice)
    client = client_of(factories.user(is_staff=True, is_superuser=True))
    shown = text_of(client.get(f"{URL}{made.pk}/change/"))
    assert "End it now" in shown
    assert 'name="stand_in"' not in shown
    assert client.post(f"{URL}{made.pk}/change/", form("chief")).status_code == 403
    assert client.post(f"{URL}{made.pk}/delete/", {"post": "yes"}).status_code == 403


def test_one_sees_ones_own_and_the_permission_sees_all(alice, bob, chief) -> None:
    made = entered(alice)
    other = factories.decider("other", is_staff=True)

    def listed(user: Any) -> list[Any]:
        response = client_of(user).get(URL)
        assert response.status_code == 200
        return [row.pk for row in response.context["cl"].result_list]

    assert listed(alice) == listed(bob) == listed(chief) == [made.pk]
    assert listed(other) == []
    assert client_of(other).get(f"{URL}{made.pk}/change/").status_code == 302


def test_event_and_delegation_stand_or_fall_together(alice, bob, monkeypatch) -> None:
    from jit_approval import prepared

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    draft = Delegation(delegator=alice, stand_in=bob, ends_at=timezone.now() + HOUR)
    monkeypatch.setattr(prepared, "insert", broken)
    with pytest.raises(RuntimeError):
        delegating.enter(draft, by=alice)
    assert not Delegation.objects.exists()


def test_trail_lists_events_outside_of_any_request(alice, bob) -> None:
    entered(alice)
    client = client_of(factories.user(is_staff=True, is_superuser=True))
    shown = text_of(client.get("/admin/jit_approval/auditevent/"))
    assert "delegator: alice, stand_in: bob" in shown


# --- on the decision page ----------------------------------------------------------------------------------


def test_stand_in_is_told_for_whom_they_decide_and_so_is_everybody_after(alice, bob) -> None:
    factories.decider("carol")
    entered(alice)
    row = factories.held(terms={"required_approvals": 2})
    client = client_of(bob)
    assert "You decide for <b>alice</b>" in text_of(client.get(page(row)))
    client.post(page(row), {"verdict": "approve", "comment": ""})
    shown = text_of(client_of(alice).get(page(row)))
    assert "<b>bob</b> for <b>alice</b>" in shown


def test_requesters_stand_in_does_not_decide_and_is_told_why(alice, bob) -> None:
    bob.user_permissions.add(factories.decide_permission())
    bob.user_permissions.add(Permission.objects.get(codename="view_approvalrequest"))
    factories.decider()
    entered(alice)
    row = factories.held(alice)
    assert "You stand in for who made this call" in text_of(client_of(bob).get(page(row)))
    response = client_of(bob).post(page(row), {"verdict": "approve"})
    assert response.status_code == 403
    assert "You stand in for who made this call" in text_of(response)
    assert factories.fresh(row).status == Status.PENDING


def test_cards_of_several_say_for_whom(alice, bob) -> None:
    entered(alice)
    row = factories.held()
    data = {"action": "approve_selected", "_selected_action": [row.pk]}
    shown = client_of(bob).post("/admin/jit_approval/approvalrequest/", data)
    assert "You decide for <b>alice</b>" in text_of(shown)


# --- the service, whoever calls it -------------------------------------------------------------------------


def test_service_backdates_nothing(alice, bob) -> None:
    now = timezone.now()
    draft = Delegation(delegator=alice, stand_in=bob, starts_at=now - DAY, ends_at=now + DAY)
    assert delegating.enter(draft, by=alice).starts_at >= now - timedelta(seconds=1)


@pytest.mark.parametrize("end", ["delegator", "stand_in"])
def test_service_refuses_accounts_that_are_deactivated(alice, bob, end) -> None:
    draft = Delegation(delegator=alice, stand_in=bob, ends_at=timezone.now() + DAY)
    account = getattr(draft, end)
    account.is_active = False
    account.save()
    with pytest.raises(ValidationError, match="deactivated"):
        delegating.enter(draft, by=alice)
    assert not Delegation.objects.exists()

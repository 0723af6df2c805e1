"""The inbox: who sees which held calls, and that nothing is changed there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse
from guardian.shortcuts import assign_perm

from jit_approval import services
from jit_approval.models import ApprovalRequest
from tests import factories

pytestmark = pytest.mark.django_db

INBOX = "/admin/jit_approval/approvalrequest/"


def client_of(user: Any) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def page(row: ApprovalRequest) -> str:
    return reverse("admin:jit_approval_approvalrequest_decide", args=[row.pk])


def listed(client: Client, query: str = "") -> set[Any]:
    response = client.get(INBOX + query)
    assert response.status_code == 200
    return {row.pk for row in response.context["cl"].result_list}


def test_the_decision_page_has_the_promised_address() -> None:
    key = uuid4()
    url = reverse("admin:jit_approval_approvalrequest_decide", args=[key])
    assert url == f"/admin/jit_approval/approvalrequest/{key}/decide/"


def test_superuser_sees_all() -> None:
    boss = factories.user(is_superuser=True, is_staff=True)
    row = factories.held()
    assert listed(client_of(boss)) == {row.pk}


def test_holder_of_the_view_permission_sees_all_and_decides_nothing() -> None:
    factories.decider()
    row = factories.held()
    auditor = factories.user(is_staff=True)
    auditor.user_permissions.add(Permission.objects.get(codename="view_approvalrequest"))
    client = client_of(auditor)
    assert listed(client) == {row.pk}
    assert b'name="verdict"' not in client.get(page(row)).content
    assert b"approve_selected" not in client.get(INBOX).content


def test_holder_of_the_model_wide_permission_sees_all_but_decides_not_their_own() -> None:
    bob = factories.decider(is_staff=True)
    factories.decider()
    rows = {factories.held().pk, factories.held(bob).pk}
    assert listed(client_of(bob)) == rows


@pytest.mark.parametrize("by_group", [False, True])
def test_object_permission_on_one_policy_shows_exactly_its_requests(by_group) -> None:
    mine, other = factories.policy(), factories.policy()
    bob = factories.user(is_staff=True)
    factories.decider()
    holder = Group.objects.create(name="g") if by_group else bob
    if by_group:
        bob.groups.add(holder)
    assign_perm("jit_approval.decide", holder, mine)
    seen = factories.held(terms={"policy_id": mine.pk})
    hidden = factories.held(terms={"policy_id": other.pk})
    client = client_of(bob)
    assert listed(client) == {seen.pk}
    assert b"Just-in-time approval" in client.get("/admin/").content
    assert client.get(page(seen)).status_code == 200
    assert client.get(page(hidden)).status_code == 404
    content = client.get(INBOX).content.decode()
    assert other.slug not in content


def test_staff_requester_sees_own_requests_only() -> None:
    factories.decider()
    erin = factories.user(is_staff=True)
    own = factories.held(erin)
    factories.held()
    assert listed(client_of(erin)) == {own.pk}


def test_foreign_staff_sees_nothing() -> None:
    factories.decider()
    row = factories.held()
    client = client_of(factories.user(is_staff=True))
    assert client.get(INBOX).status_code == 403
    assert client.get(page(row)).status_code == 404
    assert client.post(page(row), {"verdict": "approve"}).status_code == 404
    assert client.get(f"{INBOX}{row.pk}/change/").status_code == 404
    assert client.get(f"{INBOX}{row.pk}/history/").status_code == 404
    assert b"Just-in-time approval" not in client.get("/admin/").content
    assert factories.fresh(row).status == "pending"


@pytest.mark.parametrize("key", ["0198c0de-0000-4000-8000-000000000000", "nonsense", "1", "a/b"])
def test_unknown_and_malformed_ids_are_not_there(key) -> None:
    client = client_of(factories.decider(is_staff=True))
    assert client.get(f"{INBOX}{key}/decide/").status_code == 404
    assert client.get(f"{INBOX}{key}/change/").status_code == 404


def test_who_is_not_staff_is_asked_to_log_in() -> None:
    row_page = page(_with_decider(factories.decider()))
    response = client_of(factories.decider()).get(row_page)
    assert response.status_code == 302
    assert "/login/" in response["Location"]


def _with_decider(_decider: Any) -> ApprovalRequest:
    return factories.held()


@pytest.mark.parametrize("superuser", [True, False])
def test_nobody_adds_changes_or_deletes(superuser) -> None:
    boss = factories.decider(is_staff=True, is_superuser=superuser)
    row = factories.held()
    boss.user_permissions.add(
        *Permission.objects.filter(content_type__model="approvalrequest"),
    )
    client = client_of(boss)
    assert client.get(f"{INBOX}add/").status_code == 403
    assert client.post(f"{INBOX}add/", {}).status_code == 403
    assert client.post(f"{INBOX}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(INBOX, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    client.post(f"{INBOX}{row.pk}/change/", {"status": "approved"})
    assert factories.fresh(row).status == "pending"


def test_change_and_history_lead_to_the_decision_page() -> None:
    client = client_of(factories.decider(is_staff=True))
    row = factories.held()
    for name in ("change", "history"):
        assert client.get(f"{INBOX}{row.pk}/{name}/")["Location"] == page(row)
    assert page(row) in client.get(INBOX).content.decode()


def test_open_ones_come_first_by_deadline_and_closed_ones_only_when_asked_for() -> None:
    bob = factories.decider(is_staff=True)
    late = factories.held(terms={"decide_within": timedelta(minutes=30)})
    soon = factories.held(terms={"decide_within": timedelta(minutes=1)})
    closed = factories.held()
    services.reject(closed, by=bob)
    client = client_of(bob)
    shown = [row.pk for row in client.get(INBOX).context["cl"].result_list]
    assert shown == [soon.pk, late.pk]
    assert listed(client, "?status=all") == {soon.pk, late.pk, closed.pk}
    assert listed(client, "?status=rejected") == {closed.pk}


def test_overdue_request_is_shown_as_expired_before_any_sweep() -> None:
    client = client_of(factories.decider(is_staff=True))
    row = factories.held()
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=row.created_at - timedelta(seconds=1))
    assert listed(client) == set()
    assert listed(client, "?status=pending") == set()
    assert listed(client, "?status=expired") == {row.pk}
    assert b"jit-expired" in client.get(INBOX + "?status=expired").content
    content = client.get(page(row)).content
    assert b"The time for this is over." in content
    assert b'name="verdict"' not in content


def test_filters_by_action_and_policy() -> None:
    client = client_of(factories.decider(is_staff=True))
    policy = factories.policy()
    erase = factories.held(terms={"policy_id": policy.pk, "policy_slug": policy.slug})
    pay = factories.held(action="transfers.create")
    assert listed(client, "?action=transfers.create") == {pay.pk}
    assert listed(client, f"?policy_slug={policy.slug}") == {erase.pk}
    assert listed(client, "?policy_slug=-") == {pay.pk}


def test_search_finds_closed_ones_by_id_requester_action_object_and_match_code() -> None:
    bob = factories.decider(is_staff=True)
    erin = factories.user("erin")
    row = factories.held(erin, object_label="Ada Lovelace", action="customers.destroy")
    factories.held(object_label="Bob", action="transfers.create")
    client = client_of(bob)
    assert listed(client, f"?q={row.match_code}") == {row.pk}
    services.reject(row, by=bob)
    for term in (str(row.pk), "erin", "customers.des", "Lovelace"):
        assert listed(client, f"?q={term}") == {row.pk}, term


def test_number_of_queries_does_not_grow_with_the_list(django_assert_num_queries) -> None:
    boss = factories.user(is_staff=True, is_superuser=True)
    factories.decider()

    def fill(count: int) -> None:
        for _ in range(count):
            services.approve(factories.held(terms={"required_approvals": 2}), by=boss)

    client = client_of(boss)
    fill(1)
    client.get(INBOX)
    # session, user, 2 filters' choices, count, rows, decisions
    for count in (2, 6):
        fill(count)
        with django_assert_num_queries(7):
            client.get(INBOX)


def test_countdown_is_rendered_by_the_database_clock_and_works_without_script() -> None:
    client = client_of(factories.decider(is_staff=True))
    factories.held(terms={"decide_within": timedelta(minutes=15)})
    content = client.get(INBOX).content.decode()
    assert 'data-jit-left="89' in content or 'data-jit-left="900000"' in content
    assert ">14:5" in content or ">15:00" in content

"""Deciding several at once: what was shown is what is decided, each by its own service call."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection
from guardian.shortcuts import assign_perm

from jit_approval import services
from jit_approval.admin import bulk
from jit_approval.models import ApprovalRequest, Decision
from tests import factories
from tests.test_admin_decide import text_of
from tests.test_admin_inbox import INBOX, client_of, page

pytestmark = pytest.mark.django_db


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob", is_staff=True)


def choose(client: Any, action: str, rows: list[ApprovalRequest], **more: Any) -> Any:
    """Choose an action in the list, as its form posts it."""
    fields = {"action": action, "_selected_action": [row.pk for row in rows], "index": "0"}
    return client.post(INBOX, fields | more)


def confirm(client: Any, action: str, rows: list[ApprovalRequest], comment: str = "") -> Any:
    """Press the button of the confirmation page."""
    fields = {"action": action, "_selected_action": [row.pk for row in rows], "confirmed": "yes"}
    return client.post(INBOX, {**fields, "comment": comment}, follow=True)


def statuses(*rows: ApprovalRequest) -> list[str]:
    return [factories.fresh(row).status for row in rows]


@pytest.mark.parametrize("action", ["approve_selected", "reject_selected"])
def test_choosing_shows_each_call_and_decides_nothing(bob, action) -> None:
    rows = [factories.held(object_label=f"Customer {n}", reason=f"Reason {n}") for n in range(2)]
    shown = text_of(choose(client_of(bob), action, rows))
    for row in rows:
        for words in (row.object_label, row.reason, row.requester_label, row.match_code):
            assert words in shown
        assert f'name="_selected_action" value="{row.pk}"' in shown
    assert "data-jit-left" in shown
    assert statuses(*rows) == ["pending", "pending"]


@pytest.mark.parametrize(
    ("action", "status"), [("approve_selected", "approved"), ("reject_selected", "rejected")]
)
def test_confirming_decides_each_with_the_comment(bob, action, status) -> None:
    rows = [factories.held() for _ in range(3)]
    response = confirm(client_of(bob), action, rows, "all seen")
    assert f"3 calls {status}" in text_of(response)
    assert statuses(*rows) == [status] * 3
    assert set(Decision.objects.values_list("comment", flat=True)) == {"all seen"}


def test_one_that_changed_meanwhile_is_refused_and_told(bob) -> None:
    rows = [factories.held() for _ in range(3)]
    client = client_of(bob)
    choose(client, "approve_selected", rows)
    services.reject(rows[1], by=factories.decider())
    shown = text_of(confirm(client, "approve_selected", rows))
    assert "2 calls approved" in shown
    assert f"[{rows[1].match_code}]" in shown
    assert "Too late" in shown
    assert "It is now: rejected." in shown
    assert statuses(*rows) == ["approved", "rejected", "approved"]


def test_own_call_is_refused_in_bulk(bob) -> None:
    factories.decider()
    own, other = factories.held(bob), factories.held()
    client = client_of(bob)
    shown = text_of(choose(client, "approve_selected", [own, other]))
    assert "This is your own call." in shown
    assert f'value="{own.pk}"' not in shown
    shown = text_of(confirm(client, "approve_selected", [own, other]))
    assert "1 call approved" in shown
    assert "This is your own call." in shown
    assert statuses(own, other) == ["pending", "approved"]


def test_only_the_ids_posted_are_decided_whatever_select_across_says(bob) -> None:
    shown, later = factories.held(), factories.held()
    fields = {"action": "approve_selected", "_selected_action": [shown.pk], "confirmed": "yes"}
    client_of(bob).post(INBOX, fields | {"select_across": "1"})
    assert statuses(shown, later) == ["approved", "pending"]


def test_select_across_shows_every_call_with_its_id(bob) -> None:
    rows = [factories.held() for _ in range(3)]
    shown = text_of(choose(client_of(bob), "approve_selected", rows[:1], select_across="1"))
    assert all(f'value="{row.pk}"' in shown for row in rows)


def test_requests_one_may_not_see_are_not_decided_in_bulk() -> None:
    factories.decider()
    mine = factories.policy()
    bob = factories.user(is_staff=True)
    mine_holder(bob, mine)
    hidden, seen = factories.held(), factories.held(terms={"policy_id": mine.pk})
    response = confirm(client_of(bob), "approve_selected", [hidden, seen])
    assert "Some of these calls are not there." in text_of(response)
    assert statuses(hidden, seen) == ["pending", "approved"]


def mine_holder(user: Any, policy: Any) -> None:
    from guardian.shortcuts import assign_perm

    assign_perm("jit_approval.decide", user, policy)


def test_first_of_two_approvals_is_told_as_such(bob) -> None:
    factories.decider()
    row = factories.held(terms={"required_approvals": 2})
    shown = text_of(confirm(client_of(bob), "approve_selected", [row]))
    assert "1 approval recorded, more are needed" in shown
    assert statuses(row) == ["pending"]


def test_too_many_at_once_are_refused(bob, monkeypatch) -> None:
    monkeypatch.setattr(bulk, "MAX_AT_ONCE", 2)
    rows = [factories.held() for _ in range(3)]
    client = client_of(bob)
    assert choose(client, "approve_selected", rows).status_code == 302
    assert "at most 2 calls" in text_of(confirm(client, "approve_selected", rows))
    assert statuses(*rows) == ["pending"] * 3


def test_too_long_comment_decides_none_and_is_kept(bob, settings) -> None:
    settings.JIT_APPROVAL = {"MAX_REASON_LENGTH": 5}
    row = factories.held()
    response = confirm(client_of(bob), "approve_selected", [row], "too long")
    assert response.status_code == 400
    assert ">too long</textarea>" in text_of(response)
    assert statuses(row) == ["pending"]


@pytest.mark.parametrize("more", [{"index": "0"}, {"confirmed": "yes"}])
def test_malformed_ids_are_refused(bob, more) -> None:
    fields = {"action": "approve_selected", "_selected_action": ["nonsense"]} | more
    response = client_of(bob).post(INBOX, fields, follow=True)
    assert "There is no such request." in text_of(response)


def test_number_of_queries_of_the_confirmation_does_not_grow(bob, django_assert_num_queries):
    client = client_of(bob)
    rows = [factories.held() for _ in range(6)]
    for count in (2, 6):
        # session, user and permissions 4; the list 7 (Django builds it first); rows, decisions,
        # delegations, authority, calls that look the same
        with django_assert_num_queries(16):
            choose(client, "approve_selected", rows[:count])


SAME = {"object_pk": "42", "payload": '{"amount": "10.00"}'}


@pytest.mark.parametrize("action", ["approve_selected", "reject_selected"])
def test_a_call_that_was_not_selected_and_looks_the_same_is_told(bob, action) -> None:
    erin = factories.user("erin")
    other = factories.held(erin, **SAME)
    row = factories.held(erin, **SAME, path="/api/customers/42/?again=1")
    client = client_of(bob)
    assert "these calls?" not in text_of(choose(client, action, [row]))
    shown = text_of(choose(client, action, [row, factories.held(erin)]))
    assert "these calls?" in shown
    assert shown.count("looks the same in another call") == 1
    assert page(other) in shown
    assert "selected too" not in shown


def test_selected_calls_that_look_the_same_are_told_of_each_other(bob) -> None:
    erin = factories.user("erin")
    rows = [factories.held(erin, **SAME, path=f"/api/customers/42/?n={n}") for n in range(2)]
    shown = text_of(choose(client_of(bob), "approve_selected", rows))
    assert shown.count("looks the same in another call") == 2
    assert shown.count("selected too") == 2


@pytest.mark.parametrize(
    "other",
    [{"object_pk": "43"}, {"payload": "{}"}, {"action": "customers.update"}, {"requester": "carl"}],
    ids=lambda other: next(iter(other)),
)
def test_a_selected_call_for_something_else_is_not_called_the_same(bob, other) -> None:
    erin = factories.user("erin")
    fields = {**SAME, **other}
    name = fields.pop("requester", "")
    rows = [factories.held(factories.user(name) if name else erin, **fields)]
    rows.append(factories.held(erin, **SAME))
    client = client_of(bob)
    for selected in (rows, rows[1:]):
        assert "looks the same" not in text_of(choose(client, "approve_selected", selected))


def test_many_that_look_like_one_call_leave_no_other_without_its_warning(bob) -> None:
    erin, carl = factories.user("erin"), factories.user("carl")
    oldest = factories.held(carl, **SAME)
    rows = [factories.held(who, **SAME) for who in (carl, erin)]
    for number in range(8):
        factories.held(erin, **SAME, path=f"/api/customers/42/?n={number}")
    shown = text_of(choose(client_of(bob), "approve_selected", rows))
    assert shown.count("carl has asked for what looks the same") == 1
    assert shown.count("erin has asked for what looks the same") == 5
    assert page(oldest) in shown


def test_a_call_that_looks_the_same_is_named_without_a_link_to_who_may_not_see_it() -> None:
    policy = factories.policy()
    carol = factories.user("carol", is_staff=True)
    assign_perm("jit_approval.decide", carol, policy)
    factories.decider("bob")
    erin = factories.user("erin")
    other = factories.held(erin, **SAME)
    row = factories.held(erin, **SAME, terms={"policy_id": policy.pk, "policy_slug": policy.slug})
    shown = text_of(choose(client_of(carol), "approve_selected", [row]))
    assert other.match_code in shown
    assert page(other) not in shown


def test_number_of_queries_does_not_grow_with_calls_that_look_the_same(
    bob, django_assert_num_queries
):
    client, erin = client_of(bob), factories.user("erin")
    rows = [factories.held(erin, object_pk=str(number)) for number in range(6)]
    for number in range(6):
        factories.held(erin, object_pk=str(number), path="/api/customers/?again=1")
    for count in (2, 6):
        # as above, and which of them one may look at
        with django_assert_num_queries(17):
            choose(client, "approve_selected", rows[:count])


@pytest.mark.django_db(transaction=True)
def test_after_a_database_error_nothing_more_is_tried() -> None:
    bob = factories.decider(is_staff=True)
    rows = [factories.held() for _ in range(3)]
    votes = 0

    def broken(execute, sql, params, many, context):
        nonlocal votes
        if "INSERT INTO" in sql and "jit_approval_decision" in sql:
            votes += 1
            if votes == 2:
                raise OperationalError("the server has gone away")
        return execute(sql, params, many, context)

    client = client_of(bob)
    with connection.execute_wrapper(broken):
        shown = text_of(confirm(client, "approve_selected", rows))
    assert "1 call approved" in shown
    assert "It is now: pending." in shown
    assert "not tried after the database failed" in shown
    assert statuses(*rows) == ["approved", "pending", "pending"]


def test_of_several_what_was_rewritten_is_not_approved_and_the_others_are(bob) -> None:
    rows = [factories.held(payload="1"), factories.held(payload="2")]
    ApprovalRequest.objects.filter(pk=rows[0].pk).update(payload="3")
    shown = text_of(confirm(client_of(bob), "approve_selected", rows))
    assert "it was rewritten in the database" in shown
    assert statuses(*rows) == ["pending", "approved"]

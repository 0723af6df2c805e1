"""What one may make others look at: clear refusals, nothing opened, nothing run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import override_settings

from jit_approval import services
from jit_approval.models import ApprovalPolicy, ApprovalRequest, Notification
from jit_approval.states import Status
from tests import bindapp, callers, factories
from tests.bindapp import RUNS
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.bindapp")]


@pytest.fixture
def caller():
    bindapp.reset()
    return callers.Caller()


def pay(caller, amount: int, url: str = "/pay/"):
    return caller.send(url, b'{"amount": %d}' % amount)


def age(**ago: int) -> None:
    """Make every request look that much older."""
    for row in ApprovalRequest.objects.all():
        created = row.created_at - timedelta(**ago)
        ApprovalRequest.objects.filter(pk=row.pk).update(created_at=created)


def refused(response, *, retry_after: str | None) -> None:
    assert (response.status_code, response.json()["code"]) == (429, "too_many_pending")
    assert response.get("Retry-After") == retry_after
    assert response.json()["executed"] is False
    assert RUNS == []


@override_settings(JIT_APPROVAL={"MAX_OPEN_PER_REQUESTER": 3})
def test_open_requests_of_one_requester_are_limited(caller):
    held = [pay(caller, number) for number in range(3)]
    refused(pay(caller, 9), retry_after=None)
    assert ApprovalRequest.objects.count() == 3
    assert Notification.objects.count() == 3
    # Repeating one that is open opens nothing; another requester has places of their own.
    assert pay(caller, 0)["Approval-Id"] == held[0]["Approval-Id"]
    caller.client.credentials(HTTP_AUTHORIZATION=callers.token_of(factories.user()))
    assert pay(caller, 9).json()["code"] == "approval_pending"


@override_settings(JIT_APPROVAL={"MAX_OPEN_PER_REQUESTER": 1})
def test_an_approved_call_holds_its_place_until_it_ran(caller):
    caller.approve(pay(caller, 1))
    second = pay(caller, 2)
    refused(second, retry_after=None)
    assert second.json()["detail"].startswith("You have 1 open request; ")
    assert pay(caller, 1).status_code == 201
    assert pay(caller, 2).json()["code"] == "approval_pending"


@override_settings(JIT_APPROVAL={"MAX_OPEN_PER_REQUESTER": 1})
def test_a_request_whose_time_is_up_gives_its_place_back_without_a_sweeper(caller):
    row = caller.row(pay(caller, 1))
    ApprovalRequest.objects.update(due_at=row.created_at - timedelta(seconds=1))
    assert pay(caller, 2).json()["code"] == "approval_pending"
    row.refresh_from_db()
    assert row.status == Status.PENDING


@override_settings(JIT_APPROVAL={"OPENINGS_PER_REQUESTER": "2/minute", "REJECTION_COOLDOWN": 0})
def test_openings_over_time_count_whatever_became_of_them(caller):
    services.cancel(caller.row(pay(caller, 1)), by=caller.user)
    services.reject(caller.row(pay(caller, 2)), by=caller.bob)
    refused(pay(caller, 3), retry_after="60")
    age(minutes=2)
    assert pay(caller, 3).json()["code"] == "approval_pending"


@override_settings(JIT_APPROVAL={"OPENINGS_PER_POLICY": "2/hour"})
def test_openings_of_one_policy_are_limited_over_all_requesters(caller):
    policy = factories.policy(actions="pay.*")
    for number in range(2):
        caller.client.credentials(HTTP_AUTHORIZATION=callers.token_of(factories.user()))
        assert pay(caller, number).json()["policy"] == policy.slug
    caller.client.credentials(HTTP_AUTHORIZATION=callers.token_of(factories.user()))
    refused(pay(caller, 9), retry_after="3600")
    ApprovalPolicy.objects.update(enabled=False)
    assert pay(caller, 9).json()["code"] == "approval_pending"


# --- after a rejection -----------------------------------------------------------------------------------


def cool(row: ApprovalRequest) -> None:
    past = row.created_at - timedelta(seconds=1)
    ApprovalRequest.objects.filter(pk=row.pk).update(cooldown_until=past)


def test_a_rejection_holds_for_like_calls_until_it_has_cooled_down(caller):
    row = caller.row(pay(caller, 1))
    services.reject(row, by=caller.bob, comment="Ask Carol first")
    for answer in (pay(caller, 1), caller.send("/pay/", b'{"amount":  1 }')):
        assert answer.json()["code"] == "approval_rejected"
        assert answer.json()["comment"] == "Ask Carol first"
        assert answer.json()["approval_id"] == str(row.pk)
    assert ApprovalRequest.objects.count() == 1
    cool(row)
    assert pay(caller, 1).json()["code"] == "approval_pending"


def test_a_rejection_is_about_one_object_action_and_requester(caller):
    ada, eve = (Customer.objects.create(name=name) for name in ("Ada", "Eve"))
    urls = [f"/customers/{customer.pk}/" for customer in (ada, eve)]
    services.reject(caller.row(caller.send(urls[0], method="DELETE")), by=caller.bob)
    again = caller.send(urls[0], b'{"note": "please"}', method="DELETE")
    assert again.json()["code"] == "approval_rejected"
    others = [
        caller.send(urls[1], method="DELETE"),
        caller.send(urls[0], b'{"name": "B"}', method="PATCH"),
    ]
    caller.client.credentials(HTTP_AUTHORIZATION=callers.token_of(factories.user()))
    others.append(caller.send(urls[0], method="DELETE"))
    assert {answer.json()["code"] for answer in others} == {"approval_pending"}


def test_a_cool_down_of_nothing_lets_one_ask_at_once(caller):
    factories.policy(rejection_cooldown=timedelta(0))
    services.reject(caller.row(pay(caller, 1)), by=caller.bob)
    assert pay(caller, 1).json()["code"] == "approval_pending"


# --- the reason ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("GDPR erasure #811", "GDPR erasure #811"),
        ("Größe".encode().decode("latin-1"), "Größe"),
        ("Gr\xf6\xdfe", "Größe"),
        ("  padded  ", "padded"),
        ("a\u202eb".encode().decode("latin-1"), "a\\u202eb"),
        ("a\x00b", "a\\u0000b"),
        ("", ""),
    ],
)
def test_the_reason_is_utf_8_or_else_latin_1_and_shown_escaped(caller, sent, shown):
    row = caller.row(caller.send("/pay/", b"{}", HTTP_APPROVAL_REASON=sent))
    row.refresh_from_db()
    assert row.reason == shown


@pytest.mark.parametrize(("length", "status"), [(500, 403), (501, 400)])
def test_the_reason_is_limited_in_characters_not_bytes(caller, length, status):
    reason = ("ß" * length).encode().decode("latin-1")
    answer = caller.send("/pay/", b"{}", HTTP_APPROVAL_REASON=reason)
    assert answer.status_code == status
    assert ApprovalRequest.objects.exists() is (status == 403)


@pytest.mark.parametrize("reason", ["", " ", ".", "aaa", "...---...", "\u200b\u200b"])
@override_settings(JIT_APPROVAL={"REQUIRE_REASON": True})
def test_a_required_reason_must_say_something(caller, reason):
    sent = reason.encode().decode("latin-1")
    answer = caller.send("/pay/", b"{}", HTTP_APPROVAL_REASON=sent)
    assert (answer.status_code, answer.json()["code"]) == (400, "approval_reason_required")
    assert not ApprovalRequest.objects.exists()


@override_settings(JIT_APPROVAL={"REQUIRE_REASON": True})
def test_the_reason_is_frozen_and_need_not_be_repeated(caller):
    row = caller.approve(caller.send("/pay/", b"{}", HTTP_APPROVAL_REASON="the first one"))
    assert caller.send("/pay/", b"{}", HTTP_APPROVAL_REASON="another").status_code == 201
    row.refresh_from_db()
    assert row.reason == "the first one"

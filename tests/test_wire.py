"""What a caller is told, to the byte: codes, types, headers; and what is never told."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.test import override_settings
from rest_framework.response import Response

from jit_approval import services
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.states import Status
from tests import bindapp, callers, factories
from tests.bindapp import RUNS
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.bindapp")]
BODY = b'{"amount": 5}'
with_status_urls = pytest.mark.urls("tests.urls")


@pytest.fixture
def caller():
    bindapp.reset()
    return callers.Caller()


def no_more_than_held(response) -> None:
    assert response["Cache-Control"] == "no-store"
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["executed"] is False
    assert response.json()["status"] == response.status_code
    assert RUNS == []


# --- held ------------------------------------------------------------------------------------------------


@with_status_urls
def test_a_held_call_is_answered_exactly_so(caller):
    policy = factories.policy(slug="erasure", decide_within=timedelta(minutes=10))
    ada = Customer.objects.create(name="Ada")
    response = caller.send(f"/api/customers/{ada.pk}/", method="DELETE")
    row = ApprovalRequest.objects.get()
    body = response.json()
    assert 590 <= body.pop("expires_in") <= 600
    url = f"/approvals/{row.pk}/"
    assert body == {
        "type": "urn:jit-approval:approval-pending",
        "title": "Approval required",
        "status": 403,
        "code": "approval_pending",
        "detail": "Not executed. The call waits for approval; "
        "repeat the identical call once it is approved.",
        "executed": False,
        "retryable": True,
        "approval_id": str(row.pk),
        "status_url": url,
        "action": "customers.destroy",
        "policy": policy.slug,
        "expires_at": row.decide_by.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "interval": 5,
        "match_code": row.match_code,
        "next": "wait",
        "instructions": "Nothing was done yet: somebody must approve exactly this call. Do not change it, do not "
        "try another way, and do not report it as done. Read status_url every 5 seconds, or later; when its "
        f'next is "repeat_call", send the identical call again with the header Approval-Id: {row.pk}. '
        'If its next is "none" or "ask_again", stop and tell whoever asked you.',
    }
    assert response.status_code == 403
    assert {
        name: response[name] for name in ("Approval-Id", "Retry-After", "Location", "Link")
    } == {
        "Approval-Id": str(row.pk),
        "Retry-After": "5",
        "Location": url,
        "Link": f'<{url}>; rel="status"',
    }
    no_more_than_held(response)


def test_without_the_urls_there_is_no_status_url_and_the_retry_protocol_works(caller):
    held = caller.send("/pay/", BODY)
    assert held.json()["status_url"] is None
    assert held.json()["policy"] is None
    assert not {"Location", "Link"} & set(held.headers)
    caller.approve(held)
    assert caller.send("/pay/", BODY).status_code == 201


def test_the_match_code_is_four_letters_of_the_digest_of_the_id(caller):
    body = caller.send("/pay/", BODY).json()
    number = int(hashlib.sha256(body["approval_id"].encode()).hexdigest()[:5], 16)
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    digits = [number // 32**place % 32 for place in (3, 2, 1, 0)]
    assert body["match_code"] == "".join(letters[digit] for digit in digits)


def test_ids_are_random_uuids(caller):
    ids = [uuid.UUID(caller.send("/pay/", b"%d" % n)["Approval-Id"]) for n in range(5)]
    assert {one.version for one in ids} == {4}
    assert len(set(ids)) == 5


def test_an_approved_but_unused_call_expires_when_its_grant_does(caller):
    first = caller.send("/pay/", BODY)
    caller.approve(first)
    other = caller.client.post("/pay/", BODY, content_type="application/json", HTTP_APPROVAL_ID="")
    assert other.status_code == 201
    assert other["Approval-Id"] == first["Approval-Id"]
    assert other["Approval-Status"] == "consumed"


def test_a_policy_sets_the_interval_and_deadline_that_are_told(caller):
    with override_settings(JIT_APPROVAL={"POLL_INTERVAL": 9, "DECIDE_WITHIN": 60}):
        held = caller.send("/pay/", BODY)
    assert (held["Retry-After"], held.json()["interval"]) == ("9", 9)
    told = datetime.fromisoformat(held.json()["expires_at"])
    assert abs(told - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=20)
    assert 50 <= held.json()["expires_in"] <= 60


def test_problem_json_is_said_only_of_json(caller):
    page = caller.send("/pay/", BODY, HTTP_ACCEPT="text/html")
    assert page.status_code == 403
    assert page["Content-Type"].startswith("text/html")
    assert "approval_pending" in page.content.decode()
    json = caller.send("/pay/", BODY, HTTP_ACCEPT="application/json")
    assert json["Content-Type"] == "application/problem+json"
    assert json["Approval-Id"] == page["Approval-Id"]


def own_handler(exc, context):
    return Response({"mine": True}, status=200)


def test_the_body_is_ours_whatever_the_projects_exception_handler(caller, monkeypatch):
    monkeypatch.setattr(bindapp.PayView, "get_exception_handler", lambda self: own_handler)
    held = caller.send("/pay/", BODY)
    assert (held.status_code, held.json()["code"]) == (403, "approval_pending")
    assert caller.send("/pay/", b"{").json() == {"mine": True}  # everything else is the project's
    assert RUNS == []


# --- naming an id ----------------------------------------------------------------------------------------


def overdue(row: ApprovalRequest) -> None:
    past = row.created_at - timedelta(seconds=1)
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=past)


def run_it(caller, row):
    services.approve(row, by=caller.bob)
    assert caller.send("/pay/", BODY).status_code == 201
    RUNS.clear()


ENDS = {
    "approval_pending": lambda caller, row: None,
    "approval_rejected": lambda caller, row: services.reject(
        row, by=caller.bob, comment="No\u202e"
    ),
    "approval_expired": lambda caller, row: overdue(row),
    "approval_cancelled": lambda caller, row: services.cancel(row, by=caller.user),
    "approval_revoked": lambda caller, row: services.revoke(
        services.approve(row, by=caller.bob), by=caller.bob
    ),
    "approval_consumed": run_it,
}
MEMBERS = {
    "approval_rejected": {"comment": "No\\u202e"},
    "approval_consumed": {"outcome": "succeeded"},
}


@pytest.mark.parametrize("code", ENDS)
def test_a_call_that_names_its_id_is_told_how_it_stands(caller, code):
    row = caller.row(caller.send("/pay/", BODY))
    ENDS[code](caller, row)
    named = caller.send("/pay/", BODY, HTTP_APPROVAL_ID=str(row.pk))
    body = named.json()
    assert (named.status_code, body["code"], body["approval_id"]) == (403, code, str(row.pk))
    assert body["type"] == f"urn:jit-approval:{code.replace('_', '-')}"
    assert body["retryable"] is (code == "approval_pending")
    assert named["Approval-Id"] == str(row.pk)
    assert body.items() >= MEMBERS.get(code, {}).items()
    no_more_than_held(named)
    assert ApprovalRequest.objects.count() == 1


@pytest.mark.parametrize("code", [code for code in ENDS if code != "approval_pending"])
def test_a_call_that_names_none_opens_anew_unless_it_was_rejected(caller, code):
    row = caller.row(caller.send("/pay/", BODY))
    ENDS[code](caller, row)
    anew = caller.send("/pay/", BODY)
    rejected = code == "approval_rejected"
    assert anew.json()["code"] == ("approval_rejected" if rejected else "approval_pending")
    assert (anew["Approval-Id"] == str(row.pk)) is rejected
    assert RUNS == []


def test_a_grant_overdue_is_expired_to_who_names_it(caller):
    row = caller.approve(caller.send("/pay/", BODY))
    overdue(row)
    named = caller.send("/pay/", BODY, HTTP_APPROVAL_ID=str(row.pk))
    assert named.json()["code"] == "approval_expired"
    row.refresh_from_db()
    assert row.status == Status.EXPIRED
    no_more_than_held(named)


def test_naming_the_id_of_a_grant_runs_the_call(caller):
    row = caller.approve(caller.send("/pay/", BODY))
    for spelling in (str(row.pk), f" {row.pk} "):
        done = caller.send("/pay/", BODY, HTTP_APPROVAL_ID=spelling)
        assert done.status_code == (201 if spelling == str(row.pk) else 403)
    assert done.json()["code"] == "approval_consumed"
    assert len(RUNS) == 1


def test_naming_an_older_request_is_answered_for_that_one(caller):
    old = caller.row(caller.send("/pay/", BODY))
    services.cancel(old, by=caller.user)
    new = caller.approve(caller.send("/pay/", BODY))
    named = caller.send("/pay/", BODY, HTTP_APPROVAL_ID=str(old.pk))
    assert named.json()["code"] == "approval_cancelled"
    new.refresh_from_db()
    assert new.status == Status.APPROVED
    assert RUNS == []


MALFORMED = ["nonsense", "1" * 999, "{", "\x00", "ü", "-", "0198c0de-0000-4000-8000-00000000000g"]


def test_ids_unknown_foreign_or_malformed_are_told_apart_by_nobody(caller):
    other = callers.Caller()
    foreign = other.send("/pay/", BODY)["Approval-Id"]
    same_call = caller.send("/pay/", BODY)
    names = [foreign, str(uuid.uuid4()), str(uuid.UUID(int=0)), *MALFORMED]
    answers = [caller.send("/pay/", BODY, HTTP_APPROVAL_ID=name) for name in names]
    told = {(a.status_code, a.content, tuple(sorted(a.headers.items()))) for a in answers}
    assert len(told) == 1
    assert (answers[0].status_code, answers[0].json()["code"]) == (404, "not_found")
    assert foreign not in answers[0].content.decode()
    assert ApprovalRequest.objects.count() == 2
    assert ApprovalRequest.objects.get(pk=same_call["Approval-Id"]).status == Status.PENDING
    no_more_than_held(answers[0])


def test_a_foreign_grant_runs_nothing_for_who_knows_its_id(caller):
    other = callers.Caller()
    row = other.approve(other.send("/pay/", BODY))
    assert caller.send("/pay/", BODY, HTTP_APPROVAL_ID=str(row.pk)).status_code == 404
    row.refresh_from_db()
    assert (row.status, RUNS) == (Status.APPROVED, [])


DIFFERENT = [
    ({"raw": b'{"amount": 666}'}, ["body"]),
    ({"url": "/pay/?sec=ret"}, ["query"]),
    ({"HTTP_IDEMPOTENCY_KEY": "sec"}, ["headers"]),
    ({"method": "PUT"}, ["action", "method"]),
    ({"HTTP_HOST": "localhost"}, ["host"]),
    ({"url": "/pay/sec/"}, ["kwargs", "path", "route"]),
]


@pytest.mark.parametrize(("change", "names"), DIFFERENT)
def test_a_call_that_differs_from_the_id_it_names_is_told_in_what_never_how(caller, change, names):
    row = caller.approve(caller.send("/pay/", BODY))
    call = {"url": "/pay/", "raw": BODY} | change
    other = caller.send(**call, HTTP_APPROVAL_ID=str(row.pk))
    assert (other.status_code, other.json()["code"]) == (422, "approval_mismatch")
    assert other.json()["differs"] == names
    assert not any(value in other.content.decode() for value in ("666", "sec"))
    row.refresh_from_db()
    assert row.status == Status.APPROVED
    assert ApprovalRequest.objects.count() == 1
    no_more_than_held(other)


# --- a lost answer ---------------------------------------------------------------------------------------


def test_a_lost_answer_is_not_paid_twice(caller):
    def pay(key: str):
        return caller.send("/pay/", BODY, HTTP_IDEMPOTENCY_KEY=key)

    row = caller.approve(pay("one"))
    assert pay("one").status_code == 201
    for _ in range(2):
        again = pay("one")
        assert again.json()["code"] == "approval_consumed"
        assert again["Approval-Id"] == str(row.pk)
    assert pay("other").json()["code"] == "approval_pending"
    assert (len(RUNS), ApprovalRequest.objects.count()) == (1, 2)


def test_an_empty_key_is_none(caller):
    def pay():
        return caller.send("/pay/", BODY, HTTP_IDEMPOTENCY_KEY=" ")

    caller.approve(pay())
    assert pay().status_code == 201
    assert pay().json()["code"] == "approval_pending"


@pytest.mark.parametrize("outcome", ["running", "unknown"])
def test_while_nobody_knows_how_a_call_ended_it_is_not_held_again(caller, outcome):
    caller.approve(caller.send("/pay/", BODY))
    assert caller.send("/pay/", BODY).status_code == 201
    ApprovalRequest.objects.update(outcome=outcome)
    again = caller.send("/pay/", BODY)
    assert (again.json()["code"], again.json()["outcome"]) == ("approval_consumed", outcome)
    assert ApprovalRequest.objects.count() == 1


# --- nobody to ask ---------------------------------------------------------------------------------------


def test_without_a_decider_nothing_opens(caller):
    caller.bob.user_permissions.clear()
    closed = caller.send("/pay/", BODY)
    assert (closed.status_code, closed.json()["code"]) == (403, "approval_unavailable")
    assert not ApprovalRequest.objects.exists()
    assert not Notification.objects.filter(event="held").exists()
    no_more_than_held(closed)


def test_the_requester_alone_is_no_decider(caller):
    caller.bob.user_permissions.clear()
    caller.user.user_permissions.add(factories.decide_permission())
    assert caller.send("/pay/", BODY).json()["code"] == "approval_unavailable"

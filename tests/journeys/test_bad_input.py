"""What cannot be tied to one meaning is refused clearly: nothing opened, nothing run."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Status
from tests import factories
from tests.testapp.models import Customer
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/transfers/"


@pytest.fixture
def bob():
    RUNS.clear()
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


def post(client, raw: bytes, content_type: str = "application/json", **extra):
    return client.generic("POST", URL, raw, content_type=content_type, **extra)


def depth(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("raw", "content_type", "extra", "status", "code"),
    [
        (b"{", "application/json", {}, 400, None),
        (b"\xff\xfe", "application/json", {}, 400, None),
        (b'{"a": 1, "a": 2}', "application/json", {}, 400, "unbindable_call"),
        (b'{"x": {"a": 1, "\\u0061": 2}}', "application/json", {}, 400, "unbindable_call"),
        (depth(40), "application/json", {}, 400, "unbindable_call"),
        (depth(100_000), "application/json", {}, 400, "unbindable_call"),
        (b"{}", "application/json; charset=utf-16", {}, 415, "unbindable_call"),
        (b"{}", "application/json", {"HTTP_CONTENT_ENCODING": "gzip"}, 415, "unbindable_call"),
        (b"<a/>", "application/xml", {}, 415, None),
        (b"[" + b" " * 1024 * 1024 + b"]", "application/json", {}, 413, "payload_too_large"),
        (b"{}", "application/json", {"HTTP_TRANSFER_ENCODING": "chunked"}, 411, "unbindable_call"),
        (b"{}", "application/json", {"CONTENT_LENGTH": "two"}, 400, "unbindable_call"),
        (b"{}", "application/json", {"HTTP_APPROVAL_REASON": "x" * 501}, 400, "unbindable_call"),
    ],
)
def test_a_body_with_two_meanings_is_refused(erin, raw, content_type, extra, status, code):
    response = post(erin, raw, content_type, **extra)
    assert response.status_code == status
    assert response.json().get("code") == code
    assert not ApprovalRequest.objects.exists()
    assert RUNS == []


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": "\\u0000", "b\\u0000": 1}',
        b'{"a": "\\ud800", "\\udfff": "x"}',
        '{"a": "\u202e\u200b\U000e0041"}'.encode(),
        b'{"n": 123456789012345678901234567890}',
    ],
)
def test_awkward_text_is_held_shown_escaped_and_run_as_it_was_sent(erin, bob, raw):
    assert post(erin, raw).json()["code"] == "approval_pending"
    row = ApprovalRequest.objects.get()
    assert not set(row.payload) & set("\x00\u202e\u200b\U000e0041\ud800")
    services.approve(row, by=bob)
    assert post(erin, raw).status_code == 201
    assert RUNS == [("transfer", json.loads(raw))]


def test_hidden_values_run_as_they_were_sent(erin, bob):
    body = {"amount": 5, "card_number": "4111", "nested": [{"apiKey": "k"}]}
    erin.post(URL, body, format="json")
    row = ApprovalRequest.objects.get()
    assert "4111" not in row.payload
    assert '"k"' not in row.payload
    services.approve(row, by=bob)
    erin.post(URL, body, format="json")
    assert RUNS == [("transfer", body)]


def test_a_changed_body_is_another_request_and_does_not_run(erin, bob):
    first = erin.post(URL, {"amount": 5}, format="json").json()["approval_id"]
    services.approve(ApprovalRequest.objects.get(), by=bob)
    assert erin.post(URL, {"amount": 6}, format="json").json()["approval_id"] != first
    assert erin.post(URL + "?x=1", {"amount": 5}, format="json").json()["approval_id"] != first
    named = erin.post(URL, {"amount": 7}, format="json", headers={"Approval-Id": first})
    assert (named.status_code, named.json()["code"]) == (422, "approval_mismatch")
    assert "body" in named.json()["differs"]
    assert "7" not in json.dumps(named.json()["differs"])
    assert RUNS == []


def test_multipart_survives_another_boundary_and_nothing_else(erin, bob):
    def send(content: bytes, name: str = "a.txt"):
        upload = SimpleUploadedFile(name, content, content_type="text/plain")
        return erin.post(URL, {"note": "n", "file": upload}, format="multipart")

    first = send(b"one").json()["approval_id"]
    assert send(b"one").json()["approval_id"] == first
    assert send(b"two").json()["approval_id"] != first
    assert send(b"one", "b.txt").json()["approval_id"] != first
    services.approve(ApprovalRequest.objects.get(pk=first), by=bob)
    assert send(b"one").status_code == 201
    assert RUNS[0][1]["file"].name == "a.txt"


def test_ids_that_are_unknown_foreign_or_malformed_are_the_same_404(erin, bob):
    frank = APIClient()
    frank.force_login(factories.user("frank"))
    foreign = frank.post(URL, {"amount": 1}, format="json").json()["approval_id"]
    answers = {
        (response.status_code, response.content)
        for response in (
            erin.post(URL, {"amount": 1}, format="json", headers={"Approval-Id": name})
            for name in (foreign, "0198c0de-0000-4000-8000-000000000000", "nonsense", "1" * 999)
        )
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 404


def _overdue(row):
    past = row.created_at - timedelta(seconds=1)
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=past)


ENDS = {
    "approval_rejected": lambda row, bob: services.reject(row, by=bob, comment="No."),
    "approval_expired": lambda row, bob: _overdue(row),
    "approval_cancelled": lambda row, bob: services.cancel(row, by=row.requester),
    "approval_revoked": lambda row, bob: services.revoke(services.approve(row, by=bob), by=bob),
}


@pytest.mark.parametrize("code", list(ENDS))
def test_a_call_that_names_its_id_is_told_what_became_of_it(erin, bob, code):
    held = erin.post(URL, {"amount": 5}, format="json").json()["approval_id"]
    ENDS[code](ApprovalRequest.objects.get(), bob)
    named = erin.post(URL, {"amount": 5}, format="json", headers={"Approval-Id": held})
    assert (named.status_code, named.json()["code"]) == (403, code)
    anew = erin.post(URL, {"amount": 5}, format="json").json()
    cooling = code == "approval_rejected"
    assert anew["code"] == ("approval_rejected" if cooling else "approval_pending")
    if cooling:
        assert anew["comment"] == "No."
    assert RUNS == []


def test_a_lost_answer_is_not_paid_twice(erin, bob):
    def pay(key: str):
        return erin.post(URL, {"amount": 5}, format="json", headers={"Idempotency-Key": key})

    pay("k1")
    services.approve(ApprovalRequest.objects.get(), by=bob)
    assert pay("k1").status_code == 201
    assert pay("k1").json()["code"] == "approval_consumed"
    assert pay("k2").json()["code"] == "approval_pending"
    assert len(RUNS) == 1


@pytest.mark.parametrize("how", ["Approval-Id", "Idempotency-Key"])
def test_a_lost_answer_of_a_call_that_removed_its_object_is_told(erin, bob, how):
    customer = Customer.objects.create(name="Ada")
    url = f"/api/customers/{customer.pk}/"
    key = {"Idempotency-Key": "k1"} if how == "Idempotency-Key" else {}
    held = erin.delete(url, headers=key).json()["approval_id"]
    services.approve(ApprovalRequest.objects.get(), by=bob)
    assert erin.delete(url, headers=key).status_code == 204
    again = erin.delete(url, headers=key or {"Approval-Id": held})
    assert (again.status_code, again.json()["code"]) == (403, "approval_consumed")
    assert erin.delete(url + "?x", headers=key or {"Approval-Id": held}).status_code == 404
    assert erin.delete(url).status_code == 404
    frank = APIClient()
    frank.force_login(factories.user("frank"))
    assert frank.delete(url, headers=key or {"Approval-Id": held}).status_code == 404


def test_an_object_edited_after_approval_voids_it_and_names_the_field(erin, bob):
    customer = Customer.objects.create(name="Ada", balance="10.00")
    url = f"/api/customers/{customer.pk}/"
    erin.delete(url)
    row = ApprovalRequest.objects.get()
    services.approve(row, by=bob)
    Customer.objects.update(balance="99.00")
    stale = erin.delete(url)
    assert (stale.status_code, stale.json()["differs"]) == (412, ["balance"])
    assert "99.00" not in stale.content.decode()
    assert erin.delete(url).json()["code"] == "approval_pending"
    assert Customer.objects.exists()


def test_an_object_edited_while_pending_supersedes_the_request(erin, bob):
    customer = Customer.objects.create(name="Ada")
    url = f"/api/customers/{customer.pk}/"
    first = erin.delete(url).json()["approval_id"]
    Customer.objects.update(name="Eve")
    second = erin.delete(url).json()["approval_id"]
    assert first != second
    assert ApprovalRequest.objects.get(pk=first).status == Status.CANCELLED

"""`Prefer: wait=N` on a call that the server runs: kept on the line until the run has ended, then given its answer."""

from __future__ import annotations

import gzip
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as project
from django.db import connections
from django.db.models.signals import pre_save
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authtoken.models import Token
from rest_framework.response import Response
from rest_framework.test import APIClient

from jit_approval import execution, services, waiting
from jit_approval.decorators import requires_approval
from jit_approval.models import ApprovalPolicy, ApprovalRequest, StoredAnswer
from jit_approval.states import Execution, Outcome, Status
from tests import factories, urls
from tests.lines import MIDDLEWARE, PATIENCE, client, lines, until, until_waiting
from tests.testapp.models import Customer
from tests.testapp.views import RUNS, TransferView

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]
URL = "/api/transfers/"
ON = {"MAX_WAIT": 60, "SECRET_KEYS": ["k" * 40]}


@requires_approval
def plain(request):
    """Of Django's own kind."""
    RUNS.append("plain")
    return HttpResponse("done", status=202)


urlpatterns = [*urls.urlpatterns, path("plain/", csrf_exempt(plain))]


class Passes:
    """A middleware that counts the calls that come by."""

    seen: list[str] = []

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        self.seen.append(request.method)
        return self.get_response(request)


@pytest.fixture(autouse=True)
def _on(settings):
    settings.MIDDLEWARE = [MIDDLEWARE, f"{__name__}.Passes", *project.MIDDLEWARE]
    settings.JIT_APPROVAL = ON
    factories.policy(execution=Execution.SERVER, actions="*")
    RUNS.clear()
    Passes.seen.clear()


@pytest.fixture
def line():
    with lines() as made:
        yield made


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    return client(Token.objects.create(user=factories.user("erin")).key)


def held() -> ApprovalRequest:
    until_waiting()
    return ApprovalRequest.objects.get()


def post(client, amount=5, **extra):
    return client.post(URL, {"amount": amount}, format="json", **extra)


def answers(monkeypatch, handler) -> None:
    """Let the view answer so."""
    monkeypatch.setattr(TransferView, "post", handler)


def is_told_it_ran(response, outcome: str) -> None:
    data = response.json()
    assert (response.status_code, data["code"]) == (403, "approval_consumed")
    assert (data["executed"], data["outcome"]) == (False, outcome)
    assert data["result_url"] == f"/approvals/{data['approval_id']}/result/"
    assert response["Preference-Applied"].startswith("wait=")


# --- the answer ------------------------------------------------------------------------------------------


def test_the_wait_goes_on_until_the_run_has_ended_and_its_answer_returns(line, erin, bob):
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    with pytest.raises(TimeoutError):
        answer.result(0.5)
    assert (waiting.waiters(), RUNS) == (1, [])
    assert execution.run(row.pk)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()) == (201, {"moved": True})
    assert response["Content-Type"] == "application/json"
    assert response["Preference-Applied"] == "wait=25"
    assert (response["Approval-Id"], response["Approval-Status"]) == (str(row.pk), "consumed")
    assert response["Cache-Control"] == "no-store"
    assert RUNS == [("transfer", {"amount": 5})]
    assert (ApprovalRequest.objects.count(), waiting.waiters()) == (1, 0)


def test_while_it_waits_and_runs_the_call_is_not_made_again(line, erin, bob, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def slow(self, request):
        begun.set()
        assert may_end.wait(PATIENCE)
        return Response({"slow": True})

    answers(monkeypatch, slow)
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    ran = line.call(execution.run, row.pk)
    assert begun.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        answer.result(0.5)
    assert Passes.seen == ["POST"] * 2  # the caller's and the server's
    may_end.set()
    assert ran.result(PATIENCE)
    assert answer.result(PATIENCE).json() == {"slow": True}
    assert Passes.seen == ["POST"] * 3


def test_a_call_that_removed_its_own_object_is_answered(line, erin, bob):
    customer = Customer.objects.create(name="Ada")
    answer = line.call(erin.delete, f"/api/customers/{customer.pk}/")
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response
    assert not Customer.objects.exists()


def test_a_plain_django_view_is_answered_for_as_well(line, bob):
    browser = Client(HTTP_PREFER="wait=25", **{"wsgi.multithread": True})
    browser.force_login(factories.user("erin"))
    answer = line.call(browser.post, "/plain/")
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.content) == (202, b"done")


def test_an_error_of_the_view_is_its_own_answer(line, erin, bob, monkeypatch):
    def fail(self, request):
        raise RuntimeError("broken")

    answers(monkeypatch, fail)
    answer = line.call(post, erin)
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert response.status_code == 500
    assert response["Approval-Status"] == "consumed"


def test_a_refusal_of_the_view_is_its_own_answer(line, erin, bob, monkeypatch):
    answers(monkeypatch, lambda self, request: Response({"detail": "No money."}, status=403))
    answer = line.call(post, erin)
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()) == (403, {"detail": "No money."})


def test_headers_that_are_not_kept_do_not_return(line, erin, bob, monkeypatch):
    def with_headers(self, request):
        response = Response({}, headers={"X-Secret": "1", "Location": "/there/"})
        response.set_cookie("session", "secret")
        return response

    answers(monkeypatch, with_headers)
    answer = line.call(post, erin)
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert response["Location"] == "/there/"
    assert "X-Secret" not in response and not response.cookies


def test_an_answer_that_the_view_compressed_is_said_to_be(line, erin, bob, monkeypatch):
    def compressed(self, request):
        return HttpResponse(gzip.compress(b"long"), headers={"Content-Encoding": "gzip"})

    answers(monkeypatch, compressed)
    answer = line.call(post, erin)
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert response["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.content) == b"long"


def test_who_repeats_the_call_between_approval_and_run_may_wait_as_well(line, erin, bob):
    assert post(erin, HTTP_PREFER="").status_code == 403
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    answer = line.call(post, erin)
    until_waiting()
    assert execution.run(row.pk)
    assert answer.result(PATIENCE).status_code == 201
    assert len(RUNS) == 1


def test_of_two_who_wait_with_the_same_call_both_hear_of_its_one_run(line, erin, bob):
    both = [line.call(post, erin) for _ in range(2)]
    until_waiting(2)
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    assert execution.run(row.pk)
    found = [each.result(PATIENCE) for each in both]
    assert [each.status_code for each in found] == [201, 201]
    assert {each["Approval-Id"] for each in found} == {str(row.pk)}
    assert len(RUNS) == 1


def test_who_can_do_with_202_waits_first(line, erin, bob):
    answer = line.call(post, erin, HTTP_PREFER="respond-async, wait=25")
    assert execution.run(services.approve(held(), by=bob).pk)
    assert answer.result(PATIENCE).status_code == 201


def test_202_on_silence_where_the_client_can_do_with_it(line, erin, bob):
    response = line.call(post, erin, HTTP_PREFER="respond-async, wait=1").result(PATIENCE)
    assert (response.status_code, response.json()["executed"]) == (202, False)
    assert response["Preference-Applied"] == "respond-async, wait=1"


def test_no_connection_is_held_between_approval_and_run(line, erin, bob):
    seen: list[bool] = []

    def call() -> Any:
        wait = waiting.wait_in_thread

        def look(*args: Any) -> bool:
            seen.append(any(c.connection for c in connections.all(initialized_only=True)))
            return wait(*args)

        waiting.wait_in_thread = look
        try:
            return post(erin)
        finally:
            waiting.wait_in_thread = wait

    answer = line.call(call)
    row = services.approve(held(), by=bob)
    until(lambda: len(seen) == 2, "it waits on")
    assert execution.run(row.pk)
    assert answer.result(PATIENCE).status_code == 201
    assert not any(seen)


# --- another end -----------------------------------------------------------------------------------------


def test_rejected_the_comment_returns_at_once(line, erin, bob):
    answer = line.call(post, erin)
    services.reject(held(), by=bob, comment="Not today")
    response = answer.result(PATIENCE)
    assert (response.json()["code"], response.json()["comment"]) == (
        "approval_rejected",
        "Not today",
    )
    assert not RUNS


def test_a_run_that_was_given_up_is_told_as_revoked(line, erin, bob):
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    services.revoke(row, by=None, comment="The server could not run it.")
    assert answer.result(PATIENCE).json()["code"] == "approval_revoked"
    assert not RUNS


def test_if_the_time_is_up_before_the_run_the_answer_is_the_usual_403(line, erin, bob):
    answer = line.call(post, erin, HTTP_PREFER="wait=2")
    row = services.approve(held(), by=bob)
    response = answer.result(PATIENCE)
    data = response.json()
    assert (response.status_code, data["code"]) == (403, "approval_pending")
    assert (data["next"], data["executed"]) == ("server_runs", False)
    assert "the server is about to run it" in data["detail"]
    assert response["Preference-Applied"] == "wait=2"
    assert (RUNS, factories.fresh(row).status) == ([], Status.APPROVED)


def test_if_the_time_is_up_during_the_run_the_answer_says_that_it_runs(line, erin, bob):
    answer = line.call(post, erin, HTTP_PREFER="wait=2")
    row = services.approve(held(), by=bob)
    services.consume(factories.fresh(row), state_digest=row.state_digest, by=row.requester)
    is_told_it_ran(answer.result(PATIENCE), "running")


def test_if_the_approval_expires_unused_the_answer_says_so(line, erin, bob):
    ApprovalPolicy.objects.update(usable_within=timedelta(seconds=1))
    answer = line.call(post, erin)
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).json()["code"] == "approval_expired"
    assert not RUNS


def test_an_end_that_nobody_knows_is_told_as_unknown(line, erin, bob):
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    services.consume(factories.fresh(row), state_digest=row.state_digest, by=row.requester)
    services.record_outcome(factories.fresh(row), outcome=Outcome.UNKNOWN)
    is_told_it_ran(answer.result(PATIENCE), "unknown")
    assert not RUNS


@pytest.mark.parametrize("why", ["no answer", "too long", "over", "altered"])
def test_an_answer_that_is_not_kept_whole_is_not_made_up(
    line, erin, bob, settings, monkeypatch, why
):
    settings.JIT_APPROVAL = ON | {
        "too long": {"MAX_RESULT_BYTES": 5},
        "over": {"RESULT_KEPT_FOR": 0},
    }.get(why, {})

    def alter(instance, **_):
        if why == "altered":
            instance.sealed = instance.sealed.swapcase()

    def broken(self, request):
        def content():
            yield b"one"
            raise RuntimeError("broken")

        return StreamingHttpResponse(content())

    if why == "no answer":
        answers(monkeypatch, broken)
    answer = line.call(post, erin)
    pre_save.connect(alter, sender=StoredAnswer)
    try:
        assert execution.run(services.approve(held(), by=bob).pk)
    finally:
        pre_save.disconnect(alter, sender=StoredAnswer)
    is_told_it_ran(answer.result(PATIENCE), "succeeded")
    assert StoredAnswer.objects.exists() is (why != "no answer")


# --- to whom ---------------------------------------------------------------------------------------------


def test_who_did_not_wait_is_told_that_it_ran(line, erin, bob):
    assert post(erin, HTTP_PREFER="").status_code == 403
    assert execution.run(services.approve(ApprovalRequest.objects.get(), by=bob).pk)
    for extra in ({}, {"HTTP_APPROVAL_ID": str(ApprovalRequest.objects.get().pk)}):
        data = post(erin, **extra).json()
        assert (data["code"], data["executed"]) == ("approval_consumed", False)
    assert len(RUNS) == 1


def test_a_credential_that_is_another_users_by_now_is_shown_nothing(line, erin, bob, monkeypatch):
    frank = factories.user("frank")

    def hand_over(self, request):
        Token.objects.update(user=frank)
        return Response({"secret": "erin's"})

    answers(monkeypatch, hand_over)
    answer = line.call(post, erin)
    assert execution.run(services.approve(held(), by=bob).pk)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert b"secret" not in response.content


def test_a_credential_that_was_withdrawn_is_shown_nothing_but_where_to_look(
    line, erin, bob, monkeypatch
):
    def withdraw(self, request):
        Token.objects.all().delete()
        return Response({"secret": "erin's"})

    answers(monkeypatch, withdraw)
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    assert execution.run(row.pk)
    response = answer.result(PATIENCE)
    assert response.status_code == 401
    assert b"secret" not in response.content
    assert response["Approval-Id"] == str(row.pk)
    assert response["Link"] == f'</approvals/{row.pk}/>; rel="status"'
    assert APIClient().get(f"/approvals/{row.pk}/result/").status_code in (401, 403)


def test_another_user_with_the_same_call_waits_for_an_approval_of_their_own(line, erin, bob):
    answer = line.call(post, erin)
    row = held()
    frank = client(Token.objects.create(user=factories.user("frank")).key)
    other = line.call(post, frank)
    until_waiting(2)
    assert execution.run(services.approve(row, by=bob).pk)
    assert answer.result(PATIENCE).status_code == 201
    with pytest.raises(TimeoutError):
        other.result(0.3)
    services.reject(ApprovalRequest.objects.get(requester__username="frank"), by=bob)
    assert other.result(PATIENCE).json()["code"] == "approval_rejected"
    assert len(RUNS) == 1

"""`Prefer: wait=N` on a gated call: kept on the line until it is decided, then made again inside the server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as project
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.urls import path, resolve
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authtoken.models import Token

from jit_approval import repeating, services, waiting
from jit_approval.decorators import requires_approval
from jit_approval.handlers import ATOMIC_MARK
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome, Status
from tests import factories, urls
from tests.lines import MIDDLEWARE, PATIENCE, client, lines, until_waiting
from tests.testapp.models import Customer
from tests.testapp.views import RUNS, TransferView

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]
URL = "/api/transfers/"


@requires_approval
def plain(request):
    """Of Django's own kind."""
    RUNS.append("plain")
    return HttpResponse("done")


def outer(request):
    """A view that does something, and then asks one that is gated."""
    RUNS.append("outer")
    return TransferView.as_view()(request)


urlpatterns = [*urls.urlpatterns, path("plain/", plain), path("outer/", csrf_exempt(outer))]


@pytest.fixture(autouse=True)
def _on(settings):
    settings.MIDDLEWARE = [MIDDLEWARE, *project.MIDDLEWARE]
    settings.JIT_APPROVAL = {"MAX_WAIT": 60}
    RUNS.clear()


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


def held(**where: Any) -> ApprovalRequest:
    until_waiting()
    return ApprovalRequest.objects.get(**where)


def post(client, amount=5, **extra):
    return client.post(URL, {"amount": amount}, format="json", **extra)


# --- what becomes of who waits ----------------------------------------------------------------------------


def test_approved_the_call_runs_once_and_its_own_answer_returns(line, erin, bob):
    answer = line.call(post, erin)
    row = services.approve(held(), by=bob)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()) == (201, {"moved": True})
    assert response["Preference-Applied"] == "wait=25"
    assert (response["Approval-Id"], response["Approval-Status"]) == (str(row.pk), "consumed")
    assert RUNS == [("transfer", {"amount": 5})]
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert ApprovalRequest.objects.count() == 1
    assert waiting.waiters() == 0


def test_rejected_the_comment_returns_at_once(line, erin, bob):
    answer = line.call(post, erin)
    services.reject(held(), by=bob, comment="Not today")
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()["code"]) == (403, "approval_rejected")
    assert response.json()["comment"] == "Not today"
    assert response["Preference-Applied"] == "wait=25"
    assert not RUNS


def test_withdrawn_meanwhile_nothing_is_opened_anew(line, erin, bob):
    answer = line.call(post, erin)
    row = held()
    services.cancel(row, by=row.requester)
    assert answer.result(PATIENCE).json()["code"] == "approval_cancelled"
    assert ApprovalRequest.objects.count() == 1


def test_at_the_deadline_the_answer_is_expired_and_nothing_is_opened_anew(line, erin, settings):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60, "DECIDE_WITHIN": 1}
    response = line.call(post, erin).result(PATIENCE)
    assert response.json()["code"] == "approval_expired"
    assert ApprovalRequest.objects.get().status == Status.EXPIRED


def test_on_silence_the_usual_403_returns_as_it_is_now(line, erin):
    response = line.call(post, erin, HTTP_PREFER="wait=1").result(PATIENCE)
    body = response.json()
    assert (response.status_code, body["code"]) == (403, "approval_pending")
    assert response["Retry-After"] == "5"
    assert body["expires_in"] < 900
    assert (response["Preference-Applied"], ApprovalRequest.objects.count()) == ("wait=1", 1)


def test_a_repeat_may_wait_as_well_as_the_first_call(line, erin, bob):
    assert post(erin, HTTP_PREFER="").status_code == 403
    answer = line.call(post, erin)
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).status_code == 201


def test_a_vote_that_is_not_the_last_leaves_the_caller_waiting(line, erin, bob, settings):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60, "REQUIRED_APPROVALS": 2}
    carol = factories.decider("carol")
    answer = line.call(post, erin)
    row = held()
    services.approve(row, by=bob)
    services.approve(row, by=carol)
    assert answer.result(PATIENCE).status_code == 201


def test_of_two_who_wait_with_the_same_call_one_runs(line, erin, bob):
    answers = [line.call(post, erin) for _ in range(2)]
    until_waiting(2)
    services.approve(ApprovalRequest.objects.get(), by=bob)
    codes = sorted(answer.result(PATIENCE).status_code for answer in answers)
    assert codes == [201, 403]
    assert len(RUNS) == 1


def test_where_the_approval_must_be_named_the_line_names_it(line, erin, bob):
    factories.policy(require_approval_id=True)
    answer = line.call(post, erin)
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).status_code == 201


def test_an_object_that_changed_meanwhile_voids_the_approval(line, erin, bob):
    customer = Customer.objects.create(name="Ada")
    answer = line.call(erin.delete, f"/api/customers/{customer.pk}/")
    row = held()
    Customer.objects.filter(pk=customer.pk).update(name="Bea")
    services.approve(row, by=bob)
    assert answer.result(PATIENCE).json()["code"] == "approval_stale"
    assert Customer.objects.filter(pk=customer.pk).exists()


def test_who_lost_the_account_meanwhile_is_refused(line, erin, bob):
    answer = line.call(post, erin)
    row = held()
    row.requester.auth_token.delete()
    services.approve(row, by=bob)
    assert answer.result(PATIENCE).status_code == 401
    assert not RUNS


def test_an_uploaded_file_is_there_to_be_read_again(line, erin, bob):
    data = {"amount": "5", "slip": SimpleUploadedFile("slip.txt", b"one\r\ntwo")}
    answer = line.call(erin.post, URL, data, format="multipart")
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).status_code == 201
    ((_, seen),) = RUNS
    assert seen["slip"].name == "slip.txt"


def test_a_plain_django_view_waits_as_well(line, bob):
    browser = Client(HTTP_PREFER="wait=25", **{"wsgi.multithread": True})
    browser.force_login(factories.user("erin"))
    answer = line.call(browser.post, "/plain/")
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).content == b"done"
    assert RUNS == ["plain"]


# --- who may wait -----------------------------------------------------------------------------------------


def at_once(response) -> None:
    assert (response.status_code, response.json()["code"]) == (403, "approval_pending")
    assert "Preference-Applied" not in response
    assert response["Retry-After"] == "5"


def test_nobody_waits_unless_the_setting_lets_them(erin, settings):
    settings.JIT_APPROVAL = {}
    at_once(post(erin))


def test_nobody_waits_where_the_policy_says_so(erin):
    factories.policy(max_wait=timedelta(0))
    at_once(post(erin))


def test_the_policy_shortens_the_wait(line, erin):
    factories.policy(max_wait=timedelta(seconds=1))
    response = line.call(post, erin).result(PATIENCE)
    assert response.json()["code"] == "approval_pending"
    assert response["Preference-Applied"] == "wait=25"


@pytest.mark.parametrize("text", ["", "wait", "wait=", "wait=0", "wait=-1", "wait=x", "wait=1e3"])
def test_nobody_waits_without_a_time(erin, text):
    at_once(post(erin, HTTP_PREFER=text))


def test_nobody_waits_in_a_worker_that_serves_one_at_a_time(erin, caplog, monkeypatch):
    monkeypatch.setattr(waiting, "_warned", False)
    at_once(post(erin, **{"wsgi.multithread": False}))
    assert "one request at a time" in caplog.text


def test_nobody_waits_under_atomic_requests(erin, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "jit_approval.middleware.GateBeforeTransaction"]
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    try:
        at_once(post(erin))
    finally:
        connections.settings["default"]["ATOMIC_REQUESTS"] = False
        for name in (ATOMIC_MARK, "_non_atomic_requests"):
            delattr(resolve(URL).func, name)


def test_nobody_waits_where_who_they_are_could_not_be_asked_again(erin, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[1:], MIDDLEWARE]
    at_once(post(erin))


def test_a_call_that_cannot_be_kept_does_not_wait(erin, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 4
    response = erin.post(
        URL, {"slip": SimpleUploadedFile("slip.txt", b"longer")}, format="multipart"
    )
    at_once(response)


def test_who_is_one_too_many_is_answered_at_once(line, erin, bob, settings):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60, "MAX_WAITERS_PER_REQUESTER": 1}
    first = line.call(post, erin)
    row = held()
    at_once(post(erin, amount=6))
    frank = client(Token.objects.create(user=factories.user("frank")).key)
    other = line.call(post, frank)
    until_waiting(2)
    for each in ApprovalRequest.objects.filter(pk__in=[row.pk]) | ApprovalRequest.objects.filter(
        requester__username="frank"
    ):
        services.approve(each, by=bob)
    assert [each.result(PATIENCE).status_code for each in (first, other)] == [201, 201]


@pytest.mark.parametrize("name", ["MAX_WAITERS", "MAX_THREAD_WAITERS"])
def test_the_process_has_so_many_seats(line, erin, bob, settings, name):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60, name: 1}
    first = line.call(post, erin)
    row = held()
    frank = client(Token.objects.create(user=factories.user("frank")).key)
    at_once(post(frank))
    services.approve(row, by=bob)
    assert first.result(PATIENCE).status_code == 201


def test_no_connection_is_held_while_somebody_waits(line, erin, bob):
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
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).status_code == 201
    assert seen == [False]


def test_a_view_that_asks_another_is_not_made_to_do_its_work_twice(erin):
    at_once(erin.post("/outer/", {"amount": 5}, format="json"))
    assert RUNS == ["outer"]


# --- what is repeated -------------------------------------------------------------------------------------


def test_a_throttle_counts_the_call_once(line, erin, bob, monkeypatch):
    from rest_framework.throttling import BaseThrottle

    from tests.testapp.views import TransferView

    counted: list[int] = []

    class Counts(BaseThrottle):
        def allow_request(self, request, view):
            counted.append(1)
            return True

    monkeypatch.setattr(TransferView, "throttle_classes", (Counts,))
    answer = line.call(post, erin)
    services.approve(held(), by=bob)
    assert answer.result(PATIENCE).status_code == 201
    assert len(counted) == 1


@pytest.mark.urls("tests.testapp.odd_urls")
def test_no_header_makes_a_call_a_repeat(rf):
    request = rf.post("/", HTTP_X_JIT_APPROVAL_REPEAT="1", _jit_approval_repeat="1")
    assert not repeating.is_repeat(request)

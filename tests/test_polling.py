"""The status of one request by long poll, and by those who look too often."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.conf import settings as project
from django.test import Client
from rest_framework.authtoken.models import Token

from jit_approval import services, waiting
from jit_approval.api import polling
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome
from tests import factories
from tests.lines import MIDDLEWARE, PATIENCE, client, lines, until_waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _on(settings):
    settings.MIDDLEWARE = [MIDDLEWARE, *project.MIDDLEWARE]
    settings.JIT_APPROVAL = {"MAX_WAIT": 60}
    polling._looks._last.clear()


@pytest.fixture
def line():
    with lines() as made:
        yield made


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def row(bob) -> ApprovalRequest:
    return factories.held(factories.user("erin"))


@pytest.fixture
def erin(row):
    return client(Token.objects.create(user=row.requester).key)


@pytest.fixture
def url(row) -> str:
    return f"/approvals/{row.pk}/"


def tag(erin, url) -> dict[str, str]:
    """What makes the next look a long poll."""
    found = erin.get(url)
    assert found.status_code == 200
    polling._looks._last.clear()
    return {"If-None-Match": found["ETag"]}


def test_news_arrives_when_there_is_some(line, erin, url, row, bob):
    answer = line.call(erin.get, url, headers=tag(erin, url))
    until_waiting()
    services.approve(row, by=bob)
    response = answer.result(PATIENCE)
    assert (response.status_code, response.json()["status"]) == (200, "approved")
    assert response["Preference-Applied"] == "wait=25"
    assert waiting.waiters() == 0


def test_a_vote_is_news(line, erin, row, bob):
    factories.decider("carol")
    row = factories.held(row.requester, body=b"2", terms={"required_approvals": 2})
    url = f"/approvals/{row.pk}/"
    answer = line.call(erin.get, url, headers=tag(erin, url))
    until_waiting()
    services.approve(row, by=bob)
    assert answer.result(PATIENCE).json()["approvals_given"] == 1


def test_so_is_how_the_run_ended(line, erin, url, row, bob):
    services.approve(row, by=bob)
    spent = services.consume(factories.fresh(row), state_digest=row.state_digest)
    answer = line.call(erin.get, url, headers=tag(erin, url))
    until_waiting()
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED)
    assert answer.result(PATIENCE).json()["outcome"] == "succeeded"


def test_a_deadline_that_passes_is_news_though_nobody_recorded_it(line, erin, url, row):
    known = tag(erin, url)
    soon = factories.fresh(row).now + polling.conf.MIN_WINDOW
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=soon)
    response = line.call(erin.get, url, headers=known).result(PATIENCE)
    assert (response.status_code, response.json()["status"]) == (200, "expired")


def test_silence_is_304(line, erin, url):
    known = tag(erin, url)
    response = line.call(erin.get, url, headers={**known, "Prefer": "wait=1"}).result(PATIENCE)
    assert (response.status_code, response.content) == (304, b"")
    assert (response["ETag"], response["Preference-Applied"]) == (known["If-None-Match"], "wait=1")


@pytest.mark.parametrize("known", [{}, {"If-None-Match": 'W/"0-other"'}])
def test_who_knows_less_is_told_at_once(erin, url, known):
    response = erin.get(url, headers=known)
    assert (response.status_code, "Preference-Applied" in response) == (200, False)


def test_a_strong_tag_a_proxy_made_of_it_will_do(erin, url):
    known = tag(erin, url)["If-None-Match"].removeprefix("W/")
    response = erin.get(url, headers={"If-None-Match": f'"x", {known}', "Prefer": ""})
    assert response.status_code == 304


def test_what_is_over_is_not_waited_for(erin, url, row, bob):
    services.reject(row, by=bob)
    response = erin.get(url, headers=tag(erin, url))
    assert (response.status_code, "Preference-Applied" in response) == (304, False)


def test_to_others_it_does_not_exist_however_long_they_wait(row, url):
    frank = client(Token.objects.create(user=factories.user("frank")).key)
    response = frank.get(url, headers={"If-None-Match": 'W/"1-pending-wait"'})
    assert response.status_code == 404
    assert "ETag" not in response


def test_who_lost_the_token_meanwhile_is_told_nothing(line, erin, url, row, bob):
    answer = line.call(erin.get, url, headers=tag(erin, url))
    until_waiting()
    Token.objects.all().delete()
    services.approve(row, by=bob)
    assert answer.result(PATIENCE).status_code == 401


@pytest.mark.parametrize("ends", ["session", "account"])
def test_who_was_logged_out_meanwhile_is_told_nothing(line, url, row, bob, ends):
    browser = Client(HTTP_PREFER="wait=25", **{"wsgi.multithread": True})
    browser.force_login(row.requester)
    answer = line.call(browser.get, url, headers=tag(browser, url))
    until_waiting()
    if ends == "session":
        sessions = import_module(project.SESSION_ENGINE).SessionStore
        sessions(browser.cookies[project.SESSION_COOKIE_NAME].value).flush()
    else:
        type(row.requester).objects.filter(pk=row.requester.pk).update(is_active=False)
    services.approve(row, by=bob)
    assert answer.result(PATIENCE).status_code in (401, 403)


def test_a_worker_without_threads_answers_at_once(erin, url):
    known = tag(erin, url)
    response = erin.get(url, headers=known, **{"wsgi.multithread": False})
    assert (response.status_code, "Preference-Applied" in response) == (304, False)


def test_one_too_many_is_answered_at_once(line, erin, url, row, bob, settings):
    settings.JIT_APPROVAL = {"MAX_WAIT": 60, "MAX_WAITERS_PER_REQUESTER": 1}
    known = tag(erin, url)
    first = line.call(erin.get, url, headers=known)
    until_waiting()
    assert erin.get(url, headers=known).status_code == 304
    services.approve(row, by=bob)
    assert first.result(PATIENCE).status_code == 200


# --- who looks too often ----------------------------------------------------------------------------------


def look(erin, url, **headers):
    return erin.get(url, headers={"Prefer": "", **headers})


def test_looking_again_within_the_interval_is_429(erin, url):
    assert look(erin, url).status_code == 200
    response = look(erin, url)
    assert (response.status_code, response["Content-Type"]) == (429, "application/problem+json")
    assert response["Retry-After"] == "5"
    body = response.json()
    assert (body["code"], body["type"]) == ("slow_down", "urn:jit-approval:slow-down")
    assert (body["executed"], body["retryable"], body["interval"]) == (False, True, 5)


def test_news_is_never_too_soon(erin, url, row, bob):
    look(erin, url)
    services.approve(row, by=bob)
    assert look(erin, url).json()["status"] == "approved"


def test_a_long_poll_is_never_too_soon(line, erin, url):
    known = tag(erin, url)
    for _ in range(2):
        answer = line.call(erin.get, url, headers={**known, "Prefer": "wait=1"})
        assert answer.result(PATIENCE).status_code == 304


def test_another_request_and_another_reader_are_not_in_the_way(erin, url, bob):
    look(erin, url)
    other = factories.held(ApprovalRequest.objects.get().requester)
    assert look(erin, f"/approvals/{other.pk}/").status_code == 200
    reader = client(Token.objects.create(user=bob).key)
    assert [look(reader, url).status_code for _ in range(2)] == [200, 200]


def test_looks_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(polling, "_MANY", 2)
    looks = polling._Looks()
    assert not any(looks.too_soon(key, "x") for key in "abc")
    assert looks.too_soon("c", "x")
    assert not looks.too_soon("a", "x")

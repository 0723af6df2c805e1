"""Each event is told on the path that brings it about, to whom it concerns, in words that are true."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import mail
from django.test import override_settings
from rest_framework.test import APIClient

from jit_approval import services, tasks
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.states import Outcome
from tests import factories
from tests.test_escalating import climb, held, pass_time

pytestmark = pytest.mark.django_db(transaction=True)
Event = Notification.Event
URL = "/api/transfers/"


@pytest.fixture
def people() -> dict[str, Any]:
    """Two deciders and a requester."""
    made = {name: factories.decider(name) for name in ("bob", "carol")}
    return {**made, "erin": factories.user("erin")}


@pytest.fixture
def erin(people) -> APIClient:
    client = APIClient()
    client.force_authenticate(people["erin"])
    return client


def call(erin: APIClient) -> ApprovalRequest:
    erin.post(URL, {"amount": 1})
    return ApprovalRequest.objects.latest("created_at")


def news() -> dict[str, str]:
    """Send all that waits; return the subject that each was told since the last time."""
    mail.outbox.clear()
    for _ in range(2):  # what is handed on to tasks of its own, too
        rows = Notification.objects.filter(state=Notification.State.WAITING).order_by("id")
        for pk in list(rows.values_list("pk", flat=True)):
            tasks.deliver(pk)
    told: dict[str, str] = {}
    for message in mail.outbox:
        for address in message.to:
            name = address.partition("@")[0]
            assert name not in told, f"{name} was told twice"
            told[name] = message.subject
    return told


def begins(told: dict[str, str]) -> dict[str, str]:
    return {name: subject.partition(":")[0] for name, subject in told.items()}


def test_held_and_reminder(people, erin) -> None:
    row = call(erin)
    assert begins(news()) == dict.fromkeys(("bob", "carol"), "Approval needed")
    pass_time_of(row, 55)
    assert begins(news()) == dict.fromkeys(("bob", "carol"), "Still waiting for approval")


def pass_time_of(row: ApprovalRequest, share: int) -> None:
    """The window of the settings is 15 minutes; `pass_time` counts in windows of ten."""
    pass_time(row, share * 1.5)
    climb()


def test_approved_is_told_to_requester_and_handled_by_whom_to_who_was_told(people, erin) -> None:
    row = call(erin)
    news()
    services.approve(row, by=people["bob"])
    assert begins(news()) == {"erin": "Approved", "carol": "Already handled by bob"}


def test_rejected_is_told_with_the_name_of_who_rejected(people, erin) -> None:
    row = call(erin)
    news()
    services.reject(row, by=people["carol"], comment="not tonight")
    assert begins(news()) == {"erin": "Rejected", "bob": "Already handled by carol"}
    assert all("not tonight" in message.body for message in mail.outbox)


def test_expiring_soon_and_expired_say_that_nobody_decided(people, erin) -> None:
    row = call(erin)
    news()
    pass_time_of(row, 55)
    news()
    pass_time_of(row, 30)
    assert begins(news()) == dict.fromkeys(("bob", "carol"), "Not decided yet")
    pass_time_of(row, 30)
    tasks.sweep()
    assert begins(news()) == {"erin": "Not decided in time"}
    assert "It was not rejected; it has not run." in mail.outbox[0].body


def test_unused_approval_is_announced_and_its_end_told(people, erin) -> None:
    row = call(erin)
    services.approve(row, by=people["bob"])
    news()
    pass_time(row, 45)
    climb()
    assert begins(news()) == {"erin": "Approval not used yet"}
    pass_time(row, 10)
    tasks.sweep()
    assert begins(news()) == {"erin": "Approval not used in time"}
    assert erin.post(URL, {"amount": 1}).status_code == 403


def test_revoked_is_told_to_requester_and_to_who_approved(people, erin) -> None:
    row = call(erin)
    services.approve(row, by=people["bob"])
    news()
    services.revoke(row, by=people["carol"], comment="wrong account")
    assert begins(news()) == dict.fromkeys(("erin", "bob"), "Approval taken back")
    assert all("carol: wrong account" in message.body for message in mail.outbox)


def test_who_takes_back_what_is_theirs_is_not_told_so(people, erin) -> None:
    row = call(erin)
    services.approve(row, by=people["bob"])
    news()
    services.revoke(row, by=people["bob"])
    assert begins(news()) == {"erin": "Approval taken back"}
    row = held(None, people["erin"])
    services.approve(row, by=people["bob"])
    news()
    services.revoke(row, by=people["erin"])
    assert begins(news()) == {"bob": "Approval taken back"}


def test_withdrawn_is_told_to_those_who_were_asked(people, erin) -> None:
    row = call(erin)
    news()
    services.cancel(row, by=people["erin"])
    assert begins(news()) == dict.fromkeys(("bob", "carol"), "Withdrawn")
    assert "nothing left to decide" in mail.outbox[0].body


def test_superseded_is_told_to_the_requester_too(people) -> None:
    row = held(None, people["erin"])
    news()
    services.cancel(row, by=None, comment="The object has changed.")
    assert begins(news()) == dict.fromkeys(("bob", "carol", "erin"), "Withdrawn")


def test_how_it_ran_is_told_to_requester_and_to_who_approved(people, erin) -> None:
    row = call(erin)
    services.approve(row, by=people["bob"])
    news()
    assert erin.post(URL, {"amount": 1}).status_code == 201
    assert not news()  # the run itself does not pay for it
    climb()
    assert begins(news()) == dict.fromkeys(("erin", "bob"), "Ran")
    climb()
    assert not news()


def test_run_that_failed_is_told_as_failed(people) -> None:
    row = held(None, people["erin"])
    services.approve(row, by=people["bob"])
    news()
    row = factories.fresh(row)
    services.consume(row, state_digest=factories.STATE)
    services.record_outcome(factories.fresh(row), outcome=Outcome.FAILED, exception="ValueError")
    climb()
    assert begins(news()) == dict.fromkeys(("erin", "bob"), "Ran and failed")


def test_run_without_an_end_is_told_as_unknown_and_never_run_again(people, erin) -> None:
    row = call(erin)
    services.approve(row, by=people["bob"])
    news()
    row = factories.fresh(row)
    services.consume(row, state_digest=row.state_digest)
    pass_time(row, 200)
    tasks.sweep()
    assert begins(news()) == dict.fromkeys(("bob", "carol", "erin"), "Outcome unknown")
    repeated = erin.post(URL, {"amount": 1})
    assert (repeated.status_code, repeated.json()["code"]) == (403, "approval_consumed")


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_unavailable_is_told_to_the_fallback(erin, people) -> None:
    for name in ("bob", "carol"):
        people[name].user_permissions.clear()
    assert erin.post(URL, {"amount": 1}).json()["code"] == "approval_unavailable"
    assert begins(news()) == {"last": "Nobody can decide"}


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_unavailable_while_it_waits_is_told_to_the_fallback(erin, people) -> None:
    call(erin)
    news()
    for name in ("bob", "carol"):
        people[name].user_permissions.clear()
    climb()
    assert begins(news()) == {"last": "Nobody can decide"}

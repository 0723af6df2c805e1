"""What an event says: who, from where, what, why, under which terms; and that nobody guesses it from its hash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest, AuditEvent, Notification
from jit_approval.notifications import delivery
from tests import factories, mailers

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/transfers/"


def bodies(kind: str) -> list[dict[str, Any]]:
    return [json.loads(event.body) for event in AuditEvent.objects.filter(kind=kind).order_by("pk")]


def client(user: Any) -> APIClient:
    made = APIClient(headers={"User-Agent": "curl/8"}, REMOTE_ADDR="192.0.2.7")
    made.force_login(user)
    return made


def test_events_of_a_call_say_who_from_where_what_why_and_under_which_terms() -> None:
    bob, erin = factories.decider("bob"), factories.user("erin")
    factories.policy(slug="money", required_approvals=1)
    client(erin).post(URL, {"amount": 1}, headers={"Approval-Reason": "GDPR 811"})
    row = ApprovalRequest.objects.get()
    client(bob).post(f"/approvals/{row.pk}/approve/", {"comment": "fine"}, format="json")
    client(erin).post(URL, {"amount": 1}, headers={"Approval-Reason": "GDPR 811"})
    (held,), (approved,), (consumed,) = bodies("held"), bodies("approved"), bodies("consumed")
    for body, user in ((held, erin), (approved, bob), (consumed, erin)):
        assert body["by"]["label"] == user.get_username()
        assert body["by"]["person"] == f"account {user.pk}" or body["by"]["person"] == str(user.pk)
        assert (body["by"]["ip"], body["by"]["user_agent"]) == ("192.0.2.7", "curl/8")
        assert body["by"]["credential"] == "rest_framework.authentication.SessionAuthentication"
    said = held["data"]
    assert (said["action"], said["fingerprint"]) == ("transfer.post", row.fingerprint)
    assert (said["method"], said["path"], said["reason"]) == ("POST", URL, "GDPR 811")
    assert (said["terms"]["policy_slug"], said["terms"]["policy_version"]) == ("money", 1)
    assert approved["data"]["comment"] == "fine"
    assert {body["at"] for body in bodies("outcome")} == {
        event.at.isoformat(timespec="microseconds")
        for event in AuditEvent.objects.filter(kind="outcome")
    }


def test_like_events_have_different_hashes_that_nobody_can_guess() -> None:
    factories.decider("bob")
    row = factories.held(factories.user("erin"))
    event = AuditEvent.objects.get(approval_request=row)
    assert len(json.loads(event.body)["salt"]) == 32
    salts = {json.loads(each.body)["salt"] for each in AuditEvent.objects.all()}
    assert len(salts) == AuditEvent.objects.count()


def test_a_message_that_was_sent_or_given_up_has_an_event(settings: Any) -> None:
    factories.decider("bob")
    row = factories.held()
    outbox = Notification.objects.get(approval_request=row, recipient="")
    delivery.deliver(outbox.pk)
    (sent,) = bodies("message_sent")
    assert sent["data"]["request_id"] == str(row.pk)
    assert sent["data"]["address"] == "bob@example.test"
    for name, value in mailers.using("tests.mailers.Refusing").items():
        setattr(settings, name, value)
    factories.decider("broken")
    second = factories.held()
    outbox = Notification.objects.get(approval_request=second, recipient="")
    delivery.deliver(outbox.pk)
    Notification.objects.filter(state=Notification.State.WAITING).update(
        attempts=delivery.MAX_ATTEMPTS, next_attempt_at=outbox.created_at
    )
    delivery.close_pointless()
    (failed,) = bodies("message_failed")
    assert failed["data"]["request_id"] == str(second.pk)


def test_a_message_is_no_obstacle_to_the_call_it_is_about() -> None:
    """Its event is no part of the request's chain, whose head every move compares."""
    bob = factories.decider("bob")
    row = factories.held()
    read = factories.fresh(row)
    delivery.deliver(Notification.objects.get(approval_request=row, recipient="").pk)
    services.approve(read, by=bob)
    assert factories.fresh(row).audit_seq == 2

"""What an event says: who, from where, what, why, under which terms; and that nobody guesses it from its hash."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from rest_framework.test import APIClient

from jit_approval import policy_changes, services
from jit_approval.models import ApprovalRequest, AuditEvent, Delegation, Notification
from jit_approval.notifications import delivery
from jit_approval.persons import person_of
from jit_approval.states import Outcome
from tests import factories, mailers
from tests.test_admin_delegation import form as delegation_form
from tests.test_admin_inbox import page
from tests.test_admin_policy import form as policy_form

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/transfers/"
BACKEND = "django.contrib.auth.backends.ModelBackend"


def bodies(kind: str) -> list[dict[str, Any]]:
    return [opened(event) for event in AuditEvent.objects.filter(kind=kind).order_by("pk")]


def opened(event: AuditEvent) -> dict[str, Any]:
    """The body, with what it only commits to in its place."""
    body = json.loads(event.body)
    assert body["v"] == 2
    if event.origin:
        assert body["by"].pop("origin") == hashlib.sha256(event.origin.encode()).hexdigest()
        said = json.loads(event.origin)
        assert len(said.pop("salt")) == 32
        assert not any(text and text in event.body for text in said.values())
        body["by"] |= said
    return body


def client(user: Any) -> APIClient:
    made = APIClient(headers={"User-Agent": "curl/8"}, REMOTE_ADDR="192.0.2.7")
    made.force_login(user)
    return made


def browser(user: Any) -> Client:
    made = Client(headers={"User-Agent": "curl/8"}, REMOTE_ADDR="192.0.2.7")
    made.force_login(user, backend=BACKEND)
    return made


def from_browser(user: Any) -> dict[str, str]:
    return {
        "pk": str(user.pk),
        "label": user.get_username(),
        "person": person_of(user),
        "credential": BACKEND,
        "ip": "192.0.2.7",
        "user_agent": "curl/8",
    }


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


def test_a_delegation_and_its_end_say_who_from_where() -> None:
    alice = factories.decider("alice", is_staff=True)
    factories.user("bob")
    data = delegation_form("bob")
    browser(alice).post("/admin/jit_approval/delegation/add/", data)
    made = Delegation.objects.get()
    browser(alice).post(f"/admin/jit_approval/delegation/{made.pk}/end/")
    for kind in ("delegated", "delegation_ended"):
        (body,) = bodies(kind)
        assert body["by"] == from_browser(alice)


def test_a_change_of_policies_says_who_from_where() -> None:
    policy = factories.policy(slug="money")
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    browser(chief).post(
        f"/admin/jit_approval/approvalpolicy/{policy.pk}/change/", policy_form(slug="money")
    )
    assert bodies("policy_changed")[-1]["by"] == from_browser(chief)
    page = f"/admin/jit_approval/approvalpolicy/{policy.pk}/delete/"
    browser(chief).post(page, {"post": "yes"})
    (deleted,) = bodies("policy_deleted")
    assert deleted["by"] == from_browser(chief)


def test_a_gated_change_of_policies_says_where_it_was_proposed(settings: Any) -> None:
    policy = factories.policy(slug="money")
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "GATE_POLICY_CHANGES": True}
    factories.decider("bob", is_superuser=True)
    chief = factories.user("chief", is_staff=True, is_superuser=True)
    browser(chief).post(
        f"/admin/jit_approval/approvalpolicy/{policy.pk}/change/", policy_form(slug="money")
    )
    row = ApprovalRequest.objects.get()
    services.approve(row, by=type(chief).objects.get(username="bob"))
    policy_changes.make(row)
    (held,), made = bodies("held"), bodies("policy_changed")[-1]
    assert held["by"] == made["by"] == from_browser(chief)


def test_a_command_says_that_it_was_one(tmp_path: Path) -> None:
    chief = factories.user("chief", is_superuser=True)
    file = tmp_path / "policies.toml"
    factories.policy(slug="money", name="Cash")
    call_command("approval_policies", "export", output=str(file))
    for options, who in (({}, {}), ({"author": "chief"}, {"person": person_of(chief)})):
        file.write_text(file.read_text().replace("Cash", "Cash!"))
        call_command("approval_policies", "apply", str(file), stdout=StringIO(), **options)
        by = bodies("policy_changed")[-1]["by"]
        assert {name: by[name] for name in by if name not in ("pk", "label")} == {
            "credential": "command",
            **who,
        }


def test_who_withdraws_takes_back_or_settles_is_known_as_a_person_from_somewhere() -> None:
    bob, erin = factories.decider("bob", is_staff=True), factories.user("erin")
    cancelled = factories.held(erin)
    client(erin).post(f"/approvals/{cancelled.pk}/cancel/")
    revoked = []
    for user in (bob, erin):
        revoked.append(services.approve(factories.held(erin), by=bob))
        client(user).post(f"/approvals/{revoked[-1].pk}/revoke/")
    spent = services.approve(factories.held(erin), by=bob)
    services.consume(factories.fresh(spent), state_digest=factories.STATE)
    services.record_outcome(factories.fresh(spent), outcome=Outcome.UNKNOWN)
    browser(bob).post(page(spent), {"verdict": "ran"})
    found = [(b["by"], who) for b, who in zip(bodies("revoked"), (bob, erin), strict=True)]
    found += [(bodies("cancelled")[0]["by"], erin), (bodies("settled")[0]["by"], bob)]
    for by, user in found:
        assert (by["label"], by["person"]) == (user.get_username(), person_of(user))
        assert (by["ip"], by["user_agent"]) == ("192.0.2.7", "curl/8")
        assert by["credential"]

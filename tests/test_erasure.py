"""Erasing takes contents and personal data away, by authority, for good; the trail is verified all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test import override_settings

from jit_approval import appendonly, clock, erasure, services
from jit_approval.audit import chain, checking, folder, keys, live, notes, seal, shown
from jit_approval.audit.findings import Kind
from jit_approval.audit.verify import as_text
from jit_approval.calls import Origin
from jit_approval.exceptions import RequestRewritten, SelfApprovalForbidden
from jit_approval.models import ApprovalRequest, AuditEvent, Decision, Notification
from jit_approval.notifications import delivery
from jit_approval.persons import person_of
from jit_approval.states import Outcome, Status
from tests import audit_checker, factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate("approvals.example/trail", tmp_path / "trail.key")
    (tmp_path / "export").mkdir()
    settings = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}
    settings["AUDIT_EXPORT_DIR"] = str(tmp_path / "export")
    appendonly.install(connection)
    with override_settings(JIT_APPROVAL=settings):
        yield public
    appendonly.uninstall(connection)


@pytest.fixture
def alice() -> Any:
    made = factories.user("alice")
    made.user_permissions.add(Permission.objects.get(codename="erase_auditevent"))
    return made


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


def ran(requester: Any, bob: Any, **shown: Any) -> ApprovalRequest:
    row = factories.held(requester, **shown)
    delivery.deliver(Notification.objects.get(approval_request=row, event="held", recipient="").pk)
    origin = Origin(ip=f"2001:db8::{bob.pk}", user_agent="Bob's browser")
    services.approve(row, by=bob, comment=f"for {requester}", origin=origin)
    spent = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED, elapsed=timedelta(0))
    return row


def run(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("approval_audit", *arguments, stdout=out, stderr=out)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def everything() -> str:
    """All that the tables of the trail, and beside it, hold."""
    models = (AuditEvent, ApprovalRequest, Decision, Notification)
    return json.dumps([list(model.objects.values()) for model in models], default=str)


def test_of_an_erased_person_nothing_is_left_and_the_trail_is_verified(
    key: notes.Verifier, alice: Any, bob: Any, tmp_path: Path
) -> None:
    erin, frank = factories.user("erin"), factories.user("frank")
    gone = ran(erin, bob, ip="192.0.2.9", payload="erin's tabby", reason="my tabby died")
    kept = ran(frank, bob, reason="frank said")
    hashes = list(AuditEvent.objects.order_by("pk").values_list("hash", flat=True))
    status, said = run("erase", "--subject", "erin", "--as", "alice", "--reason", "GDPR 811")
    assert status == 0, said
    left = everything()
    for word in ("erin", "tabby", "192.0.2.9"):
        assert word not in left, left[max(0, left.index(word) - 300) :][:400]
    assert "frank said" in left
    assert AuditEvent.objects.filter(approval_request=kept).exclude(origin="").count() == 1
    assert not AuditEvent.objects.filter(body="").exclude(origin="").exists()
    assert list(AuditEvent.objects.order_by("pk").values_list("hash", flat=True))[:-1] == hashes
    act = AuditEvent.objects.get(kind="erased")
    body = json.loads(act.body)
    assert (body["by"]["label"], body["data"]["reason"]) == ("alice", "GDPR 811")
    assert (body["by"]["credential"], body["by"]["person"]) == ("command", person_of(alice))
    report = live.verify([key])
    assert (report.status(), report.findings) == (0, [])
    emptied = AuditEvent.objects.filter(body="").count()
    assert report.erased == emptied == body["data"]["events"] == 4
    row = ApprovalRequest.objects.get(pk=gone.pk)
    assert (row.status, row.outcome, row.requester) == (Status.CONSUMED, Outcome.SUCCEEDED, None)
    assert AuditEvent.objects.filter(approval_request=kept, body="").count() == 0
    # What was exported before keeps its contents; the signed trail allows it to lose them.
    export = folder.Folder(tmp_path / "export")
    assert checking.verify(export.events(), export.statements(), [key]).status() == 0


def test_an_export_made_after_is_verified_by_both_verifiers(
    key: notes.Verifier, alice: Any, bob: Any, tmp_path: Path, settings: Any
) -> None:
    ran(factories.user("erin"), bob)
    run("erase", "--subject", "erin", "--as", "alice")
    other = tmp_path / "other"
    other.mkdir()
    settings.JIT_APPROVAL = {
        "AUDIT_KEY_FILE": str(tmp_path / "trail.key"),
        "AUDIT_EXPORT_DIR": str(other),
    }
    seal.seal(at_once=True)
    export = folder.Folder(other)
    report = checking.verify(export.events(), export.statements(), [key])
    assert report.status() == 0
    assert report.erased >= 4
    last = list(folder.Folder(other).statements())[-1]
    assert audit_checker.is_sound(other, str(key), last)


def test_who_voted_is_erased_and_the_vote_stays(key: notes.Verifier, alice: Any, bob: Any) -> None:
    row = ran(factories.user("erin"), bob, reason="mine")
    assert run("erase", "--subject", "bob", "--as", "alice")[0] == 0
    assert "bob" not in everything()
    assert "2001:db8::" not in everything()
    assert Decision.objects.get(approval_request=row).verdict == "approve"
    assert ApprovalRequest.objects.get(pk=row.pk).reason == "mine"
    assert live.verify([key]).status() == 0


def test_what_only_looks_like_a_name_is_not_erased(
    key: notes.Verifier, alice: Any, bob: Any
) -> None:
    ran(factories.user("erin"), bob)
    factories.user("approve")  # as a verdict is called
    ran(factories.user("held"), bob)
    run("erase", "--subject", "held", "--as", "alice")
    first = ApprovalRequest.objects.exclude(requester_label="").get()
    assert not AuditEvent.objects.filter(approval_request=first, body="").exists()


def test_emptied_without_authority_is_found(key: notes.Verifier, alice: Any, bob: Any) -> None:
    ran(factories.user("erin"), bob)
    seal.seal(at_once=True)
    AuditEvent.objects.filter(kind="approved").update(
        body="", origin="", actor_label="", actor=None
    )
    assert live.verify([key]).counts == {Kind.MISSING: 1}
    appendonly.uninstall(connection)
    erasure.erase(erasure.Scope(subject="erin"), by=alice)
    seal.seal(at_once=True)
    assert live.verify([key]).counts == {Kind.MISSING: 1}, "not named by the act that came later"


def test_what_is_open_or_of_unknown_outcome_or_not_sealed_is_refused(
    key: notes.Verifier, alice: Any, bob: Any
) -> None:
    erin = factories.user("erin")
    row = factories.held(erin)
    with pytest.raises(erasure.ErasureRefused, match=r"^1 request .* is open"):
        erasure.erase(erasure.Scope(subject="erin"), by=alice)
    other = factories.held(erin)
    with pytest.raises(erasure.ErasureRefused, match=r"^2 requests .* are open"):
        erasure.erase(erasure.Scope(subject="erin"), by=alice)
    services.cancel(other, by=erin)
    services.approve(row, by=bob)
    with pytest.raises(erasure.ErasureRefused, match="open"):
        erasure.erase(erasure.Scope(subject="bob"), by=alice)
    spent = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(spent, outcome=Outcome.UNKNOWN)
    with pytest.raises(erasure.ErasureRefused, match="outcome"):
        erasure.erase(erasure.Scope(subject="erin"), by=alice)
    ran(factories.user("frank"), bob)
    with pytest.raises(erasure.ErasureRefused, match="sealed"):
        erasure.erase(erasure.Scope(subject="frank"), by=alice)
    with pytest.raises(erasure.ErasureRefused, match="Nobody"):
        erasure.erase(erasure.Scope(subject="nobody"), by=alice)
    for scope in (erasure.Scope(), erasure.Scope("erin", clock.now("default"))):
        with pytest.raises(erasure.ErasureRefused, match="Say"):
            erasure.erase(scope, by=alice)
    assert not AuditEvent.objects.filter(body="").exists()


def test_who_lacks_the_permission_erases_nothing(key: notes.Verifier, bob: Any) -> None:
    ran(factories.user("erin"), bob)
    seal.seal(at_once=True)
    for act in (erasure.erase, erasure.propose):
        with pytest.raises(PermissionDenied):
            act(erasure.Scope(subject="erin"), by=bob)
    with pytest.raises(CommandError, match="permission"):
        run("erase", "--subject", "erin", "--as", "bob")
    with pytest.raises(CommandError, match="no user"):
        run("erase", "--subject", "erin", "--as", "nobody")
    assert not AuditEvent.objects.filter(body="").exists()


def test_gated_it_needs_another_person_and_then_is_done_once(
    key: notes.Verifier, alice: Any, bob: Any, settings: Any
) -> None:
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "GATE_ERASURE": True}
    alice.user_permissions.add(factories.decide_permission())
    ran(factories.user("erin"), bob)
    status, said = run("erase", "--subject", "erin", "--as", "alice", "--reason", "GDPR 811")
    assert (status, "waits for approval" in said) == (3, True)
    assert run("erase", "--subject", "erin", "--as", "alice")[0] == 3
    row = ApprovalRequest.objects.get(action=erasure.ACTION)
    assert "erin" in row.payload
    assert not AuditEvent.objects.filter(body="").exists()
    with pytest.raises(SelfApprovalForbidden):
        services.approve(row, by=alice)
    services.approve(row, by=bob)
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert erasure.make_all() == 0
    by = json.loads(AuditEvent.objects.get(kind="erased").body)["by"]
    assert (by["credential"], by["person"]) == ("command", person_of(alice))
    seal.seal(at_once=True)
    report = live.verify([key])
    assert (report.status(), report.warnings) == (0, [])
    (act,) = report.acts
    assert (act.by, act.approval, act.is_approved) == ("alice", str(row.pk), True)
    assert act.events == report.erased
    assert f"by alice: approval {row.pk}" in as_text(report)
    assert "erin" not in everything()


@pytest.mark.parametrize("names", ["nothing", "what is no request", "a request for something else"])
def test_an_act_of_erasure_that_nobody_approved_is_named(
    key: notes.Verifier, bob: Any, settings: Any, names: str
) -> None:
    ran(factories.user("erin"), bob)
    seal.seal(at_once=True)
    other = ApprovalRequest.objects.get()
    approval = {"nothing": "", "what is no request": "17"}.get(names, str(other.pk))
    # As whoever may write rows does it.
    data = {"approval": approval, "leaves": [[0, 3]], "events": 3}
    chain.single_event("erased", at=clock.now("default"), label="mallory", data=data).save()
    rows = AuditEvent.objects.filter(seal__index__lt=3)
    rows.update(body="", origin="", actor_label="", actor=None)
    seal.seal(at_once=True)
    report = live.verify([key])
    assert [(act.by, act.is_approved, act.events) for act in report.acts] == [("mallory", False, 3)]
    assert report.erased == 3
    assert "by mallory: " in as_text(report)
    assert report.warnings == []
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "GATE_ERASURE": True}
    assert "erased without an approval" in live.verify([key]).warnings[0]
    # With a key that signed none of it, no act is believed.
    report = live.verify([notes.Signer(key.name, bytes(32)).verifier])
    assert report.acts == []


def test_gated_what_is_stored_must_be_what_was_approved(
    key: notes.Verifier, alice: Any, bob: Any, settings: Any
) -> None:
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "GATE_POLICY_CHANGES": True}
    ran(factories.user("erin"), bob)
    ran(factories.user("frank"), bob)
    run("erase", "--subject", "erin", "--as", "alice")
    row = ApprovalRequest.objects.get(action=erasure.ACTION)
    ApprovalRequest.objects.filter(pk=row.pk).update(context={"subject": "frank", "before": ""})
    with pytest.raises(RequestRewritten):
        services.approve(row, by=bob)
    _commit_to_what_it_is_now(row)
    services.approve(row, by=bob)
    row.refresh_from_db()
    assert row.status == Status.REVOKED
    assert not AuditEvent.objects.filter(body="").exists()


def _commit_to_what_it_is_now(row: ApprovalRequest) -> None:
    held, now = row.audit_events.get(sequence=1), factories.fresh(row)
    body = json.loads(held.body)
    body["data"]["shown"] = shown.commitment({name: getattr(now, name) for name in shown.COLUMNS})
    appendonly.uninstall(connection)
    row.audit_events.filter(sequence=1).update(body=json.dumps(body))
    appendonly.install(connection)


def test_prune_takes_what_ended_long_ago_and_nothing_else(
    key: notes.Verifier, alice: Any, bob: Any
) -> None:
    old = ran(factories.user("erin"), bob)
    appendonly.uninstall(connection)
    month = timedelta(days=30)
    times = ("created_at", "decide_by", "decided_at", "usable_until", "consumed_at", "finished_at")
    lots = ((AuditEvent, ("at",)), (Decision, ("created_at",)), (ApprovalRequest, times))
    for model, names in lots:
        model.objects.update(**{name: F(name) - month for name in names})
    appendonly.install(connection)
    new = ran(factories.user("frank"), bob)
    waiting = factories.held(factories.user("gina"))
    with pytest.raises(CommandError, match="days"):
        run("prune", "--older-than", "0", "--as", "alice")
    status, said = run("prune", "--older-than", "7", "--as", "alice")
    assert (status, "requests=1" in said) == (0, True)
    assert not AuditEvent.objects.filter(approval_request=old).exclude(body="").exists()
    assert not AuditEvent.objects.filter(approval_request__in=[new, waiting], body="").exists()
    assert "erin" not in everything()
    assert live.verify([key]).counts == {}
    assert "requests=0" in run("prune", "--older-than", "7", "--as", "alice")[1]

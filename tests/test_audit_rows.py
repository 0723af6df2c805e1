"""Rows that people are shown, and that decide whether a call runs, must be what the trail says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test import override_settings

from jit_approval import erasure, services
from jit_approval.audit import keys, live, notes, rows, seal
from jit_approval.audit.findings import Kind
from jit_approval.models import ApprovalRequest, AuditEvent, Decision
from jit_approval.states import Outcome
from tests import factories
from tests.live_histories import Undone

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate("approvals.example/trail", tmp_path / "trail.key")
    settings = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), "AUDIT_APPEND_ONLY": False}
    with override_settings(JIT_APPROVAL=settings):
        yield public


def ran() -> ApprovalRequest:
    """A call that two approved, and that ran; sealed."""
    bob, bert = factories.decider("bob"), factories.decider("bert")
    row = factories.held(
        factories.user("erin"),
        payload='{"amount": 100}',
        context={"limit": 1000},
        terms={"required_approvals": 2},
    )
    services.approve(row, by=bob, comment="fine")
    services.approve(row, by=bert)
    spent = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(
        spent, outcome=Outcome.SUCCEEDED, response_status=204, elapsed=timedelta(seconds=1)
    )
    seal.seal(at_once=True)
    return row


def of_request(**changes: Any) -> Callable[[], object]:
    return lambda: ApprovalRequest.objects.update(**changes)


def of_vote(**changes: Any) -> Callable[[], object]:
    return lambda: Decision.objects.filter(decider_label="bob").update(**changes)


REWRITTEN: dict[str, tuple[Callable[[], object], str]] = {
    "payload": (of_request(payload='{"amount": 1}'), "what was shown"),
    "context": (of_request(context={"limit": 1}), "what was shown"),
    "persons": (of_request(persons=[]), "what was shown"),
    "reason": (of_request(reason="another"), "reason"),
    "action": (of_request(action="customers.list"), "action"),
    "fingerprint": (of_request(fingerprint="0" * 64), "fingerprint"),
    "requester": (of_request(requester_label="mallory"), "requester_label"),
    "status": (of_request(status="rejected"), "status"),
    "outcome": (of_request(outcome="failed"), "outcome"),
    "response status": (of_request(response_status=500), "response_status"),
    "exception": (of_request(exception="ValueError"), "exception"),
    "quorum": (of_request(required_approvals=1), "required_approvals"),
    "asked at": (of_request(created_at=F("created_at") - MINUTE), "created_at"),
    "decided at": (of_request(decided_at=F("decided_at") + MINUTE), "decided_at"),
    "decided never": (of_request(decided_at=None), "decided_at"),
    "run at": (of_request(consumed_at=F("consumed_at") + MINUTE), "consumed_at"),
    "finished at": (of_request(finished_at=None), "finished_at"),
    "time to decide": (of_request(decide_by=F("decide_by") + MINUTE), "decide_by"),
    "time to use": (of_request(usable_until=F("usable_until") + MINUTE), "is_usable_as_said"),
    "comment": (of_vote(comment="another"), "comment"),
    "no comment": (of_vote(comment=""), "comment"),
    "who voted": (of_vote(decider_label="mallory"), "decider_label"),
    "whose person": (of_vote(person="mallory"), "person"),
    "verdict": (of_vote(verdict="reject"), "verdict"),
    "on whose behalf": (of_vote(on_behalf_of=["alice"]), "on_behalf_of"),
    "voted at": (of_vote(created_at=F("created_at") - MINUTE), "no event tells of it"),
}


@pytest.mark.parametrize(("change", "named"), REWRITTEN.values(), ids=REWRITTEN)
def test_whatever_is_rewritten_is_altered_and_named(
    key: notes.Verifier, change: Callable[[], object], named: str
) -> None:
    row = ran()
    assert live.verify([key]).status() == 0
    change()
    report = live.verify([key])
    assert report.counts[Kind.ALTERED] == 1
    (text,) = (each.text for each in report.findings if each.kind is Kind.ALTERED)
    assert named in text
    assert str(row.pk) in text


def test_a_vote_that_is_gone_is_missing_and_one_put_in_is_altered(key: notes.Verifier) -> None:
    row = ran()
    vote = Decision.objects.get(decider_label="bob")
    Decision.objects.filter(pk=vote.pk).delete()
    assert live.verify([key]).counts == {Kind.MISSING: 1}
    vote.save(force_insert=True)
    assert live.verify([key]).status() == 0
    vote.pk, vote.person, vote.decider_label = None, "eve", "eve"
    vote.save(force_insert=True)
    report = live.verify([key])
    assert report.counts == {Kind.ALTERED: 1}
    assert str(row.pk) in str(report.first)


def test_a_vote_whose_request_is_gone_is_told(key: notes.Verifier) -> None:
    row = ran()
    with connection.constraint_checks_disabled():
        ApprovalRequest.objects.filter(pk=row.pk)._raw_delete("default")
        found = list(rows.differing("default"))
        row.save(force_insert=True)
    assert [kind for kind, _, _ in found] == [Kind.MISSING, Kind.MISSING]


@pytest.mark.parametrize("state", ["pending", "approved"])
def test_a_deadline_put_off_is_altered(key: notes.Verifier, state: str) -> None:
    bob, row = factories.decider("bob"), factories.held()
    if state == "approved":
        services.approve(row, by=bob)
    assert list(rows.differing("default")) == []
    ApprovalRequest.objects.update(due_at=F("due_at") + MINUTE)
    ((_, _, text),) = rows.differing("default")
    assert text.endswith(": due_at")


def test_who_writes_while_it_is_read_is_not_accused(
    key: notes.Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, row = factories.decider("bob"), factories.held()
    bert = factories.decider("bert")
    pending = factories.held(terms={"required_approvals": 2})
    read_votes, read_events = rows._votes, rows._events

    def votes(*arguments: Any) -> Any:
        services.approve(pending, by=bob)  # after the requests were read
        return read_votes(*arguments)

    def events(*arguments: Any) -> Any:
        services.approve(pending, by=bert)  # after the votes, too
        services.reject(row, by=bob)
        return read_events(*arguments)

    monkeypatch.setattr(rows, "_votes", votes)
    monkeypatch.setattr(rows, "_events", events)
    assert list(rows.differing("default")) == []
    monkeypatch.undo()
    assert list(rows.differing("default")) == []


def test_in_the_midst_of_an_erasure_nobody_is_accused(
    key: notes.Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran()
    alice = factories.user("alice", is_superuser=True)
    read_events = rows._events

    def events(*arguments: Any) -> Any:
        erasure.erase(erasure.Scope(subject="bob"), by=alice)
        erasure.erase(erasure.Scope(subject="erin"), by=alice)
        return read_events(*arguments)

    monkeypatch.setattr(rows, "_events", events)
    assert list(rows.differing("default")) == []
    monkeypatch.undo()
    assert list(rows.differing("default")) == []
    ApprovalRequest.objects.update(status="rejected")
    assert len(list(rows.differing("default"))) == 1


def test_what_is_read_some_at_a_time_is_all_read(
    key: notes.Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.decider("bob")
    made = [factories.held() for _ in range(7)]
    monkeypatch.setattr(rows, "_AT_ONCE", 3)
    ApprovalRequest.objects.update(payload="another")
    found = " ".join(text for _, _, text in rows.differing("default"))
    assert all(str(row.pk) in found for row in made)


def test_an_event_that_cannot_be_read_hides_no_other_request(key: notes.Verifier) -> None:
    factories.decider("bob")
    for _ in range(3):
        services.approve(factories.held(), by=factories.decider())
    events = AuditEvent.objects.filter(kind="approved")
    events.filter(pk=events.earliest("pk").pk).update(body='{"by": 7}')
    ApprovalRequest.objects.update(reason="another")
    found = [text for _, _, text in rows.differing("default")]
    assert sum("does not say" in text for text in found) == 1
    assert sum(text.endswith(": reason") for text in found) == 3


@pytest.mark.skipif(connection.vendor != "sqlite", reason="no other database keeps it")
def test_a_row_that_cannot_be_read_is_altered(key: notes.Verifier) -> None:
    ran()
    with Undone():
        with connection.cursor() as cursor:
            cursor.execute("UPDATE jit_approval_approvalrequest SET usable_within = 'nonsense'")
        assert live.verify([key]).status() == 1

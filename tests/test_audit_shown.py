"""The event that a call was held commits to what is shown of it, without holding it."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jit_approval import erasure, redaction, services
from jit_approval.audit import shown
from jit_approval.calls import Step
from jit_approval.fingerprint import CALL_FIELDS, bind
from jit_approval.models import ApprovalRequest
from tests import factories

pytestmark = pytest.mark.django_db
CONTEXT = {
    "Name": "Zoë \U0001f4a5 \\u202e",
    "nested": {"list": [1, "two", None, True], "großer Betrag": 10**25},
    "": [],
}


def held(amount: str = "100", **fields: Any) -> ApprovalRequest:
    """A call as the gate holds it: bound by keyed digests, with all there is to show."""
    factories.decider("bob")
    parts: dict[str, bytes | None] = dict.fromkeys(CALL_FIELDS, b"x") | {"body": amount.encode()}
    said = {
        "payload": json.dumps({"amount": amount}, indent=2),
        "payload_truncated": True,
        "context": CONTEXT,
        "object_label": "Zoë's account",
        "path": "/api/" + "ä" * 3000,
        "ip": "192.0.2.7",
        "user_agent": "a browser",
        "agent": "an agent",
    }
    call = factories.call(factories.user("erin"), **(said | fields))
    call = replace(call, persons=("erin", "another"), bound=bind(parts, {"s": None}, key=b"key"))
    steps = (Step(share=50, deciders=True), Step(after=timedelta(minutes=3), users=(("1", "x"),)))
    terms = factories.terms(steps=steps, group_requirements=(), require_approval_id=True)
    return services.open_request(call, terms)


def as_stored(row: ApprovalRequest) -> dict[str, Any]:
    return ApprovalRequest.objects.values(*shown.COLUMNS).get(pk=row.pk)


def body_of(row: ApprovalRequest) -> str:
    return row.audit_events.get(sequence=1).body  # type: ignore[attr-defined,no-any-return]


def test_the_event_commits_to_what_is_stored_and_does_not_hold_it() -> None:
    row = held()
    body = body_of(row)
    committed = json.loads(body)["data"]["shown"]
    assert committed == shown.commitment(as_stored(row))
    assert len(committed) == 64
    assert "amount" not in body
    assert shown.differing(as_stored(row), body) == []


@pytest.mark.parametrize(
    "number", [1e16, 1e23, -1e300, -0.0, 1.0, 0.1 + 0.2, 5e-324, 2**70], ids=repr
)
def test_numbers_are_what_they_were_whatever_the_database_makes_of_them(number: float) -> None:
    row = held(context={"number": number, "nested": [number, {"again": number}]})
    body = row.audit_events.get().body
    assert shown.differing(vars(ApprovalRequest.objects.get(pk=row.pk)), body) == []


def test_what_is_shown_cannot_be_guessed_from_its_commitment() -> None:
    row = as_stored(held())
    # Everything but what the key of the fingerprint made: whoever tries amounts has no more.
    assert shown.commitment({**row, "parts": {}}) != shown.commitment(row)
    assert all(len(digest) == 16 for digest in row["parts"].values())


CHANGES: dict[str, Any] = {
    "payload": '{"amount": "1"}',
    "payload_truncated": False,
    "context": {"Name": "eve"},
    "object_label": "another account",
    "object_model": "auth.user",
    "object_pk": "7",
    "path": "/api/" + "ä" * 2999,
    "reason": "another",
    "method": "GET",
    "ip": "192.0.2.8",
    "user_agent": "another browser",
    "agent": "",
    "agent_proven": True,
    "persons": ["erin"],
    "parts": {},
    "state_digest": "0" * 64,
    "state_parts": {},
    "idempotent": True,
    "ladder": [],
    "requester_label": "eve",
    "requester_person": "eve",
    "credential": "session",
    "action": "customers.list",
    "fingerprint": "0" * 64,
    "policy_slug": "another",
    "policy_version": 7,
    "required_approvals": 0,
    "group_requirements": [[1, "x", 1]],
    "object_permission": 7,
    "object_permission_label": "x",
    "require_approval_id": False,
    "severity": "critical",
    "execution": "server",
    "usable_within": timedelta(days=1),
    "decide_by": datetime(2026, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize("column", CHANGES)
def test_every_column_that_is_shown_or_bound_is_compared(column: str) -> None:
    row, body = held(), ""
    body = body_of(row)
    ApprovalRequest.objects.filter(pk=row.pk).update(**{column: CHANGES[column]})
    assert shown.differing(as_stored(row), body)


@pytest.mark.parametrize(
    "name", ["erin\U00011f04", "e" * 140 + "\U00011f04", "\u202e" * 100, "zoë"]
)
@pytest.mark.parametrize("is_letter", [True, False])
def test_a_name_is_the_same_whichever_unicode_either_process_knows(
    monkeypatch: pytest.MonkeyPatch, name: str, is_letter: bool
) -> None:
    """Kawi came with Unicode 15, and Python 3.12: the requester's process had it, or the decider's."""

    def know(is_known: bool) -> None:
        real = unicodedata.category
        kinds = {True: "Lo", False: "Cn"}
        known = SimpleNamespace(
            category=lambda each: kinds[is_known] if each == "\U00011f04" else real(each)
        )
        monkeypatch.setattr(redaction, "unicodedata", known)

    bob, erin = factories.decider(), factories.user(name)
    know(is_letter)
    row = factories.held(erin)
    know(not is_letter)
    assert shown.differing(as_stored(row), body_of(row)) == []
    ApprovalRequest.objects.filter(pk=row.pk).update(requester_label=row.requester_label[:-1])
    assert shown.differing(as_stored(row), body_of(row)) == ["requester_label"]
    ApprovalRequest.objects.filter(pk=row.pk).update(requester_label=row.requester_label)
    assert services.approve(row, by=bob).status == "approved"


def test_an_account_given_to_a_request_afterwards_is_another_and_one_removed_is_none() -> None:
    row = held()
    ApprovalRequest.objects.filter(pk=row.pk).update(requester=None)
    assert shown.differing(as_stored(row), body_of(row)) == []
    ApprovalRequest.objects.filter(pk=row.pk).update(requester=factories.user("eve"))
    assert shown.differing(as_stored(row), body_of(row)) == ["requester_id"]


def test_an_event_of_before_there_was_a_commitment_accuses_nobody() -> None:
    row = held()
    said = json.loads(body_of(row))
    del said["data"]["shown"], said["by"]["person"]
    ApprovalRequest.objects.filter(pk=row.pk).update(payload="another")
    assert shown.differing(as_stored(row), json.dumps(said)) == []
    assert shown.differing(as_stored(row), "") == []  # erased


@pytest.mark.parametrize("body", ["nonsense", "[]", "{}", '{"by":null,"data":{}}'])
def test_an_event_that_cannot_be_read_is_not_what_was_written(body: str) -> None:
    assert shown.differing(as_stored(held()), body) == ["the event that it was held"]


def test_of_a_gated_erasure_that_is_done_the_row_says_no_more_and_of_others_it_must() -> None:
    row = held()
    ApprovalRequest.objects.filter(pk=row.pk).update(**shown.GONE)
    assert shown.differing(as_stored(row), body_of(row))
    body = body_of(row).replace('"action":"customers.destroy"', f'"action":"{erasure.ACTION}"')
    ApprovalRequest.objects.filter(pk=row.pk).update(action=erasure.ACTION)
    assert shown.differing(as_stored(row), body)
    ApprovalRequest.objects.filter(pk=row.pk).update(outcome="succeeded")
    assert shown.differing(as_stored(row), body) == []
    ApprovalRequest.objects.filter(pk=row.pk).update(payload="another")
    assert shown.differing(as_stored(row), body)

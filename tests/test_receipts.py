"""Receipts: only of calls that ran, whole or not at all, and nothing in one can be changed unseen."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.urls import reverse
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.audit import issuing, keys, notes, receipts, seal, verify
from jit_approval.audit.issuing import NoReceiptNow, Why
from jit_approval.audit.selection import Selection
from jit_approval.calls import Origin
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal
from jit_approval.states import Outcome
from jit_approval.streaming import selecting
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
NAME = "approvals.example/trail"
AWAY = Origin("session", "198.51.100.23", "a browser")
CASES = int(os.environ.get("JIT_TEST_ROUNDS", "400"))


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate(NAME, tmp_path / "trail.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        yield public


def approved(votes: int = 1, **kwargs: Any) -> ApprovalRequest:
    deciders = [factories.decider() for _ in range(votes)]
    kwargs = {"ip": "192.0.2.7", "user_agent": "curl/8", **kwargs}
    row = factories.held(terms={"required_approvals": votes}, **kwargs)
    for number, decider in enumerate(deciders):
        row = services.approve(row, by=decider, comment=f"fine, says {number}", origin=AWAY)
    return factories.fresh(row)


def ran(votes: int = 1, outcome: Outcome = Outcome.SUCCEEDED, **kwargs: Any) -> ApprovalRequest:
    row = approved(votes, **kwargs)
    row = services.consume(row, state_digest=factories.STATE)
    services.record_outcome(row, outcome=outcome, response_status=204)
    return factories.fresh(row)


def sealed(row: ApprovalRequest | None = None, **kwargs: Any) -> ApprovalRequest:
    row = row or ran(**kwargs)
    seal.seal(at_once=True)
    return row


def content(row: ApprovalRequest) -> bytes:
    return receipts.as_text(issuing.receipt(row)).encode()


def whole(row: ApprovalRequest) -> bytes:
    """The receipt with all that can be in it."""
    return receipts.as_text(issuing.receipt(row, shows=lambda event: True)).encode()


def why(row: ApprovalRequest) -> Why:
    with pytest.raises(NoReceiptNow) as error:
        issuing.receipt(row)
    return error.value.why


def test_a_receipt_says_what_was_asked_by_whom_and_what_became_of_it(key: notes.Verifier) -> None:
    erin = factories.user("erin")
    row = sealed(votes=2, requester=erin)
    made = issuing.receipt(row)
    assert (made["receipt"], made["request"]) == ("jit-approval/receipt/v1", str(row.pk))
    assert (made["action"], made["fingerprint"]) == (row.action, row.fingerprint)
    assert made["asked"]["by"]["label"] == "erin"
    assert made["policy_version"] == 0
    assert [vote["verdict"] for vote in made["votes"]] == ["approve", "approve"]
    assert made["votes"][0]["comment"] == "fine, says 0"
    assert (made["outcome"]["outcome"], made["outcome"]["status"]) == ("succeeded", 204)
    report = receipts.verify(content(row), [key])
    assert (report.status(), report.verified, report.events) == (0, 5, 5), report.findings
    assert report.told["fingerprint"] == row.fingerprint


def test_there_is_none_of_a_call_that_has_not_run_or_runs_still(key: notes.Verifier) -> None:
    row = sealed(approved())
    assert why(row) is Why.NOT_RUN
    services.consume(row, state_digest=factories.STATE)
    assert why(factories.fresh(row)) is Why.RUNNING


def test_there_is_none_before_all_of_its_events_are_sealed(key: notes.Verifier) -> None:
    row = ran()
    assert why(row) is Why.NOT_SEALED
    sealed(row)
    assert issuing.why_not(row) is None
    assert issuing.receipt(row)
    unknown = sealed(ran(outcome=Outcome.UNKNOWN))
    services.settle(unknown, by=factories.decider(), outcome=Outcome.FAILED, comment="looked")
    row = factories.fresh(unknown)
    # What it was until then is no receipt of what it is now.
    assert why(row) is Why.NOT_SEALED
    sealed(row)
    assert issuing.receipt(row)["settled"]["outcome"] == "failed"


def test_events_that_are_not_as_they_were_signed_give_none(key: notes.Verifier) -> None:
    row = sealed()
    event = AuditEvent.objects.get(approval_request=row, kind="approved")
    AuditEvent.objects.filter(pk=event.pk).update(body=event.body.replace("fine", "evil"))
    assert why(row) is Why.DAMAGED


def test_contents_that_were_erased_give_none_and_the_rest_is_exported(
    key: notes.Verifier, tmp_path: Path
) -> None:
    row = sealed()
    AuditEvent.objects.filter(approval_request=row, kind="approved").update(body="")
    assert why(row) is Why.ERASED
    lines = list(selecting.lines(selecting.Wanted(request=row.pk), "jsonl"))
    (tmp_path / "rest.jsonl").write_bytes(b"".join(lines))
    report = Selection(tmp_path / "rest.jsonl").verify([key])
    assert (report.status(), report.verified) == (3, 4)
    found = [json.loads(line) for line in selecting.lines(selecting.Wanted(), "ocsf")]
    assert [each["metadata"]["event_code"] for each in found].count("erased") == 1


def test_a_trail_cut_short_gives_none(key: notes.Verifier) -> None:
    row = sealed()
    last = AuditEvent.objects.filter(approval_request=row).order_by("-sequence")[0]
    Seal.objects.filter(event=last).delete()
    AuditEvent.objects.filter(pk=last.pk).delete()
    assert why(row) is Why.DAMAGED


def test_a_forged_checkpoint_is_not_believed(key: notes.Verifier, tmp_path: Path) -> None:
    made = issuing.receipt(sealed())
    keys.generate(NAME, tmp_path / "other.key")
    other = keys.load(tmp_path / "other.key", {})
    made["checkpoint"] = notes.sign(notes.split(made["checkpoint"])[0], other)
    report = receipts.verify(receipts.as_text(made).encode(), [key])
    assert (report.status(), report.verified, report.told) == (4, 0, {})
    made["checkpoint"] = made["checkpoint"].replace(" ", " A", 4)
    assert receipts.verify(receipts.as_text(made).encode(), [key]).status() == 1


def test_a_key_that_was_changed_is_followed_from_the_one_given(
    key: notes.Verifier, tmp_path: Path
) -> None:
    before = content(sealed())
    new = keys.generate(NAME, tmp_path / "second.key")
    seal.rotate(keys.load(tmp_path / "second.key", {}))
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "second.key")}):
        text = content(sealed())
    assert receipts.verify(text, [key]).status() == 0
    # The new one signed as well when it was named.
    assert receipts.verify(text, [new]).status() == 0
    # Of before the change: nothing there is signed by the new one, and nobody is accused.
    report = receipts.verify(before, [new])
    assert (report.status(), report.counts, report.verified) == (4, {}, 0)
    assert receipts.verify(before, [key, new]).status() == 0
    third = keys.generate(NAME, tmp_path / "third.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "second.key")}):
        seal.rotate(keys.load(tmp_path / "third.key", {}))
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "third.key")}):
        text = content(sealed())
    for public in (key, new, third):
        assert receipts.verify(text, [public]).status() == 0
    assert receipts.verify(text, [third]).warnings
    without = json.loads(text) | {"rotations": []}
    # Nobody who has the first key alone can tell; and who has the right one sees what was left out.
    assert receipts.verify(json.dumps(without).encode(), [key]).status() == 4


# --- tampering -------------------------------------------------------------------------------------------------


def mutated(found: Any, random_: random.Random) -> Any:
    """The receipt with one thing in it changed, somewhere."""
    found = copy.deepcopy(found)
    nodes: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in items:
            nodes.append((node, name))
            if isinstance(value, dict | list):
                walk(value)

    walk(found)
    node, name = random_.choice(nodes)
    how = random_.choice(["change", "change", "remove", "add", "swap"])
    if how == "remove":
        del node[name]
    elif how == "add" and isinstance(node, dict):
        node["more"] = random_.choice([None, 1, "x"])
    elif how == "add":
        node.insert(random_.randrange(len(node) + 1), random_.choice([None, {}, node[0]]))
    elif how == "swap" and isinstance(node, list):
        other = random_.randrange(len(node))
        node[name], node[other] = node[other], node[name]
    else:
        node[name] = another(node[name], random_)
    return found


def only_withholds(forged: Any, made: Any) -> bool:
    """Whether nothing was done to the receipt but to leave out from where somebody acted."""
    again = copy.deepcopy(forged)
    try:
        for event, full in zip(again["events"], made["events"], strict=True):
            if "origin" in full:
                event.setdefault("origin", full["origin"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return json.dumps(again, sort_keys=True) == json.dumps(made, sort_keys=True)


def another(value: Any, random_: random.Random) -> Any:
    if isinstance(value, str) and value:
        place = random_.randrange(len(value))
        return value[:place] + random_.choice("0aZ\n ") + value[place + 1 :]
    return random_.choice([None, 0, 1, True, 2.0, "", "x", [], {}, [value]])


def test_whatever_is_changed_in_a_receipt_is_found(key: notes.Verifier) -> None:
    sealed()
    made = json.loads(whole(sealed(votes=2)))
    assert sum("origin" in event for event in made["events"]) == 3
    sealed()
    random_, tried = random.Random(7), 0
    while tried < CASES:
        forged = mutated(made, random_)
        if json.dumps(forged) == json.dumps(made):
            continue
        tried += 1
        report = receipts.verify(json.dumps(forged).encode(), [key])
        if only_withholds(forged, made):
            assert (report.status(), report.withheld) == (0, 1)
            continue
        assert report.status() == 1, f"case {tried} is not found"
        assert report.first is not None
        assert not report.verified


def test_whatever_bit_of_a_receipt_is_flipped_is_found(key: notes.Verifier) -> None:
    text = whole(sealed(votes=2))
    random_ = random.Random(8)
    for number in range(CASES):
        raw = bytearray(text)
        raw[random_.randrange(len(raw))] ^= 1 << random_.randrange(8)
        report = receipts.verify(bytes(raw), [key])
        try:
            is_same = json.loads(raw) == json.loads(text)
        except ValueError:
            is_same = False
        # White space between members, and another way to write a character, say the same.
        assert (report.status() == 0) == is_same, f"case {number}"


def test_what_a_receipt_says_twice_is_refused(key: notes.Verifier) -> None:
    text = content(sealed())
    forged = text.replace(b'"action":', b'"action": "other", "action":', 1)
    assert receipts.verify(forged, [key]).status() == 1


def test_votes_of_another_request_prove_nothing(key: notes.Verifier) -> None:
    one, other = ran(), ran()
    sealed(one)
    made, foreign = issuing.receipt(one), issuing.receipt(other)
    made["events"][1] = foreign["events"][1]
    made["votes"] = foreign["votes"]
    assert receipts.verify(receipts.as_text(made).encode(), [key]).status() == 1


def test_the_offline_command_verifies_a_receipt_without_django(
    key: notes.Verifier, tmp_path: Path
) -> None:
    path = tmp_path / "receipt.json"
    path.write_bytes(content(sealed()))
    command = [sys.executable, "-m", "jit_approval.audit.verify", str(path), "--key", str(key)]
    environ = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "receipt     approvals.example/trail" in done.stdout
    assert "verified    4 of 4 events" in done.stdout
    assert "customers.destroy by user" in done.stdout
    path.write_bytes(path.read_bytes().replace(b"fine, says", b"evil, says"))
    assert verify.main([str(path), "--key", str(key)]) == 1
    path.write_bytes(path.read_bytes()[:-9])
    assert verify.main([str(path), "--key", str(key)]) == 1
    path.write_bytes(b"")
    assert verify.main([str(path), "--key", str(key)]) == 2


# --- where it is fetched ----------------------------------------------------------------------------------------


def client_of(user: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


def fetch(user: Any, row: ApprovalRequest | str) -> Any:
    pk = getattr(row, "pk", row)
    return client_of(user).get(reverse("jit_approval:request-receipt", args=[pk]))


def test_who_may_see_the_request_may_fetch_its_receipt(key: notes.Verifier) -> None:
    erin = factories.user("erin")
    row = sealed(requester=erin)
    response = fetch(erin, row)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert f'filename="receipt-{row.pk}.json"' in response["Content-Disposition"]
    assert response["Cache-Control"] == "no-store"
    assert receipts.verify(response.content, [key]).status() == 0
    detail = client_of(erin).get(reverse("jit_approval:request-detail", args=[row.pk])).json()
    assert detail["receipt_url"] == f"/approvals/{row.pk}/receipt/"


def test_to_others_there_is_no_receipt_as_there_is_no_request(key: notes.Verifier) -> None:
    row = sealed()
    for target in (row, "00000000-0000-4000-8000-000000000000", "nonsense"):
        response = fetch(factories.user(), target)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_what_is_not_sealed_yet_is_told_and_no_half_receipt_given(key: notes.Verifier) -> None:
    erin = factories.user("erin")
    row = ran(requester=erin)
    response = fetch(erin, row)
    assert response.status_code == 409
    assert response["Retry-After"]
    body = response.json()
    assert (body["code"], body["reason"]) == ("receipt_unavailable", "not_sealed")
    assert (body["retryable"], "events" in body) == (True, False)
    waiting = factories.held(erin)
    response = fetch(erin, waiting)
    assert (response.status_code, response.json()["reason"]) == (409, "not_run")
    assert not response.has_header("Retry-After")
    detail = client_of(erin).get(reverse("jit_approval:request-detail", args=[waiting.pk])).json()
    assert detail["receipt_url"] is None


def test_the_decision_page_links_to_the_receipt_once_there_is_one(
    key: notes.Verifier, client: Any
) -> None:
    boss = factories.user("boss", is_staff=True, is_superuser=True)
    client.force_login(boss)
    row = ran()
    page = reverse("admin:jit_approval_approvalrequest_decide", args=[row.pk])
    link = reverse("admin:jit_approval_approvalrequest_receipt", args=[row.pk])
    assert link not in client.get(page).content.decode()
    assert client.get(link).status_code == 409
    sealed(row)
    assert link in client.get(page).content.decode()
    response = client.get(link)
    assert receipts.verify(response.content, [key]).status() == 0
    client.force_login(factories.user("eve", is_staff=True))
    assert client.get(link).status_code in (403, 404)


def test_no_checkpoint_no_receipt(key: notes.Verifier) -> None:
    row = sealed()
    Checkpoint.objects.all().delete()
    assert why(row) is Why.NOT_SEALED

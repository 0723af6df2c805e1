"""From where somebody acted: committed to by the body, shown to whom it concerns, and not to be forged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import override_settings
from django.urls import reverse

from jit_approval import services, verdicts
from jit_approval.api import downloads
from jit_approval.audit import (
    chain,
    checking,
    folder,
    issuing,
    keys,
    links,
    live,
    notes,
    proofs,
    receipts,
    records,
    seal,
)
from jit_approval.audit.findings import Kind
from jit_approval.audit.issuing import NoReceiptNow, Why
from jit_approval.audit.selection import Selection, unsealed_line
from jit_approval.calls import COMMAND, Origin
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.states import Outcome
from jit_approval.streaming import selecting
from tests import audit_checker, factories
from tests.test_admin_events import LIST
from tests.test_admin_inbox import client_of
from tests.test_receipts import fetch

pytestmark = pytest.mark.django_db(transaction=True)
ERIN = {"ip": "192.0.2.7", "user_agent": "curl/8"}
BOB = Origin("session", "198.51.100.23", "Bob's browser/7")
GINA = Origin("session", "203.0.113.99", "Gina's phone/3")


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate("approvals.example/trail", tmp_path / "trail.key")
    (tmp_path / "export").mkdir()
    settings = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}
    settings["AUDIT_EXPORT_DIR"] = str(tmp_path / "export")
    with override_settings(JIT_APPROVAL=settings):
        yield public


def ran(erin: Any, bob: Any, gina: Any) -> ApprovalRequest:
    """A call asked for by one and approved by two, all from somewhere; sealed."""
    row = factories.held(erin, terms={"required_approvals": 2}, **ERIN)
    services.approve(row, by=bob, origin=BOB)
    services.approve(factories.fresh(row), by=gina, origin=GINA)
    spent = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED)
    seal.seal(at_once=True)
    return factories.fresh(row)


@pytest.fixture
def people() -> tuple[Any, Any, Any]:
    return factories.user("erin"), factories.decider("bob"), factories.decider("gina")


def of(kind: str) -> AuditEvent:
    return AuditEvent.objects.get(kind=kind)


# --- what is written ---------------------------------------------------------------------------------------------


def test_a_body_has_the_hash_of_an_origin_and_the_address_is_nowhere_else(people: Any) -> None:
    erin, bob, _ = people
    row = factories.held(erin, terms={"required_approvals": 2}, **ERIN)
    services.approve(row, by=bob, origin=BOB)
    verdicts.record(factories.call(erin, **ERIN), "allowed", factories.policy())
    for kind, said in (("held", ERIN), ("vote", BOB.__dict__), ("allowed", ERIN)):
        event = of(kind)
        by = json.loads(event.body)["by"]
        assert by["origin"] == hashlib.sha256(event.origin.encode()).hexdigest()
        assert not {"ip", "user_agent"} & set(by)
        assert said["ip"] not in event.body
        assert said["user_agent"] not in event.body
        found = json.loads(event.origin)
        assert event.origin == links.canonical(found)
        salt = found.pop("salt")
        assert found == {name: said[name] for name in ("ip", "user_agent")}
        assert len(bytes.fromhex(salt)) == 16
    assert of("held").origin != of("allowed").origin, "the same address gives itself away"


def test_who_acted_from_nowhere_is_committed_to_nothing(people: Any) -> None:
    erin, bob, _ = people
    services.approve(factories.held(erin), by=bob, origin=COMMAND)
    by = json.loads(of("approved").body)["by"]
    assert (of("approved").origin, "origin" in by, by["credential"]) == ("", False, "command")
    assert of("held").origin == ""


# --- what is found ------------------------------------------------------------------------------------------------


def first_version() -> AuditEvent:
    """An event as it was written when addresses stood in the body."""
    by = {"pk": "", "label": "erin", "person": "account 1", **ERIN}
    now = AuditEvent.objects.latest("pk").at
    at = now.isoformat(timespec="microseconds")
    body = {"v": 1, "request": None, "salt": "00" * 16, "sequence": 1, "kind": "allowed", "at": at}
    text = links.canonical({**body, "by": by, "data": {"action": "a.b", "ip": ERIN["ip"]}})
    return AuditEvent.objects.create(
        sequence=1,
        kind="allowed",
        at=now,
        actor_label="erin",
        body=text,
        hash=links.digest("", text),
    )


def test_an_event_of_the_first_version_is_verified_as_before(
    key: notes.Verifier, people: Any, tmp_path: Path
) -> None:
    ran(*people)
    event = first_version()
    seal.seal(at_once=True)
    assert live.verify([key]).status() == 0
    export = folder.Folder(tmp_path / "export")
    assert checking.verify(export.events(), export.statements(), [key]).status() == 0
    last = list(export.statements())[-1]
    assert audit_checker.is_sound(tmp_path / "export", str(key), last)
    # It commits to nothing: what is put beside it was never signed.
    AuditEvent.objects.filter(pk=event.pk).update(origin=of("held").origin)
    report = live.verify([key])
    assert (report.first.kind, report.first.index) == (Kind.ALTERED, event.seal.index)


FORGED: dict[str, Callable[[], str]] = {
    "address": lambda: of("vote").origin.replace("198", "199"),
    "salt": lambda: of("vote").origin.replace('"salt":"', '"salt":"0'),
    "form": lambda: of("vote").origin + " ",
    "another's": lambda: of("approved").origin,
    "no JSON": lambda: "x",
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_origin_is_altered_wherever_it_is_verified(
    key: notes.Verifier, people: Any, tmp_path: Path, forged: Callable[[], str]
) -> None:
    row = ran(*people)
    event = of("vote")
    made = issuing.receipt(row, shows=lambda event: True)
    assert receipts.verify(receipts.as_text(made).encode(), [key]).status() == 0
    text, index = forged(), event.seal.index
    made["events"][1]["origin"] = text
    report = receipts.verify(receipts.as_text(made).encode(), [key])
    assert (report.status(), report.first.index, report.counts["altered"]) == (1, index, 1)
    AuditEvent.objects.filter(pk=event.pk).update(origin=text)
    assert chain.first_broken(row.audit_events.order_by("sequence")) == event
    report = live.verify([key])
    # Beside its content, and as one of the columns.
    assert (report.counts, report.first.index) == ({Kind.ALTERED: 2}, index)
    for shows in (lambda event: True, lambda event: False):
        with pytest.raises(NoReceiptNow) as error:
            issuing.receipt(row, shows=shows)
        assert error.value.why is Why.DAMAGED, "not shown, and not believed either"
    (tmp_path / "some").write_bytes(b"".join(selecting.lines(selecting.Wanted(), "jsonl")))
    report = Selection(tmp_path / "some").verify([key])
    assert (report.status(), report.counts) == (1, {Kind.ALTERED: 1})


def test_an_origin_that_is_gone_from_the_database_or_the_whole_export_is_missing(
    key: notes.Verifier, people: Any, tmp_path: Path
) -> None:
    ran(*people)
    AuditEvent.objects.filter(kind="vote").update(origin="")
    assert chain.first_broken(of("vote").approval_request.audit_events.order_by("sequence"))
    report = live.verify([key])
    assert report.counts == {Kind.MISSING: 1, Kind.ALTERED: 1}
    assert (report.first.kind, report.first.index) == (Kind.MISSING, of("vote").seal.index)
    file = tmp_path / "export" / folder.events_file(0)
    lines = [records.parse(line) for line in file.read_bytes().splitlines(keepends=True)]
    assert all(line.origin for line in lines[:3])
    lines[2] = replace(lines[2], origin=None)
    file.write_bytes(b"".join(map(records.as_line, lines)))
    export = folder.Folder(tmp_path / "export")
    report = checking.verify(export.events(), export.statements(), [key])
    assert (report.counts, report.first.index) == ({Kind.MISSING: 1}, 2)
    last = list(export.statements())[-1]
    assert not audit_checker.is_sound(tmp_path / "export", str(key), last)


@pytest.mark.parametrize("origin", ["x", ""])
def test_an_origin_that_was_changed_before_it_was_sealed_is_found(
    key: notes.Verifier, people: Any, origin: str
) -> None:
    factories.held(people[0], **ERIN)
    verdicts.record(factories.call(people[0], **ERIN), "allowed", factories.policy())
    assert live.verify([key]).is_sound
    AuditEvent.objects.exclude(origin="").update(origin=origin)
    assert live.verify([key]).counts == {Kind.ALTERED: 2}


def test_an_origin_that_outlived_its_content_is_altered(key: notes.Verifier, people: Any) -> None:
    ran(*people)
    AuditEvent.objects.filter(kind="vote").update(body="", actor_label="", actor=None)
    report = live.verify([key])
    assert report.counts == {Kind.MISSING: 1, Kind.ALTERED: 2}
    assert report.first.index == of("vote").seal.index


def test_an_origin_left_out_of_a_selection_is_withheld_and_no_error(
    key: notes.Verifier, people: Any, tmp_path: Path
) -> None:
    ran(*people)
    file, lines = tmp_path / "some", list(selecting.lines(selecting.Wanted(), "jsonl"))
    found = [proofs.parse(line) for line in lines]
    bare = [
        line
        if event is None
        else proofs.as_line(replace(event, record=replace(event.record, origin=None)))
        for line, event in zip(lines, found, strict=True)
    ]
    for these, withheld in ((lines, 0), (bare, 3)):
        file.write_bytes(b"".join(these))
        report = Selection(file).verify([key])
        assert (report.status(), report.verified, report.withheld) == (0, 5, withheld)
    assert ERIN["ip"].encode() not in b"".join(bare)
    forged = unsealed_line(replace(found[1].record, origin="x"))
    file.write_bytes(b"".join([*lines, forged]))
    assert Selection(file).verify([key]).counts == {Kind.ALTERED: 1}


# --- who sees it ---------------------------------------------------------------------------------------------------


def reader(name: str, *permissions: str, **fields: Any) -> Any:
    made = factories.user(name, is_staff=True, **fields)
    made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return made


def ensure_shows(content: bytes, key: notes.Verifier, *shown: str) -> None:
    """The receipt has these addresses and no other, anywhere, and is verified."""
    text = content.decode()
    said = {ERIN["ip"]: ERIN["user_agent"], BOB.ip: BOB.user_agent, GINA.ip: GINA.user_agent}
    for ip, user_agent in said.items():
        assert (ip in text, user_agent in text) == (ip in shown, ip in shown), ip
    report = receipts.verify(content, [key])
    assert (report.status(), report.verified, report.withheld) == (0, 5, 3 - len(shown))


def test_a_receipt_does_not_show_a_requester_from_where_it_was_approved(
    key: notes.Verifier, people: Any, client: Any
) -> None:
    erin, bob, gina = people
    row = ran(erin, bob, gina)
    ensure_shows(fetch(erin, row).content, key, ERIN["ip"])
    # Not even to one who may read the trail: the receipt of an own call is there to be handed on.
    erin.is_staff = erin.is_superuser = True
    erin.save()
    client.force_login(erin)
    link = reverse("admin:jit_approval_approvalrequest_receipt", args=[row.pk])
    ensure_shows(client.get(link).content, key, ERIN["ip"])
    ensure_shows(fetch(erin, row).content, key, ERIN["ip"])


def test_a_receipt_shows_an_approver_where_they_were_and_an_auditor_all(
    key: notes.Verifier, people: Any, client: Any
) -> None:
    erin, bob, gina = people
    row = ran(erin, bob, gina)
    ensure_shows(fetch(bob, row).content, key, BOB.ip)
    link = reverse("admin:jit_approval_approvalrequest_receipt", args=[row.pk])
    auditor = reader("auditor", "view_approvalrequest", "view_auditevent")
    for user, shown in (
        (auditor, (ERIN["ip"], BOB.ip, GINA.ip)),
        (reader("clerk", "view_approvalrequest"), ()),
    ):
        client.force_login(user)
        ensure_shows(client.get(link).content, key, *shown)
    assert downloads.READ_TRAIL == "jit_approval.view_auditevent"


def test_another_account_of_the_requesters_person_sees_no_approver_either(
    key: notes.Verifier, people: Any, settings: Any
) -> None:
    settings.JIT_APPROVAL = {**settings.JIT_APPROVAL, "PERSON_KEY": "email"}
    erin, bob, gina = people
    row = factories.held(erin, terms={"required_approvals": 2}, persons=(erin.email,), **ERIN)
    services.approve(row, by=bob, origin=BOB)
    services.approve(factories.fresh(row), by=gina, origin=GINA)
    spent = services.consume(factories.fresh(row), state_digest=factories.STATE)
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED)
    seal.seal(at_once=True)
    other = factories.user("erin-admin", is_superuser=True)
    other.email = erin.email
    other.save()
    ensure_shows(fetch(other, row).content, key)


def test_who_reads_the_trail_sees_and_finds_addresses(people: Any) -> None:
    ran_from = factories.held(people[0], **ERIN)
    auditor = client_of(reader("auditor", "view_auditevent"))
    page = auditor.get(reverse("admin:jit_approval_auditevent_change", args=[of("held").pk]))
    assert ERIN["ip"] in page.content.decode()
    found = auditor.get(LIST, {"text": ERIN["ip"]}).context["page"].events
    assert [event.approval_request for event in found] == [ran_from]
    assert not auditor.get(LIST, {"text": BOB.ip}).context["page"].events
    for form in ("jsonl", "ocsf"):
        lines = b"".join(auditor.get(f"{LIST}export/", {"format": form}).streaming_content)
        assert ERIN["ip"].encode() in lines

"""Verifying the database itself, and the command: what somebody with all rights on it changed is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import override_settings

from jit_approval import clock, health, keeping, services
from jit_approval.admin import integrity
from jit_approval.audit import chain, keys, links, live, notes, places, seal
from jit_approval.audit import verify as offline
from jit_approval.audit.findings import Kind
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Decision, Seal, TreeHead
from tests import factories
from tests.live_histories import Undone

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate(NAME, tmp_path / "trail.key")
    settings = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}
    with override_settings(JIT_APPROVAL=settings):
        yield public


def lived(requests: int = 3) -> None:
    """Some requests that went their ways, sealed a few at a time."""
    bob = factories.decider()
    for number in range(requests):
        row = factories.held(ip="192.0.2.7")
        if number % 3 == 0:
            services.reject(row, by=bob, comment="no")
        else:
            services.approve(row, by=bob)
            services.consume(factories.fresh(row), state_digest=factories.STATE)
        if number % 2:
            seal.seal(at_once=True)
    seal.seal(at_once=True)


def sql(text: str, *params: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text, params)


def test_a_trail_nobody_touched_is_verified(key: notes.Verifier) -> None:
    lived()
    report = live.verify([key])
    assert (report.status(), report.verified) == (0, AuditEvent.objects.count())
    bob = AuditEvent.objects.exclude(actor=None)[0].actor
    AuditEvent.objects.filter(actor=bob).update(actor=None)  # as on_delete does
    assert live.verify([key]).status() == 0


def test_what_is_not_sealed_yet_accuses_nobody_and_is_counted(key: notes.Verifier) -> None:
    lived()
    for _ in range(19):
        factories.held()
    waiting = AuditEvent.objects.filter(seal=None)
    oldest = int(min(waiting.values_list("at", flat=True)).timestamp())
    report = live.verify([key])
    assert (report.status(), report.is_sound, report.unfinished) == (3, True, [])
    assert (report.unsealed, report.unsealed_since) == (waiting.count(), oldest)
    assert f"not sealed  {waiting.count()}, the oldest of 20" in offline.as_text(report)
    assert report.as_json()["unsealed_since"] == oldest
    seal.seal(at_once=True)
    report = live.verify([key])
    assert (report.status(), report.unsealed, report.unsealed_since) == (0, 0, None)


@pytest.mark.parametrize("minutes", [6, -6], ids=["late", "not yet"])
def test_what_has_waited_for_too_long_is_said(key: notes.Verifier, minutes: int) -> None:
    lived()
    at = clock.now("default") - timedelta(minutes=minutes)
    chain.single_event("allowed", at=at, label="erin", data={}).save()
    report = live.verify([key])
    assert (report.status(), report.is_sound, report.unsealed) == (3, True, 1)
    assert report.unfinished == ["1 event has waited for more than 5 minutes to be sealed"]


def test_fresh_events_turn_neither_badge_nor_health_red(key: notes.Verifier) -> None:
    lived()
    factories.held()
    report = keeping.verify_if_due()
    assert report is not None
    assert report.status() == 3
    assert integrity.badge().css == "approved"
    found = {each.name: each.level for each in health.report().findings}
    assert (found["verification"], found["trail"]) == (health.Level.OK, health.Level.OK)


def test_a_trail_of_which_nothing_was_ever_signed_is_not_verified(key: notes.Verifier) -> None:
    report = live.verify([key])
    assert (report.status(), report.unfinished) == (3, ["there is no checkpoint"])
    seal.seal()
    assert live.verify([key]).status() == 0


def test_a_database_that_was_never_sealed_is_not_called_verified(key: notes.Verifier) -> None:
    factories.decider()
    factories.held()
    report = live.verify([key])
    assert (report.status(), report.verified) == (3, 0)


def of(index: int) -> Any:
    return AuditEvent.objects.filter(seal=index)


def rewritten(event: AuditEvent) -> dict[str, Any]:
    body = event.body.replace('"kind":"', '"kind":"x')
    return {"body": body, "hash": links.digest(event.previous_hash, body)}


def swap_places() -> None:
    one, two = Seal.objects.get(index=1), Seal.objects.get(index=2)
    Seal.objects.filter(index__in=[1, 2]).delete()
    Seal.objects.create(index=1, event_id=two.event_id, nodes=one.nodes)
    Seal.objects.create(index=2, event_id=one.event_id, nodes=two.nodes)


def last_statement() -> Any:
    return Checkpoint.objects.filter(number=Checkpoint.objects.latest("number").number)


def remove_event(pk: int) -> None:
    Seal.objects.filter(event_id=pk).delete()
    AuditEvent.objects.filter(pk=pk).delete()


WAYS: dict[str, tuple[Callable[[], object], int | None]] = {
    "content": (lambda: of(3).update(body=of(3).get().body.replace("at", "At", 1)), 3),
    "content and hash": (lambda: of(3).update(**rewritten(of(3).get())), None),
    "kind": (lambda: of(2).update(kind="approved?"), 2),
    "time": (lambda: of(2).update(at=clock.now("default")), 2),
    "label": (lambda: of(2).update(actor_label="eve"), 2),
    "account": (lambda: of(1).update(actor=factories.user()), 1),
    "state": (lambda: of(1).update(target="approved"), 1),
    "number": (lambda: of(1).update(sequence=9), 1),
    "previous hash": (lambda: of(1).update(previous_hash="0" * 64), 1),
    "request": (lambda: of(0).update(approval_request=None), 0),
    "seal": (lambda: Seal.objects.filter(index=4).delete(), None),
    "nodes": (lambda: Seal.objects.filter(index=4).update(nodes=bytes(32)), 4),
    "places": (swap_places, 1),
    "event": (lambda: remove_event(of(3).get().pk), None),
    "statement": (lambda: Checkpoint.objects.filter(number=1).delete(), None),
    "the last statement": (
        lambda: Checkpoint.objects.filter(number=0).update(
            note=Checkpoint.objects.latest("number").note
        ),
        None,
    ),
    "the number of the last statement": (lambda: last_statement().update(number=99), None),
    "the size beside a statement": (
        lambda: Checkpoint.objects.filter(number=1).update(size=1),
        None,
    ),
    "the kind beside a statement": (lambda: last_statement().update(kind="rotation"), None),
    "the time beside a statement": (
        lambda: last_statement().update(at=clock.now("default") + timedelta(hours=1)),
        None,
    ),
    "the head of a request": (
        lambda: ApprovalRequest.objects.filter(pk=of(0).get().approval_request_id).update(
            audit_head="0" * 64
        ),
        None,
    ),
}


@pytest.mark.parametrize(("change", "index"), WAYS.values(), ids=WAYS)
def test_every_change_in_the_database_is_found(
    key: notes.Verifier, change: Callable[[], object], index: int | None
) -> None:
    lived()
    assert live.verify([key]).status() == 0
    change()
    report = live.verify([key])
    assert report.status() == 1
    if index is not None:
        assert report.first is not None
        assert report.first.index == index


def test_an_event_removed_before_it_was_sealed_is_missing(key: notes.Verifier) -> None:
    lived()
    services.approve(factories.held(), by=factories.decider("late"))
    AuditEvent.objects.latest("pk").delete()
    report = live.verify([key])
    assert report.counts[Kind.MISSING] == 1


def test_a_request_without_any_event_is_found(key: notes.Verifier) -> None:
    lived()
    row = factories.held()
    AuditEvent.objects.filter(approval_request=row).delete()
    assert live.verify([key]).counts == {Kind.MISSING: 1}


def test_an_end_that_was_cut_off_shows_against_a_checkpoint_kept_elsewhere(
    key: notes.Verifier,
) -> None:
    lived()
    last = Checkpoint.objects.latest("number")
    before = Checkpoint.objects.get(number=last.number - 1)
    for row in Seal.objects.filter(index__gte=before.size).order_by("-index"):
        event, request = row.event, row.event.approval_request_id
        remove_event(event.pk)
        ApprovalRequest.objects.filter(pk=request).update(
            audit_seq=event.sequence - 1, audit_head=event.previous_hash
        )
    sql("DELETE FROM jit_approval_notification")
    Decision.objects.filter(approval_request__audit_seq=0).delete()
    ApprovalRequest.objects.filter(audit_seq=0).delete()
    last.delete()
    TreeHead.objects.update(size=before.size)
    assert live.verify([key]).status() == 0
    report = live.verify([key], last.note)
    assert report.first is not None
    assert (report.status(), report.first.kind) == (1, Kind.TRUNCATED)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("auditevent", "at"),
        ("auditevent", "approval_request_id"),
        ("checkpoint", "at"),
        ("seal", "event_id"),
    ],
)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="no other database keeps it")
def test_a_row_that_cannot_be_read_is_altered(key: notes.Verifier, table: str, column: str) -> None:
    lived()
    factories.held()
    last = f"(SELECT MAX(rowid) FROM jit_approval_{table})"
    with Undone():
        sql(f"UPDATE jit_approval_{table} SET {column} = 'nonsense' WHERE rowid = {last}")
        assert live.verify([key]).status() == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_places_that_were_given_and_not_signed_yet_are_compared_too(
    key: notes.Verifier, place: int, tmp_path: Path
) -> None:
    lived()
    size = TreeHead.objects.get().size
    for number in range(3):
        at = clock.now("default")
        chain.single_event("allowed", at=at, label="erin", data={"n": number}).save()
    sealer = seal._Sealer("default", keys.load(tmp_path / "trail.key", {}), {"sealed": 0})
    sealer._advance(list(places.waiting("default")))
    report = live.verify([key])
    assert (report.status(), report.is_sound, report.unsealed) == (3, True, 3)
    with Undone():
        Seal.objects.filter(index=size + place).delete()
        assert live.verify([key]).counts == {Kind.MISSING: 1}
    with Undone():
        Seal.objects.filter(index=size + place).update(nodes=bytes(32))
        assert live.verify([key]).counts == {Kind.ALTERED: 1}


def test_a_row_that_says_any_number_is_found_and_not_counted_up_to(key: notes.Verifier) -> None:
    lived()
    number = Checkpoint.objects.latest("number").number
    for rows, size in (
        (TreeHead.objects.all(), TreeHead.objects.get().size),
        (Checkpoint.objects.filter(number=number), Checkpoint.objects.get(number=number).size),
    ):
        rows.update(size=2**62)
        assert live.verify([key]).status() == 1
        rows.update(size=size)
    assert live.verify([key]).status() == 0


def test_who_says_that_all_is_sealed_hides_nothing_from_a_verification(key: notes.Verifier) -> None:
    lived()
    TreeHead.objects.update(settled=10**9)
    at = clock.now("default") - timedelta(minutes=6)
    chain.single_event("allowed", at=at, label="erin", data={}).save()
    report = live.verify([key])
    assert (report.status(), report.unfinished) == (
        3,
        ["1 event has waited for more than 5 minutes to be sealed"],
    )


def test_what_was_sealed_and_never_signed_is_said(key: notes.Verifier) -> None:
    lived()
    at = clock.now("default") - timedelta(minutes=6)
    chain.single_event("allowed", at=at, label="erin", data={}).save()
    seal.seal(at_once=True)
    Checkpoint.objects.latest("number").delete()
    report = live.verify([key])
    assert (report.status(), report.unfinished) == (
        3,
        ["1 event has waited for more than 5 minutes to be signed"],
    )


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command("approval_audit", *map(str, arguments), stdout=out, stderr=err)
    except SystemExit as error:
        return int(error.code or 0), out.getvalue() + err.getvalue()
    return 0, out.getvalue()


def test_keygen_prints_the_public_key_and_never_overwrites(tmp_path: Path) -> None:
    status, text = run("keygen", "--name", NAME, "--out", tmp_path / "key")
    assert status == 0
    assert notes.parse_verifier(text) == keys.load(tmp_path / "key", {}).verifier
    private = (tmp_path / "key").read_text()
    assert private.split("+", 4)[4].strip() not in text
    with pytest.raises(CommandError, match="No key was made"):
        run("keygen", "--name", NAME, "--out", tmp_path / "key")
    with pytest.raises(CommandError, match="no spaces"):
        run("keygen", "--name", "my trail", "--out", tmp_path / "other")
    assert (tmp_path / "key").read_text() == private


def test_seal_says_what_it_did_or_why_not(key: notes.Verifier) -> None:
    factories.decider()
    factories.held()
    assert run("seal") == (0, "sealed=1 signed=2 exported=0\n")
    Seal.objects.all().delete()
    with pytest.raises(CommandError, match="missing"):
        run("seal")


def test_seal_without_a_key_says_so() -> None:
    with pytest.raises(CommandError, match="AUDIT_KEY_FILE"):
        run("seal")


def test_rotate_hands_the_trail_over(key: notes.Verifier, tmp_path: Path) -> None:
    lived()
    public = keys.generate(NAME, tmp_path / "new.key")
    assert run("rotate", "--to", tmp_path / "new.key") == (0, f"{public}\n")
    with pytest.raises(CommandError, match="named its successor"):
        run("seal")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "new.key")}):
        assert run("seal")[0] == 0
    for trusted in (key, public):
        assert live.verify([trusted]).status() == 0
    with pytest.raises(CommandError, match="cannot be read"):
        run("rotate", "--to", tmp_path / "nothing")


def test_verify_ends_with_a_status_for_monitors(key: notes.Verifier, tmp_path: Path) -> None:
    lived()
    kept = tmp_path / "kept"
    kept.write_text(Checkpoint.objects.latest("number").note)
    status, text = run("verify", "--key", key, "--checkpoint", kept)
    assert (status, "truncation  checked" in text) == (0, True)
    status, text = run("verify")
    assert (status, "The key in use was trusted" in text) == (0, True)
    assert json.loads(run("verify", "--json")[1])["verified"] == AuditEvent.objects.count()
    assert run("verify", "--key", "nonsense")[0] == 2
    assert run("verify", "--checkpoint", tmp_path / "nothing")[0] == 2
    other = keys.generate(NAME, tmp_path / "other")
    assert run("verify", "--key", other)[0] == 4
    of(2).update(actor_label="eve")
    status, text = run("verify")
    assert status == 1
    assert "First: altered: event 2: its columns" in text


def test_verify_without_any_key_cannot_check() -> None:
    status, text = run("verify")
    assert (status, "cannot be checked" in text) == (2, True)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="no other database keeps such text")
@pytest.mark.parametrize(
    "column", ["body", "hash", "kind", "origin", "actor_label", "previous_hash"]
)
def test_text_that_is_none_is_altered_and_its_event_named(key: notes.Verifier, column: str) -> None:
    lived()
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE jit_approval_auditevent SET {column} = CAST(x'7bff' AS TEXT) WHERE id = %s",
            [of(2).get().pk],
        )
    status, text = run("verify")
    assert status == 1
    assert "First: altered: event 2: " in text
    # Elsewhere, nothing is read otherwise than before.
    with pytest.raises(OperationalError):
        list(AuditEvent.objects.values_list(column))

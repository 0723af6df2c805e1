"""`SEAL_BEFORE_EXECUTE` believes signatures and proofs, not rows that anybody could have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from jit_approval import services
from jit_approval.audit import checkpoints, keys, links, merkle, notes, places, seal
from jit_approval.checks import config
from jit_approval.exceptions import NotSealed
from jit_approval.models import ApprovalRequest, AuditEvent, Checkpoint, Seal, TreeHead
from jit_approval.states import Status
from tests import factories

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


def settings(**others: Any) -> Any:
    return override_settings(JIT_APPROVAL={"SEAL_BEFORE_EXECUTE": True, **others})


@pytest.fixture
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    """This process seals."""
    public = keys.generate(NAME, tmp_path / "trail.key")
    with settings(AUDIT_KEY_FILE=str(tmp_path / "trail.key")):
        yield public


@pytest.fixture
def row() -> ApprovalRequest:
    """A critical call that was approved."""
    bob = factories.decider("bob")
    made = factories.held(factories.user("erin"), terms={"severity": "critical"})
    services.approve(made, by=bob)
    return made


def consume(row: ApprovalRequest) -> ApprovalRequest:
    return services.consume(factories.fresh(row), state_digest=factories.STATE)


def ensure_refused(row: ApprovalRequest, caplog: pytest.LogCaptureFixture, match: str) -> None:
    with pytest.raises(NotSealed):
        consume(row)
    assert match in caplog.text
    assert factories.fresh(row).status == Status.APPROVED


def forge(row: ApprovalRequest, by: notes.Signer) -> None:
    """Seal the events of a request as the sealer does, without its key."""
    tree = merkle.Frontier()
    for index, event in enumerate(AuditEvent.objects.order_by("pk")):
        nodes = b"".join(tree.append(places.leaf(event)))
        Seal.objects.create(index=index, event=event, nodes=nodes)
    at = AuditEvent.objects.latest("pk").at
    statement = checkpoints.Checkpoint(NAME, tree.size, tree.root(), int(at.timestamp()))
    note = checkpoints.sign(statement, by)
    places.head("default")
    TreeHead.objects.update(size=tree.size)
    Checkpoint.objects.create(number=0, kind="checkpoint", size=tree.size, at=at, note=note)


def test_a_critical_call_runs_once_all_that_led_to_it_is_signed(
    key: notes.Verifier, row: ApprovalRequest
) -> None:
    assert not Seal.objects.exists()
    assert consume(row).status == Status.CONSUMED
    assert Checkpoint.objects.latest("number").size == 2


def test_a_critical_call_stays_one_though_its_row_says_otherwise(
    key: notes.Verifier, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    ApprovalRequest.objects.update(severity="low")
    ensure_refused(row, caplog, "not what was signed when it was held: severity")
    AuditEvent.objects.filter(sequence=1).update(sequence=9)
    ensure_refused(row, caplog, "Its events are not all there")


def test_an_approval_that_was_taken_back_stays_so_whatever_the_row_says(
    key: notes.Verifier, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    usable_until = factories.fresh(row).usable_until
    services.revoke(row, by=row.requester)
    as_before = {"status": "approved", "open_key": row.fingerprint, "due_at": usable_until}
    ApprovalRequest.objects.update(**as_before)
    ensure_refused(row, caplog, "That it was approved, and still is")


def test_a_call_that_is_not_critical_waits_for_no_seal(key: notes.Verifier) -> None:
    bob = factories.decider("bob")
    made = factories.held(factories.user("erin"), terms={"severity": "high"})
    services.approve(made, by=bob)
    assert consume(made).status == Status.CONSUMED
    assert not Seal.objects.exists()


def test_a_process_with_the_public_key_alone_runs_what_another_has_sealed(
    tmp_path: Path, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    public = keys.generate(NAME, tmp_path / "trail.key")
    with settings(AUDIT_PUBLIC_KEY=str(public)):
        ensure_refused(row, caplog, "There is no checkpoint")
        with settings(AUDIT_KEY_FILE=str(tmp_path / "trail.key")):
            seal.seal(at_once=True)
        assert consume(row).status == Status.CONSUMED


def test_a_process_without_any_key_runs_nothing_though_all_is_sealed(
    tmp_path: Path, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    keys.generate(NAME, tmp_path / "trail.key")
    with settings(AUDIT_KEY_FILE=str(tmp_path / "trail.key")):
        seal.seal(at_once=True)
    with settings():
        ensure_refused(row, caplog, "There is no key")
    with settings(AUDIT_PUBLIC_KEY="nonsense"):
        ensure_refused(row, caplog, "AUDIT_PUBLIC_KEY is no public key")
    with settings(AUDIT_KEY_FILE=str(tmp_path / "gone.key")):
        ensure_refused(row, caplog, "cannot be read")


def test_seals_and_a_checkpoint_by_another_key_make_nothing_run(
    key: notes.Verifier, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    forge(row, notes.Signer(NAME, b"x" * 32))
    ensure_refused(row, caplog, "not of the key in use: no trusted key signed it")


def test_a_checkpoint_of_our_key_that_was_changed_makes_nothing_run(
    key: notes.Verifier, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    seal.seal(at_once=True)
    last = Checkpoint.objects.latest("number")
    Checkpoint.objects.filter(pk=last.pk).update(note=last.note.replace("\n2\n", "\n3\n"))
    ensure_refused(row, caplog, "not of the key in use: the signature")
    Checkpoint.objects.filter(pk=last.pk).update(note="nonsense")
    ensure_refused(row, caplog, "not of the key in use")


def test_seals_added_beyond_the_last_checkpoint_make_nothing_run(
    tmp_path: Path, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    public = keys.generate(NAME, tmp_path / "trail.key")
    other = factories.held(factories.user(), terms={"severity": "critical"})
    with settings(AUDIT_KEY_FILE=str(tmp_path / "trail.key")):
        seal.seal(at_once=True)
    services.approve(other, by=factories.decider())
    event = AuditEvent.objects.latest("pk")
    Seal.objects.create(index=3, event=event, nodes=places.leaf(event))
    Checkpoint.objects.update(size=4)
    with settings(AUDIT_PUBLIC_KEY=str(public)):
        ensure_refused(other, caplog, "Not all of its events are sealed and signed")
        assert consume(row).status == Status.CONSUMED


def at(row: ApprovalRequest, number: int) -> Any:
    return AuditEvent.objects.filter(approval_request=row.pk, sequence=number)


def say(row: ApprovalRequest, number: int, old: str, new: str) -> None:
    """Change an event, with its hash and all that hangs on it but signatures."""
    event = at(row, number).get()
    body = event.body.replace(old, new)
    assert body != event.body
    after = links.digest(event.previous_hash, body)
    at(row, number).update(body=body, hash=after)
    if at(row, number + 1).update(previous_hash=after):
        later = at(row, number + 1).get()
        at(row, number + 1).update(hash=links.digest(after, later.body))
    end = AuditEvent.objects.filter(approval_request=row.pk).latest("sequence")
    ApprovalRequest.objects.filter(pk=row.pk).update(audit_head=end.hash)


def remove_the_last(row: ApprovalRequest) -> None:
    at(row, 2).get().seal.delete()
    at(row, 2).delete()


def give_a_place_of_another(row: ApprovalRequest) -> None:
    """The seal of an event that was signed, for one that was not."""
    event = at(row, 2).get()
    index, nodes = event.seal.index, event.seal.nodes
    event.seal.delete()
    stranger = AuditEvent.objects.exclude(approval_request=row.pk).latest("pk")
    Seal.objects.filter(event=stranger).update(event=event)
    Seal.objects.create(index=index, event=stranger, nodes=nodes)


REWRITTEN: dict[str, tuple[Callable[[ApprovalRequest], object], str]] = {
    "an event is gone": (remove_the_last, "not all there"),
    "an event is emptied": (lambda row: at(row, 2).update(body=""), "That it was approved"),
    "its content": (lambda row: at(row, 2).update(body="{}"), "do not follow one another"),
    "its content and hash": (
        lambda row: say(row, 2, '"bob"', '"eve"'),
        "not among those that were signed",
    ),
    "its place": (give_a_place_of_another, "not among those that were signed"),
    "its hash is none": (
        lambda row: (
            at(row, 2).update(hash="x", body=""),
            ApprovalRequest.objects.filter(pk=row.pk).update(audit_head="x"),
        ),
        "has no hash",
    ),
    "the call": (
        lambda row: ApprovalRequest.objects.filter(pk=row.pk).update(fingerprint="f" * 64),
        "about another call",
    ),
    "its terms": (
        lambda row: ApprovalRequest.objects.filter(pk=row.pk).update(usable_within=timedelta(1)),
        "not what was signed when it was held: usable_within",
    ),
    "what was shown": (
        lambda row: ApprovalRequest.objects.filter(pk=row.pk).update(payload="harmless"),
        "not what was signed when it was held: what was shown",
    ),
    "the hashes of the tree": (
        lambda row: Seal.objects.update(nodes=bytes(32)),
        "not among those that were signed",
    ),
    "the hashes of the tree, cut short": (
        lambda row: Seal.objects.update(nodes=b""),
        "is missing, or was cut short",
    ),
}


@pytest.mark.parametrize(("change", "match"), REWRITTEN.values(), ids=REWRITTEN)
def test_events_that_are_not_those_signed_make_nothing_run(
    key: notes.Verifier,
    row: ApprovalRequest,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[ApprovalRequest], object],
    match: str,
) -> None:
    factories.held()
    seal.seal(at_once=True)
    change(row)
    ensure_refused(row, caplog, match)


def test_an_approval_written_into_the_row_alone_makes_nothing_run(
    key: notes.Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    factories.decider()
    row = factories.held(terms={"severity": "critical"})
    until = row.created_at + row.usable_within * 10
    ApprovalRequest.objects.filter(pk=row.pk).update(
        status=Status.APPROVED, decided_at=row.created_at, usable_until=until, due_at=until
    )
    ensure_refused(row, caplog, "That it was approved")


def test_the_signed_events_of_another_call_make_nothing_run(
    key: notes.Verifier, row: ApprovalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    other = factories.held(terms={"severity": "critical"})
    seal.seal(at_once=True)
    AuditEvent.objects.filter(approval_request=other.pk).update(approval_request=None)
    AuditEvent.objects.filter(approval_request=row.pk).update(approval_request=other.pk)
    taken = ApprovalRequest.objects.get(pk=row.pk)
    ApprovalRequest.objects.filter(pk=other.pk).update(
        status=Status.APPROVED,
        audit_seq=taken.audit_seq,
        audit_head=taken.audit_head,
        usable_until=taken.usable_until,
        due_at=taken.due_at,
    )
    ensure_refused(other, caplog, "of another request")


def test_after_a_change_of_keys_the_new_key_vouches_and_the_old_one_does_not(
    key: notes.Verifier, row: ApprovalRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys.generate(NAME, tmp_path / "new.key")
    seal.rotate(keys.load(tmp_path / "new.key", {}))
    ensure_refused(row, caplog, "has named its successor")
    with settings(AUDIT_KEY_FILE=str(tmp_path / "new.key")):
        assert consume(row).status == Status.CONSUMED
    assert not Checkpoint.objects.filter(number__gt=2).exists()


def test_a_public_key_that_is_none_is_an_error(key: notes.Verifier) -> None:
    with settings(AUDIT_PUBLIC_KEY="nonsense"):
        assert [found.id for found in config.check()] == ["jit_approval.E010"]
    with settings(AUDIT_PUBLIC_KEY=str(key)):
        assert config.check() == []

"""The sealer and its export: every event once, nothing signed that was not committed, nothing ever overwritten."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from jit_approval import clock
from jit_approval.audit import (
    chain,
    checking,
    checkpoints,
    export,
    folder,
    keys,
    merkle,
    notes,
    places,
    records,
    seal,
)
from jit_approval.audit.findings import Report
from jit_approval.audit.records import Record
from jit_approval.models import AuditEvent, Checkpoint, Seal, TreeHead
from tests import audit_checker

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


class Trail:
    """A key, a directory to export to, and what is done with them."""

    def __init__(self, folder_: Path) -> None:
        self.key_file = folder_ / "trail.key"
        self.path = folder_ / "export"
        self.path.mkdir()
        self.key = keys.generate(NAME, self.key_file)

    def settings(self, **others: Any) -> dict[str, Any]:
        return {"AUDIT_KEY_FILE": str(self.key_file), "AUDIT_EXPORT_DIR": str(self.path)} | others

    def verify(self, kept: str | None = None) -> Report:
        export_ = folder.Folder(self.path)
        report = checking.verify(export_.events(), export_.statements(), [self.key], kept)
        report.unfinished += export_.unfinished
        return report


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Trail]:
    made = Trail(tmp_path)
    with override_settings(JIT_APPROVAL=made.settings()):
        yield made


def events(count: int) -> list[AuditEvent]:
    at = clock.now("default")
    made = [chain.single_event("allowed", at=at, label="erin", data={"n": n}) for n in range(count)]
    for event in made:
        event.save()
    return made


def later(**by: float) -> None:
    """Let time pass since the last statement."""
    last = Checkpoint.objects.order_by("-number")[0]
    Checkpoint.objects.filter(pk=last.pk).update(at=last.at - timedelta(**by))


def test_every_event_is_sealed_signed_and_exported_and_the_export_verifies(trail: Trail) -> None:
    events(7)
    assert seal.seal() == {"sealed": 0, "signed": 1, "exported": 1}
    assert seal.seal(at_once=True) == {"sealed": 7, "signed": 1, "exported": 1}
    report = trail.verify()
    assert (report.status(), report.verified, report.checkpoints) == (0, 7, 2)
    kept = Checkpoint.objects.latest("number").note
    assert audit_checker.is_sound(trail.path, str(trail.key), kept)
    assert seal.seal(at_once=True) == {"sealed": 0, "signed": 0, "exported": 0}


def test_without_a_key_nothing_is_sealed_and_nothing_fails() -> None:
    events(1)
    assert not seal.is_configured()
    assert seal.seal(at_once=True) == {"sealed": 0, "signed": 0, "exported": 0}
    assert not Seal.objects.exists()


def test_a_key_that_others_may_read_seals_nothing(trail: Trail) -> None:
    trail.key_file.chmod(0o644)
    events(1)
    with pytest.raises(keys.KeyUnavailable):
        seal.seal(at_once=True)
    assert not Seal.objects.exists()


def test_events_are_sealed_every_minute_and_an_idle_trail_is_signed_every_hour(
    trail: Trail,
) -> None:
    seal.seal()
    events(2)
    later(seconds=58)
    assert seal.seal()["signed"] == 0
    later(seconds=3)
    assert seal.seal() == {"sealed": 2, "signed": 1, "exported": 1}
    later(minutes=59)
    assert seal.seal()["signed"] == 0
    later(minutes=2)
    assert seal.seal() == {"sealed": 0, "signed": 1, "exported": 1}


def test_a_thousand_events_are_sealed_at_once(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "MOST", 10)
    seal.seal()
    events(25)
    assert seal.seal() == {"sealed": 20, "signed": 2, "exported": 2}
    assert seal.seal(at_once=True)["sealed"] == 5
    sizes = [row.size for row in Checkpoint.objects.all()]
    assert sizes == [0, 10, 20, 25]
    assert trail.verify().verified == 25


def test_an_event_that_commits_late_is_sealed_though_later_ones_were(trail: Trail) -> None:
    first, late, last = events(3)
    AuditEvent.objects.filter(pk=late.pk).delete()
    seal.seal(at_once=True)
    late.save(force_insert=True)
    assert late.pk < last.pk
    seal.seal(at_once=True)
    order = Seal.objects.order_by("pk").values_list("event_id", flat=True)
    assert list(order) == [first.pk, last.pk, late.pk]


def test_while_another_holds_the_lease_nothing_is_done_until_it_ends(trail: Trail) -> None:
    events(1)
    now = clock.now("default")
    places.head("default")
    TreeHead.objects.update(leased_until=now + timedelta(seconds=30), leased_by="another")
    assert seal.seal(at_once=True)["sealed"] == 0
    TreeHead.objects.update(leased_until=now - timedelta(seconds=1))
    assert seal.seal(at_once=True)["sealed"] == 1
    assert TreeHead.objects.get().leased_until is None


def test_a_sealer_that_wakes_up_after_another_went_on_neither_seals_nor_signs(trail: Trail) -> None:
    seal.seal(at_once=True)
    counts = {"sealed": 0, "signed": 0, "exported": 0}
    asleep = seal._Sealer("default", keys.load(trail.key_file, {}), counts)
    events(3)
    seal.seal(at_once=True)
    before = list(Checkpoint.objects.values_list("note", flat=True))
    events(1)
    with pytest.raises(seal._Overtaken):
        asleep.run(at_once=True)
    with pytest.raises(seal._Overtaken):
        asleep._sign()
    assert list(Checkpoint.objects.values_list("note", flat=True)) == before
    assert counts == {"sealed": 0, "signed": 0, "exported": 0}
    assert Seal.objects.count() == TreeHead.objects.get().size == 3


def test_a_sealer_that_died_between_sealing_and_signing_is_made_good(trail: Trail) -> None:
    seal.seal(at_once=True)
    dead = seal._Sealer("default", keys.load(trail.key_file, {}), {"sealed": 0, "signed": 0})
    dead._advance(events(3))
    later(minutes=1)
    TreeHead.objects.update(leased_until=clock.now("default") - timedelta(seconds=1))
    events(2)
    assert seal.seal(at_once=True) == {"sealed": 2, "signed": 2, "exported": 2}
    assert [row.size for row in Checkpoint.objects.all()] == [0, 3, 5]
    assert trail.verify().status() == 0


def ensure_refused(match: str) -> None:
    before = (Seal.objects.count(), Checkpoint.objects.count())
    events(1)
    with pytest.raises(seal.SealRefused, match=match):
        seal.seal(at_once=True)
    assert (Seal.objects.count(), Checkpoint.objects.count()) == before
    assert TreeHead.objects.get().leased_until is None


def test_a_database_restored_to_an_earlier_state_is_not_sealed_on(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    last = Checkpoint.objects.latest("number")
    Checkpoint.objects.filter(pk=last.pk).delete()
    Seal.objects.filter(index__gte=1).delete()
    TreeHead.objects.update(size=1)
    ensure_refused("restored, or rewritten")
    # Nor where the export was lost as well, but the statements were not.
    last.save(force_insert=True)
    ensure_refused("Was it restored|is missing|not those that were signed")


def test_a_head_that_was_put_back_is_not_sealed_on(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    TreeHead.objects.update(size=1)
    ensure_refused("has 1 sealed events, and 3 were signed")


def test_places_are_given_only_where_the_head_is(trail: Trail) -> None:
    seal.seal(at_once=True)
    asleep = seal._Sealer("default", keys.load(trail.key_file, {}), {"sealed": 0, "signed": 0})
    TreeHead.objects.update(size=7)
    with pytest.raises(seal._Overtaken):
        asleep._advance(events(1))
    assert not Seal.objects.exists()


def test_a_checkpoint_before_a_rotation_must_be_the_one_it_names(
    trail: Trail, tmp_path: Path
) -> None:
    events(3)
    keys.generate(NAME, tmp_path / "new.key")
    seal.rotate(keys.load(tmp_path / "new.key", {}))
    old = Checkpoint.objects.filter(kind="checkpoint").latest("number")
    Checkpoint.objects.filter(pk=old.pk).update(note=old.note.replace("time 1", "time 2"))
    settings = trail.settings(AUDIT_KEY_FILE=str(tmp_path / "new.key"), AUDIT_EXPORT_DIR="")
    with override_settings(JIT_APPROVAL=settings):
        ensure_refused("do not follow one another")


def test_a_seal_that_was_changed_is_not_signed_over(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    nodes = bytearray(Seal.objects.get(index=2).nodes)
    nodes[0] ^= 1
    Seal.objects.filter(index=2).update(nodes=bytes(nodes))
    ensure_refused("not those that were signed")


def test_a_statement_that_was_changed_is_not_gone_on_from(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    last = Checkpoint.objects.latest("number")
    with override_settings(JIT_APPROVAL=trail.settings(AUDIT_EXPORT_DIR="")):
        Checkpoint.objects.filter(pk=last.pk).update(note=last.note.replace("\n3\n", "\n2\n"))
        ensure_refused("not of the key in use")
        Checkpoint.objects.filter(pk=last.pk).update(note="nonsense")
        ensure_refused("not of the key in use")


def test_another_key_without_a_rotation_signs_nothing(trail: Trail, tmp_path: Path) -> None:
    seal.seal(at_once=True)
    keys.generate(NAME, tmp_path / "other.key")
    with override_settings(JIT_APPROVAL=trail.settings(AUDIT_KEY_FILE=str(tmp_path / "other.key"))):
        ensure_refused("not of the key in use")


def test_after_a_rotation_the_new_key_signs_and_the_old_one_no_more(
    trail: Trail, tmp_path: Path
) -> None:
    events(3)
    keys.generate(NAME, tmp_path / "new.key")
    seal.rotate(keys.load(tmp_path / "new.key", {}))
    ensure_refused("has named its successor")
    with override_settings(JIT_APPROVAL=trail.settings(AUDIT_KEY_FILE=str(tmp_path / "new.key"))):
        assert seal.seal(at_once=True) == {"sealed": 1, "signed": 1, "exported": 2}
    report = trail.verify()
    assert (report.status(), report.verified, len(report.keys)) == (0, 4, 2)


def test_what_was_sealed_is_signed_before_the_trail_is_handed_over(
    trail: Trail, tmp_path: Path
) -> None:
    seal.seal(at_once=True)
    keys.generate(NAME, tmp_path / "new.key")
    dead = seal._Sealer("default", keys.load(trail.key_file, {}), {"sealed": 0, "signed": 0})
    dead._advance(events(3))
    heir = seal._Sealer("default", keys.load(trail.key_file, {}), {"sealed": 0, "signed": 0})
    heir.succeed(keys.load(tmp_path / "new.key", {}))
    stated = Checkpoint.objects.values_list("kind", "size")
    assert list(stated) == [("checkpoint", 0), ("checkpoint", 3), ("rotation", 3)]


def test_a_key_of_another_name_or_the_same_key_is_no_successor(
    trail: Trail, tmp_path: Path
) -> None:
    keys.generate("other.example", tmp_path / "new.key")
    for path in (tmp_path / "new.key", trail.key_file):
        with pytest.raises(notes.KeyFormatError):
            seal.rotate(keys.load(path, {}))
    assert not Checkpoint.objects.filter(kind="rotation").exists()


def test_an_inclusion_proof_is_made_in_one_query(trail: Trail, django_assert_num_queries) -> None:
    made = events(11)
    seal.seal(at_once=True)
    statement = checkpoints.parse(notes.split(Checkpoint.objects.latest("number").note)[0])
    for index, event in enumerate(made):
        with django_assert_num_queries(1):
            steps = places.inclusion_proof("default", index, 11)
        leaf = merkle.leaf_hash(bytes.fromhex(event.hash))
        merkle.check_inclusion(leaf, index, 11, steps, statement.root)


# --- the export -----------------------------------------------------------------------------------------------------


def content(trail: Trail) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in trail.path.iterdir() if each.name[0] != "."}


def test_an_export_lost_midway_is_finished_and_nothing_of_it_is_overwritten(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "EVENTS_IN_A_FILE", 5)
    for count in (3, 9, 1, 7):
        events(count)
        seal.seal(at_once=True)
    whole = content(trail)
    assert len(whole) == 5
    random_ = random.Random(1)
    order = sorted(whole, key=lambda name: (name == folder.CHECKPOINTS, name))
    for _ in range(60):
        # As a crash leaves it: of files written in turn, a beginning. Statements come after their events.
        lines = whole[folder.CHECKPOINTS].splitlines(keepends=True)
        kept = random_.randrange(len(lines) + 1)
        for name in order:
            (trail.path / name).unlink(missing_ok=True)
        size = int(json.loads(lines[kept - 1])["note"].split("\n")[1]) if kept else 0
        cut = sum(len(each) for name, each in whole.items() if name != folder.CHECKPOINTS)
        every = b"".join(whole[name] for name in order[:-1]).splitlines(keepends=True)
        cut = random_.randrange(sum(map(len, every[:size])), cut + 1)
        for name in order[:-1]:
            part = whole[name][:cut]
            cut -= len(part)
            if part:
                (trail.path / name).write_bytes(part)
        tail = lines[kept][: random_.randrange(len(lines[kept]))] if kept < len(lines) else b""
        (trail.path / folder.CHECKPOINTS).write_bytes(b"".join(lines[:kept]) + tail)
        assert export.Exporter(trail.path, "default").run() == len(lines) - kept
        assert content(trail) == whole


def test_what_was_changed_in_an_unfinished_export_is_not_written_over(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    path = trail.path / folder.events_file(0)
    whole = path.read_bytes()
    lines = (trail.path / folder.CHECKPOINTS).read_bytes().splitlines(keepends=True)
    (trail.path / folder.CHECKPOINTS).write_bytes(lines[0])
    path.write_bytes(whole.replace(b"erin", b"evil", 1))
    before = content(trail)
    with pytest.raises(seal.SealRefused, match="another line"):
        seal.seal(at_once=True)
    assert content(trail) == before


def test_an_export_with_more_than_was_sealed_stops_everything(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    path = trail.path / folder.events_file(0)
    path.write_bytes(path.read_bytes() + b'{"index":3}\n')
    events(1)
    with pytest.raises(seal.SealRefused, match=r"another line|fewer lines"):
        seal.seal(at_once=True)


def test_events_in_an_export_that_the_database_has_not_sealed_stop_everything(trail: Trail) -> None:
    events(2)
    seal.seal(at_once=True)
    first_line = (trail.path / folder.CHECKPOINTS).read_bytes().splitlines(keepends=True)[0]
    (trail.path / folder.CHECKPOINTS).write_bytes(first_line)
    path = trail.path / folder.events_file(0)
    beyond = records.as_line(Record(2, "0" * 64, "", "{}"))
    path.write_bytes(path.read_bytes() + beyond)
    with pytest.raises(seal.SealRefused, match="more than the database has sealed"):
        seal.seal(at_once=True)
    assert path.read_bytes().endswith(beyond)


def test_an_export_that_lost_events_is_not_gone_on_with(trail: Trail) -> None:
    events(3)
    seal.seal(at_once=True)
    path = trail.path / folder.events_file(0)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    events(1)
    with pytest.raises(seal.SealRefused, match="fewer lines"):
        seal.seal(at_once=True)


def test_a_directory_that_is_not_there_is_not_made_and_sealing_waits(trail: Trail) -> None:
    trail.path.rmdir()
    events(1)
    with pytest.raises(seal.SealRefused, match="Is it mounted"):
        seal.seal(at_once=True)
    assert not trail.path.exists()
    assert not Seal.objects.exists()
    trail.path.mkdir()
    seal.seal(at_once=True)
    assert trail.verify().verified == 1


def test_a_directory_that_cannot_be_written_loses_nothing(trail: Trail) -> None:
    events(1)
    (trail.path / ".lock").mkdir()
    with pytest.raises(export.ExportFailed):
        seal.seal(at_once=True)
    assert TreeHead.objects.get().size == 1
    (trail.path / ".lock").rmdir()
    events(1)
    seal.seal(at_once=True)
    assert (trail.verify().status(), trail.verify().verified) == (0, 2)


def test_events_of_any_text_are_exported_as_they_are(trail: Trail) -> None:
    text = '\u202e"\\ \n\r\t\x00\x7f\u2028 💥'
    if connection.vendor == "postgresql":
        text = text.replace("\x00", "")
    event = chain.single_event(
        "allowed", at=clock.now("default"), label="erin", data={"comment": text}
    )
    event.save()
    seal.seal(at_once=True)
    assert trail.verify().status() == 0
    line = (trail.path / folder.events_file(0)).read_text()
    assert json.loads(json.loads(line)["body"])["data"]["comment"] == text

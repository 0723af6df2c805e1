"""Single events with their proofs: each is signed or not, whatever else is in the file."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jit_approval.audit import checkpoints, folder, links, merkle, notes, ocsf, proofs, verify
from jit_approval.audit.findings import Report
from jit_approval.audit.proofs import Proven
from jit_approval.audit.records import Record
from jit_approval.audit.selection import Selection, unsealed_line
from tests.audit_histories import Writer, honest, signer

KEY = signer().verifier


def proven(writer: Writer, note: str) -> list[Proven]:
    """The events under a checkpoint, each with its proof."""
    size = checkpoints.parse(notes.split(note)[0]).size
    leaves = [merkle.leaf_hash(record.leaf) for record in writer.history.events[:size]]

    def node(level: int, position: int) -> bytes:
        if level == 0:
            return leaves[position]
        return merkle.node_hash(node(level - 1, 2 * position), node(level - 1, 2 * position + 1))

    return [
        Proven(record, size, tuple(merkle.inclusion_proof(record.index, size, node)))
        for record in writer.history.events[:size]
    ]


def some(count: int = 9) -> tuple[Writer, list[Proven], str]:
    writer = Writer()
    for number in range(count):
        writer.event(f"request-{number % 2}", "held", {"number": number})
    note = writer.checkpoint()
    return writer, proven(writer, note), note


def checked(path: Path, *lines: bytes) -> Report:
    file = path / "selection.jsonl"
    file.write_bytes(b"".join(lines))
    return Selection(file).verify([KEY])


def test_each_event_of_a_selection_is_verified(tmp_path: Path) -> None:
    _, events, note = some()
    lines = [proofs.as_line(event) for event in events[3:7]]
    report = checked(tmp_path, *lines, folder.note_line(note))
    assert (report.status(), report.verified, report.events) == (0, 4, 4)
    # A log has them in any order, and some twice.
    assert checked(tmp_path, folder.note_line(note), *lines[::-1], lines[0]).status() == 0


def test_an_event_in_another_place_or_with_another_content_is_found(tmp_path: Path) -> None:
    _, events, note = some()
    line = folder.note_line(note)
    moved = replace(events[2], record=replace(events[2].record, index=3))
    body = (events[2].record.body or "").replace("held", "heel")
    forged = replace(events[2], record=replace(events[2].record, body=body))
    hashed = replace(forged, record=replace(forged.record, hash=links.digest("", body)))
    for bad in (moved, forged, hashed, replace(events[2], steps=events[3].steps)):
        report = checked(tmp_path, line, proofs.as_line(bad))
        assert (report.status(), report.counts["altered"]) == (1, 1)


def test_an_event_without_its_checkpoint_is_not_verified(tmp_path: Path) -> None:
    _, events, _ = some()
    report = checked(tmp_path, proofs.as_line(events[0]))
    assert (report.status(), report.verified) == (1, 0)


def test_a_statement_by_a_stranger_is_not_believed(tmp_path: Path) -> None:
    _, events, note = some()
    forged = notes.sign(notes.split(note)[0], signer("an attacker's"))
    report = checked(tmp_path, folder.note_line(forged), proofs.as_line(events[0]))
    assert (report.status(), report.verified, report.counts) == (4, 0, {})
    # Beside one that is trusted, it does not belong there.
    lines = [folder.note_line(note), folder.note_line(forged), proofs.as_line(events[0])]
    report = checked(tmp_path, *lines)
    assert (report.status(), report.counts["unsigned"]) == (1, 1)


def test_statements_of_an_earlier_key_are_not_judged_with_the_later_alone(tmp_path: Path) -> None:
    writer, events, note = some()
    second = signer("the second")
    lines = [note, writer.rotate(second), writer.checkpoint()]
    (tmp_path / "some.jsonl").write_bytes(
        b"".join(map(folder.note_line, lines)) + proofs.as_line(events[0])
    )
    selected = Selection(tmp_path / "some.jsonl")
    assert selected.verify([second.verifier]).status() == 4
    assert selected.verify([second.verifier, KEY]).status() == 0
    # A stranger's is unsigned all the same.
    with (tmp_path / "some.jsonl").open("ab") as file:
        file.write(folder.note_line(notes.sign(notes.split(note)[0], signer("an attacker's"))))
    assert selected.verify([second.verifier]).status() == 1


def test_two_histories_under_one_key_are_found(tmp_path: Path) -> None:
    _, _, note = some()
    other = Writer()
    for _ in range(9):
        other.event(None, "allowed", {})
    report = checked(tmp_path, folder.note_line(note), folder.note_line(other.checkpoint()))
    assert "split" in str(report.first)


def test_what_left_before_it_was_sealed_and_was_never_sealed_is_told(tmp_path: Path) -> None:
    _, events, note = some()
    early = [unsealed_line(event.record) for event in events]
    sealed = [proofs.as_line(event) for event in events]
    line = folder.note_line(note)
    report = checked(tmp_path, *early, *sealed, line)
    assert (report.status(), report.verified, report.unsealed) == (0, 9, 0)
    # Somebody changed one in the database before it was sealed.
    report = checked(tmp_path, *early, *sealed[:4], *sealed[5:], line)
    assert (report.status(), report.unsealed) == (3, 1)
    record = events[0].record
    forged = unsealed_line(replace(record, body=(record.body or "") + " "))
    assert checked(tmp_path, forged, line).status() == 1


def test_what_is_no_line_of_a_selection_is_altered(tmp_path: Path) -> None:
    _, events, note = some()
    good = proofs.as_line(events[0])
    for bad in (b"\n", b"{}\n", good[:-1], good.replace(b",", b", ", 1), b'{"note": "x"}\n'):
        assert checked(tmp_path, folder.note_line(note), bad).status() == 1


def test_random_changes_are_all_found(tmp_path: Path) -> None:
    random_ = random.Random(3)
    for number in range(150):
        writer = honest(random_, 30)
        note = writer.history.notes[-1]
        events = [event for event in proven(writer, note) if event.record.body is not None]
        lines = [
            *[folder.note_line(each) for each in writer.history.notes],
            *[proofs.as_line(event) for event in events],
        ]
        report = checked(tmp_path, *lines)
        assert report.status() == 0, report.findings
        raw = bytearray(b"".join(lines))
        raw[random_.randrange(len(raw))] ^= 1 << random_.randrange(8)
        assert checked(tmp_path, bytes(raw)).status() == 1, f"case {number}"


def test_contents_that_were_erased_are_told(tmp_path: Path) -> None:
    _, events, note = some()
    bare = replace(events[1], record=Record(1, events[1].record.hash, "", None))
    report = checked(tmp_path, folder.note_line(note), proofs.as_line(bare))
    assert (report.status(), report.verified) == (3, 1)
    assert report.unfinished[0].startswith("1 event has no content")


def test_what_is_something_else_accuses_nobody_and_is_not_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, events, note = some()
    made = ocsf.event(events[0], at=datetime(2026, 11, 24, tzinfo=UTC))
    for content, why in {
        b"": "it is empty",
        ocsf.as_line(made): "as OCSF has them",
        json.dumps(made, indent=2).encode(): "it is no receipt",
        b"some text\nand more\n": "it is no selection",
        bytes(range(256)): "it is no selection",
        b'{"name": "a-package"}\n': "it is no selection",
    }.items():
        file = tmp_path / "some"
        file.write_bytes(content)
        assert verify.main([str(file), "--key", str(KEY)]) == 2
        assert why in capsys.readouterr().err
    # A statement alone makes it one.
    file.write_bytes(folder.note_line(note) + b"some text\n")
    assert verify.main([str(file), "--key", str(KEY)]) == 1


def test_the_command_takes_a_selection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, events, note = some()
    file = tmp_path / "some.jsonl"
    file.write_bytes(folder.note_line(note) + proofs.as_line(events[5]))
    assert verify.main([str(file), "--key", str(KEY)]) == 0
    assert "verified    1 of 1 event\n" in capsys.readouterr().out
    assert verify.main([str(file), "--key", str(KEY), "--checkpoint", str(file)]) == 2

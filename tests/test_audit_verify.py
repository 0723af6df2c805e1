"""Verifying an export: nothing honest is accused, nothing changed is missed, and what was not checked is said."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jit_approval.audit import (
    checking,
    checkpoints,
    findings,
    folder,
    links,
    merkle,
    notes,
    records,
    verify,
)
from jit_approval.audit.checkpoints import Checkpoint
from jit_approval.audit.findings import Kind, Report
from jit_approval.audit.records import Record
from tests.audit_histories import ORIGIN, Writer, erase, signer

KEY = signer().verifier
OTHER = signer("an attacker's")


def checked(path: Path, *keys: notes.Verifier, kept: str | None = None) -> Report:
    export = folder.Folder(path)
    report = checking.verify(export.events(), export.statements(), keys or (KEY,), kept)
    report.unfinished += export.unfinished
    return report


def some(events: int = 10, every: int = 5) -> Writer:
    """Two requests, taking turns."""
    writer = Writer()
    for number in range(events):
        writer.event(f"request-{number % 2}", "held", {"number": number})
        if (number + 1) % every == 0:
            writer.checkpoint()
    return writer


def rehashed(record: Record, body: str) -> Record:
    return replace(record, body=body, hash=links.digest(record.previous, body))


def first(report: Report) -> tuple[Kind, int | None]:
    assert report.status() == 1
    assert report.first is not None
    return report.first.kind, report.first.index


def test_an_honest_trail_is_verified(tmp_path: Path) -> None:
    report = checked(some().history.write(tmp_path))
    assert (report.status(), report.verified, report.events) == (0, 10, 10)
    assert (report.origin, report.checkpoints, report.keys) == (ORIGIN, 2, [str(KEY)])
    assert report.time == 1_764_000_060
    assert not report.truncation_checked


def test_a_changed_event_is_named(tmp_path: Path) -> None:
    history = some().history
    history.events[3] = replace(history.events[3], body=history.events[3].body.replace("held", "sold"))  # type: ignore[union-attr]  # fmt: skip
    report = checked(history.write(tmp_path))
    assert first(report) == (Kind.ALTERED, 3)
    assert report.verified == 0


def test_a_changed_event_whose_hash_was_changed_with_it_is_named_by_the_next_of_its_request(
    tmp_path: Path,
) -> None:
    history = some().history
    history.events[6] = rehashed(history.events[6], history.events[6].body.replace("held", "sold"))  # type: ignore[union-attr]  # fmt: skip
    report = checked(history.write(tmp_path))
    assert first(report) == (Kind.ALTERED, 8)
    assert "it, or event 6 before it, was changed" in str(report.first)
    # The tree was right up to the checkpoint before.
    assert report.verified == 5


def test_a_trail_rewritten_from_one_event_on_is_not_what_was_signed(tmp_path: Path) -> None:
    true, writer = some(), Writer()
    for number in range(10):
        writer.event(f"request-{number % 2}", "held", {"number": number + (number == 6)})
    writer.history.notes = true.history.notes
    report = checked(writer.history.write(tmp_path))
    assert first(report) == (Kind.ALTERED, 5)
    assert "before event 10" in str(report.first)


def test_a_missing_event_is_named(tmp_path: Path) -> None:
    history = some().history
    del history.events[4]
    assert first(checked(history.write(tmp_path))) == (Kind.MISSING, 4)


def test_events_that_changed_places_are_named(tmp_path: Path) -> None:
    history = some().history
    history.events[2], history.events[3] = history.events[3], history.events[2]
    assert first(checked(history.write(tmp_path))) == (Kind.REORDERED, 2)


def test_an_event_that_is_there_twice_is_named(tmp_path: Path) -> None:
    history = some().history
    history.events.insert(4, history.events[3])
    assert first(checked(history.write(tmp_path))) == (Kind.REORDERED, 3)


def test_an_event_that_was_never_sealed_though_a_later_one_of_its_request_was_is_missing(
    tmp_path: Path,
) -> None:
    writer = Writer()
    writer.event("a", "held", {})
    writer.heads["a"] = (2, links.digest("", "gone"))
    writer.event("a", "consumed", {})
    writer.checkpoint()
    assert first(checked(writer.history.write(tmp_path))) == (Kind.MISSING, 1)


@pytest.mark.parametrize(("sequence", "previous"), [(2, ""), (1, "0" * 64)])
def test_an_event_of_no_request_follows_no_other(
    tmp_path: Path, sequence: int, previous: str
) -> None:
    writer = Writer()
    text = links.canonical({"request": None, "sequence": sequence, "kind": "allowed"})
    writer.append(Record(0, links.digest(previous, text), previous, text))
    writer.checkpoint()
    assert first(checked(writer.history.write(tmp_path))) == (Kind.ALTERED, 0)


def test_a_trail_cut_off_below_its_last_checkpoint_is_truncated(tmp_path: Path) -> None:
    history = some().history
    del history.events[7:]
    report = checked(history.write(tmp_path))
    assert first(report) == (Kind.TRUNCATED, 7)
    assert report.verified == 5


def test_a_trail_cut_off_with_its_checkpoints_shows_against_one_kept_elsewhere_alone(
    tmp_path: Path,
) -> None:
    history = some().history
    kept = history.notes.pop()
    del history.events[5:]
    history.write(tmp_path)
    alone = checked(tmp_path)
    assert (alone.status(), alone.truncation_checked) == (0, False)
    assert "not checked" in verify.as_text(alone)
    report = checked(tmp_path, kept=kept)
    assert first(report) == (Kind.TRUNCATED, 5)
    assert report.truncation_checked


def test_a_statement_kept_elsewhere_that_is_no_more_there_shows_though_all_events_are(
    tmp_path: Path,
) -> None:
    writer = some()
    kept = writer.checkpoint()
    writer.history.notes.pop()
    report = checked(writer.history.write(tmp_path), kept=kept)
    assert first(report) == (Kind.TRUNCATED, None)


def test_a_trail_grown_beyond_the_checkpoint_kept_elsewhere_is_verified(tmp_path: Path) -> None:
    history = some(30).history
    report = checked(history.write(tmp_path), kept=history.notes[2])
    assert (report.status(), report.truncation_checked) == (0, True)


def test_another_history_signed_by_the_same_key_shows_against_the_checkpoint_kept(
    tmp_path: Path,
) -> None:
    kept = some().history.notes[0]
    forked = Writer()
    for number in range(10):
        forked.event("another", "held", {"number": number})
    forked.checkpoint()
    report = checked(forked.history.write(tmp_path), kept=kept)
    assert first(report)[0] is Kind.ALTERED


def test_a_checkpoint_kept_elsewhere_that_no_trusted_key_signed_proves_nothing(
    tmp_path: Path,
) -> None:
    writer = some()
    strange = Writer(OTHER)
    strange.event("a", "held", {})
    report = checked(writer.history.write(tmp_path), kept=strange.checkpoint())
    assert (report.status(), report.counts) == (findings.NOT_JUDGED, {})
    assert not report.truncation_checked


def test_a_checkpoint_of_an_earlier_key_is_compared_where_a_later_key_vouches_for_it(
    tmp_path: Path,
) -> None:
    writer, second = some(), signer("the second")
    writer.rotate(second)
    kept = writer.history.notes[1]
    writer.checkpoint()
    report = checked(writer.history.write(tmp_path), second.verifier, kept=kept)
    assert (report.status(), report.truncation_checked) == (0, True)
    # One that is not among these is nothing that the later key vouches for.
    other = some(15).history.notes[-1]
    report = checked(tmp_path, second.verifier, kept=other)
    assert (report.status(), report.truncation_checked) == (findings.NOT_JUDGED, False)


def test_statements_that_were_all_replaced_are_unsigned_where_a_checkpoint_was_kept(
    tmp_path: Path,
) -> None:
    kept, writer = some().history.notes[0], Writer(OTHER)
    for number in range(10):
        writer.event(f"request-{number % 2}", "held", {"number": number})
        if number == 4:
            again = writer.checkpoint()
    writer.checkpoint()
    # To the letter the same but for the signature, and then another.
    assert notes.split(again)[0] == notes.split(kept)[0]
    report = checked(writer.history.write(tmp_path), kept=kept)
    assert first(report) == (Kind.UNSIGNED, None)
    assert checked(tmp_path).status() == findings.NOT_JUDGED


def test_a_kept_checkpoint_whose_signature_is_wrong_is_not_believed(tmp_path: Path) -> None:
    writer = some()
    text, signed = writer.history.notes[-1].split("\n\n")
    wrong = text + "\n\n" + writer.history.notes[0].split("\n\n")[1]
    report = checked(writer.history.write(tmp_path), kept=wrong)
    assert first(report) == (Kind.UNSIGNED, None)
    assert signed


def test_a_checkpoint_of_another_trail_cannot_be_compared(tmp_path: Path) -> None:
    writer = some()
    point = Checkpoint("other.example", 0, merkle.EMPTY_ROOT, 1)
    with pytest.raises(notes.NoteError, match="another trail"):
        checked(writer.history.write(tmp_path), kept=checkpoints.sign(point, signer()))


def test_a_trail_signed_by_another_key_is_not_judged_and_never_right(tmp_path: Path) -> None:
    writer = some()
    erase(writer, random.Random(1))
    writer.checkpoint()
    report = checked(writer.history.write(tmp_path), OTHER.verifier)
    assert (report.status(), report.counts) == (findings.NOT_JUDGED, {})
    assert not report.is_sound
    assert (report.verified, report.erased) == (0, 0)
    text = verify.as_text(report)
    assert "CANNOT BE JUDGED WITH THESE KEYS" in text
    assert "as it was." not in text


def test_what_needs_no_key_to_be_found_wrong_is_found_with_a_wrong_key(tmp_path: Path) -> None:
    for change in ("altered", "missing", "erased"):
        history = some().history
        if change == "altered":
            history.events[3] = replace(history.events[3], hash="0" * 64)
        elif change == "missing":
            del history.events[3]
        else:
            history.events[3] = Record(3, history.events[3].hash, "", None)
        report = checked(history.write(tmp_path), OTHER.verifier)
        assert report.status() == 1, change


def test_statements_by_strangers_after_a_trusted_one_are_unsigned(tmp_path: Path) -> None:
    writer = some()
    writer.by = OTHER
    writer.checkpoint()
    assert first(checked(writer.history.write(tmp_path))) == (Kind.UNSIGNED, None)


def test_a_statement_by_a_stranger_amid_trusted_ones_is_found(tmp_path: Path) -> None:
    writer = some()
    writer.by = OTHER
    writer.checkpoint()
    writer.by = signer()
    writer.checkpoint()
    report = checked(writer.history.write(tmp_path))
    assert first(report) == (Kind.UNSIGNED, None)


def test_an_old_checkpoint_replayed_is_found(tmp_path: Path) -> None:
    history = some().history
    history.notes.append(history.notes[0])
    assert first(checked(history.write(tmp_path)))[0] is Kind.ALTERED
    history.notes[1:] = [history.notes[0]]
    assert checked(history.write(tmp_path)).status() == 1


def test_a_checkpoint_left_out_is_found(tmp_path: Path) -> None:
    history = some(20).history
    del history.notes[1]
    assert "does not follow" in str(checked(history.write(tmp_path)).first)


def rotated() -> Writer:
    writer = some()
    writer.rotate(signer("the second"))
    writer.event("request-0", "approved", {})
    writer.checkpoint()
    return writer


def test_a_key_named_by_a_trusted_one_is_trusted_and_reported(tmp_path: Path) -> None:
    report = checked(rotated().history.write(tmp_path))
    assert (report.status(), report.verified) == (0, 11)
    assert report.keys == [str(KEY), str(signer("the second").verifier)]


def test_with_the_newest_key_alone_what_came_before_it_is_verified_too(tmp_path: Path) -> None:
    writer = rotated()
    report = checked(writer.history.write(tmp_path), signer("the second").verifier)
    assert (report.status(), report.verified) == (0, 11)
    history = writer.history
    history.events[2] = rehashed(history.events[2], history.events[2].body.replace("held", "sold"))  # type: ignore[union-attr]  # fmt: skip
    assert checked(history.write(tmp_path), signer("the second").verifier).status() == 1


def test_a_key_that_named_its_successor_is_believed_no_more(tmp_path: Path) -> None:
    writer = rotated()
    writer.by = signer()
    writer.checkpoint()
    for keys in [(KEY,), (KEY, signer("the second").verifier)]:
        assert first(checked(writer.history.write(tmp_path), *keys)) == (Kind.UNSIGNED, None)


def test_a_stranger_cannot_name_itself_the_successor(tmp_path: Path) -> None:
    writer = some()
    writer.by = OTHER
    writer.rotate(OTHER)
    writer.event("request-0", "approved", {})
    writer.checkpoint()
    report = checked(writer.history.write(tmp_path))
    assert first(report) == (Kind.UNSIGNED, None)
    assert report.verified == 10
    assert report.keys == [str(KEY)]


def test_a_trail_of_another_name_is_refused_though_its_key_is_trusted(tmp_path: Path) -> None:
    writer = some()
    elsewhere = notes.Signer("other.example/trail", bytes(32))
    report = checked(writer.history.write(tmp_path), elsewhere.verifier)
    assert report.status() == findings.NOT_JUDGED


def test_a_signer_that_went_back_is_found_though_it_signed_properly(tmp_path: Path) -> None:
    writer = some()
    first_point = checkpoints.parse(notes.split(writer.history.notes[0])[0])
    assert isinstance(first_point, Checkpoint)
    back = replace(first_point, time=writer.time, after=writer.after)
    writer.history.notes.append(checkpoints.sign(back, signer()))
    assert first(checked(writer.history.write(tmp_path))) == (Kind.REORDERED, None)


def test_a_statement_about_another_trail_is_refused_whoever_signed_it(tmp_path: Path) -> None:
    writer = some()
    elsewhere = notes.Signer("other.example/trail", bytes(32))
    point = checkpoints.parse(notes.split(writer.history.notes[1])[0])
    assert isinstance(point, Checkpoint)
    other = replace(point, origin=elsewhere.name, time=writer.time, after=writer.after)
    writer.history.notes.append(checkpoints.sign(other, elsewhere))
    report = checked(writer.history.write(tmp_path), KEY, elsewhere.verifier)
    assert "is about another trail" in str(report.first)
    # And one that only says so, under a key of this one.
    alone = replace(point, origin=elsewhere.name, after=None)
    writer.history.notes[:] = [checkpoints.sign(alone, signer())]
    report = checked(writer.history.write(tmp_path))
    assert "signed by the key of another trail" in str(report.first)


def test_what_was_erased_by_an_act_in_the_trail_is_counted(tmp_path: Path) -> None:
    writer = some(20)
    erase(writer, random.Random(3))
    writer.checkpoint()
    gone = sum(event.body is None for event in writer.history.events)
    report = checked(writer.history.write(tmp_path))
    assert (report.status(), report.erased, report.verified) == (0, gone, 21)
    assert f"{gone} by authority" in verify.as_text(report)


def test_content_that_is_gone_without_an_act_is_missing(tmp_path: Path) -> None:
    history = some().history
    history.events[7] = Record(7, history.events[7].hash, "", None)
    assert first(checked(history.write(tmp_path))) == (Kind.MISSING, 7)


def test_an_act_of_erasure_that_nobody_signed_for_allows_nothing(tmp_path: Path) -> None:
    writer = some()
    erase(writer, random.Random(3))
    assert first(checked(writer.history.write(tmp_path)))[0] is Kind.MISSING


def test_an_act_of_erasure_allows_nothing_that_comes_after_it(tmp_path: Path) -> None:
    writer = some()
    writer.event(None, "erased", {"leaves": [[0, 1000]]})
    writer.event("request-1", "approved", {})
    writer.checkpoint()
    events = writer.history.events
    events[11] = Record(11, events[11].hash, "", None)
    assert first(checked(writer.history.write(tmp_path))) == (Kind.MISSING, 11)


def test_events_beyond_the_last_checkpoint_are_not_called_verified(tmp_path: Path) -> None:
    writer = some()
    writer.event("request-0", "approved", {})
    report = checked(writer.history.write(tmp_path))
    assert (report.status(), report.verified, report.unsealed) == (3, 10, 1)


def test_an_export_without_any_checkpoint_is_not_called_verified(tmp_path: Path) -> None:
    writer = Writer()
    writer.event("a", "held", {})
    report = checked(writer.history.write(tmp_path))
    assert (report.status(), report.verified) == (3, 0)
    assert checked(Writer().history.write(tmp_path)).status() == 3


@pytest.mark.parametrize("name", [folder.events_file(0), folder.CHECKPOINTS])
def test_a_half_written_line_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    writer = some()
    writer.history.write(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b'{"index":10,"prev')
    report = checked(tmp_path)
    assert (report.status(), report.verified) == (3, 10)
    assert report.unfinished == [f"{name}: its last line is half-written"]


def test_a_clock_that_went_back_is_named_and_accuses_nobody(tmp_path: Path) -> None:
    writer = some()
    writer.time -= 3600
    writer.checkpoint()
    report = checked(writer.history.write(tmp_path))
    assert report.status() == 0
    assert report.warnings == ["statement 3 of the signer: the clock went back by 3,540 seconds"]


def test_a_line_too_long_to_be_an_event_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = some().history
    history.write(tmp_path)
    lines = (tmp_path / folder.events_file(0)).read_bytes().splitlines(keepends=True)
    lines[4] = b"x" * 5000 + b"\n"
    (tmp_path / folder.events_file(0)).write_bytes(b"".join(lines))
    monkeypatch.setattr(records, "MAX_LINE", 1000)
    assert first(checked(tmp_path)) == (Kind.ALTERED, 4)


def test_an_export_in_several_files_is_read_in_order_and_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "EVENTS_IN_A_FILE", 4)
    history = some().history
    history.write(tmp_path)
    (tmp_path / folder.events_file(0)).unlink()
    for event in history.events:
        with (tmp_path / folder.events_file(event.index)).open("ab") as file:
            file.write(records.as_line(event))
    export = folder.Folder(tmp_path)
    assert export.event_files() == [f"events-{number:012d}.jsonl" for number in (0, 4, 8)]
    assert checked(tmp_path).status() == 0
    (tmp_path / folder.events_file(4)).unlink()
    assert first(checked(tmp_path)) == (Kind.MISSING, 4)


BLOCK_DJANGO = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"django", "rest_framework", "guardian", "django_q"}:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refuse())
from jit_approval.audit.verify import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: object, code: str = BLOCK_DJANGO) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")


def test_it_runs_where_there_is_no_django(tmp_path: Path) -> None:
    some().history.write(tmp_path)
    done = run(tmp_path, "--key", KEY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "verified    10 of 10 events" in done.stdout
    assert "truncation  not checked" in done.stdout


def test_the_blocking_of_django_blocks_it() -> None:
    done = run(code=BLOCK_DJANGO.replace("from jit", "import django\nfrom jit"))
    assert "not to be imported" in done.stderr


def test_the_module_is_run_by_its_name(tmp_path: Path) -> None:
    some().history.write(tmp_path)
    command = [sys.executable, "-m", "jit_approval.audit.verify", tmp_path, "--key", str(KEY)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["status"] == done.returncode == 0


STRANGE: list[dict[str, Any]] = [
    {"request": "\x1b[2J\ud800\u202e" + "x" * 5000, "sequence": 5, "kind": "held"},
    {"request": {"a": [1]}, "sequence": True, "kind": ["held"]},
    {"request": None, "sequence": 1, "kind": "erased", "data": {"leaves": [[0, float("inf")]]}},
    {"request": None, "sequence": 1, "kind": "erased", "data": {"leaves": [[-5, 2**70], 3]}},
    {"request": None, "sequence": 1, "kind": "erased", "data": []},
    {"request": "a", "sequence": 2**80, "kind": "held"},
    {"request": "a", "sequence": -1, "kind": "held"},
    {"sequence": 1},
]


@pytest.mark.parametrize("body", STRANGE)
def test_strange_content_that_was_signed_breaks_neither_the_verifier_nor_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: dict[str, Any]
) -> None:
    writer, text = Writer(), json.dumps(body)
    writer.append(Record(0, links.digest("", text), "", text))
    writer.checkpoint()
    export = writer.history.write(tmp_path / "\u202e")
    assert status(export, "--key", KEY) in (0, 1)
    assert status(export, "--key", KEY, "--json") in (0, 1)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.isascii()
    assert "\x1b" not in printed.out
    assert max(map(len, printed.out.splitlines())) < 600


@pytest.mark.parametrize("name", [folder.events_file(0), folder.CHECKPOINTS])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    some().history.write(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert checked(tmp_path).status() in (1, 3)


def test_a_key_file_that_is_no_text_cannot_be_used(tmp_path: Path) -> None:
    some().history.write(tmp_path / "export")
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    assert status(tmp_path / "export", "--key", tmp_path / "key") == 2


def status(*arguments: object) -> int:
    try:
        return verify.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


@pytest.mark.parametrize(
    "as_kept", ["the note", "one newline more", "no newline", "CRLF", "its line", "no end"]
)
def test_a_kept_checkpoint_is_read_as_tools_write_it(tmp_path: Path, as_kept: str) -> None:
    history = some().history
    export, note = history.write(tmp_path / "export"), history.notes[-1]
    line = folder.note_line(note)
    written = {
        "the note": note.encode(),
        "one newline more": f"{note}\n".encode(),  # jq -r .note
        "no newline": note.removesuffix("\n").encode(),
        "CRLF": note.replace("\n", "\r\n").encode(),
        "its line": line,
        "no end": line.removesuffix(b"\n"),
    }
    (tmp_path / "kept").write_bytes(written[as_kept])
    assert status(export, "--key", KEY, "--checkpoint", tmp_path / "kept") == 0
    del history.notes[-1]
    history.write(export)
    assert status(export, "--key", KEY, "--checkpoint", tmp_path / "kept") == 1


def test_an_empty_directory_is_no_trail_but_for_who_kept_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "kept").write_text(some().history.notes[0])
    assert status(tmp_path / "export", "--key", KEY) == 2
    assert "no trail was exported to this directory" in capsys.readouterr().err
    assert status(tmp_path / "export", "--key", KEY, "--checkpoint", tmp_path / "kept") == 1


def test_a_key_file_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = some().history.write(tmp_path / "export")
    assert status(export, "--key", tmp_path / "nowhere.pub") == 2
    assert "there is no file '" in capsys.readouterr().err


def test_a_reader_that_stops_reading_ends_nothing_with_a_traceback(tmp_path: Path) -> None:
    history = some().history
    del history.events[8:]
    command = [sys.executable, "-m", "jit_approval.audit.verify", str(history.write(tmp_path))]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, "--key", str(KEY)], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_is_no_checkpoint_or_more_than_one_is_not_compared(tmp_path: Path) -> None:
    history = some().history
    export = history.write(tmp_path / "export")
    changed = folder.note_line(history.notes[0]).replace(b'{"note"', b'{ "note"')
    for bad in (b"", b"{}", changed, b"".join(map(folder.note_line, history.notes))):
        (tmp_path / "kept").write_bytes(bad)
        assert status(export, "--key", KEY, "--checkpoint", tmp_path / "kept") == 2


def test_the_exit_status_says_what_a_monitor_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = some().history
    export = history.write(tmp_path / "export")
    key, kept = tmp_path / "key.pub", tmp_path / "kept"
    key.write_text(f"{KEY}\n")
    kept.write_text(history.notes[-1])
    assert status(export, "--key", key, "--checkpoint", kept) == 0
    assert "truncation  checked" in capsys.readouterr().out
    assert status(export, "--key", OTHER.verifier) == 4
    assert status(export) == 2
    assert status(export, "--key", "no key") == 2
    assert status(export, "--key", signer().as_text()) == 2
    assert status(tmp_path / "nowhere", "--key", KEY) == 2
    assert status(export, "--key", KEY, "--checkpoint", key) == 2
    assert status(export, "--key", KEY, "--checkpoint", tmp_path / "nothing") == 2
    kept.write_bytes(b"\xff\xfe")
    assert status(export, "--key", KEY, "--checkpoint", kept) == 2
    del history.events[8:]
    history.write(export)
    assert status(export, "--key", KEY) == 1
    out = capsys.readouterr().out
    assert "NOT AS IT WAS: 1 truncated" in out
    assert "First: truncated: event 8" in out


def test_a_private_key_given_by_mistake_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some().history.write(tmp_path)
    assert status(tmp_path, "--key", signer().as_text()) == 2
    printed = capsys.readouterr()
    assert signer().as_text().split("+", 4)[4] not in printed.out + printed.err

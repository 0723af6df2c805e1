"""`approval_audit events` and `send`, and that a verification by hand is written down."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from jit_approval import clock, health
from jit_approval.admin import integrity
from jit_approval.audit import chain, checkpoints, keys, notes, seal
from jit_approval.audit.selection import Selection
from jit_approval.models import AuditEvent, Checkpoint, TrailTask, Verification
from jit_approval.streaming import selecting
from jit_approval.streaming.selecting import Mark, Wanted
from tests import factories

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


@pytest.fixture
def key(tmp_path: Path) -> Iterator[Any]:
    public = keys.generate(NAME, tmp_path / "trail.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        yield public


def some() -> None:
    at = clock.now("default") - timedelta(days=1)
    for number in range(12):
        kind = ("allowed", "denied")[number % 2]
        by = ("erin", "mary")[number % 3 == 0]
        when = at + timedelta(hours=number)
        chain.single_event(kind, at=when, label=by, data={"n": number}).save()


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command("approval_audit", *arguments, stdout=out)
    return out.getvalue()


def numbers(text: str) -> list[int]:
    found = [json.loads(line) for line in text.splitlines()]
    return [json.loads(each["body"])["data"]["n"] for each in found if "body" in each]


def test_events_are_printed_with_proofs_that_verify(key: Any, tmp_path: Path) -> None:
    some()
    seal.seal(at_once=True)
    text = printed("events", "--kind", "denied")
    assert numbers(text) == [1, 3, 5, 7, 9, 11]
    (tmp_path / "some.jsonl").write_text(text, encoding="utf-8")
    report = Selection(tmp_path / "some.jsonl").verify([key])
    assert (report.status(), report.verified) == (0, 6)


def test_events_are_narrowed_by_who_and_when(key: Any) -> None:
    some()
    assert numbers(printed("events", "--by", "mary")) == [0, 3, 6, 9]
    at = AuditEvent.objects.order_by("at").values_list("at", flat=True)
    since, until = at[4].isoformat(), at[7].isoformat()
    assert numbers(printed("events", "--since", since, "--until", until)) == [4, 5, 6]
    factories.decider()
    row = factories.held()
    found = [json.loads(line) for line in printed("events", "--request", str(row.pk)).splitlines()]
    assert [json.loads(each["body"])["kind"] for each in found] == ["held"]


def test_events_that_have_no_place_yet_say_so(key: Any, tmp_path: Path) -> None:
    some()
    (tmp_path / "some.jsonl").write_text(printed("events"), encoding="utf-8")
    report = Selection(tmp_path / "some.jsonl").verify([key])
    assert (report.status(), report.verified, report.unsealed) == (3, 0, 12)


def test_events_are_printed_as_ocsf(key: Any) -> None:
    some()
    seal.seal(at_once=True)
    found = [json.loads(line) for line in printed("events", "--format", "ocsf").splitlines()]
    assert [each["class_uid"] for each in found] == [6003] * 12


def test_pages_are_whole_and_in_order_though_times_are_the_same(key: Any) -> None:
    at = clock.now("default")
    for number in range(25):
        chain.single_event("allowed", at=at, label="erin", data={"n": number}).save()
    rows, seen, mark = Wanted().rows("default"), list[int](), None
    while page := selecting.older(rows, mark, 4):
        seen += [event.pk for event in page]
        mark = Mark.of(page[-1])
    assert seen == list(AuditEvent.objects.order_by("-pk").values_list("pk", flat=True))
    back = selecting.newer(rows, mark, 3)
    assert [event.pk for event in back] == seen[::-1][1:4]


def test_a_verification_by_hand_is_written_down(key: Any) -> None:
    some()
    seal.seal(at_once=True)
    printed("verify")
    printed("verify", "--key", str(key))
    found = list(Verification.objects.order_by("pk").values_list("status", "source", "key_given"))
    assert found == [(0, "command", False), (0, "command", True)]


def refused(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    with pytest.raises(SystemExit) as raised:
        call_command("approval_audit", *arguments, stdout=out, stderr=out)
    return int(raised.value.code or 0), out.getvalue()


def test_a_key_that_signed_nothing_here_leaves_what_stands_written(
    key: Any, tmp_path: Path
) -> None:
    some()
    seal.seal(at_once=True)
    printed("verify")
    other = keys.generate(NAME, tmp_path / "other.key")
    status, text = refused("verify", "--key", str(other))
    assert status == 4
    assert "CANNOT BE JUDGED WITH THESE KEYS" in text
    assert "not written down" in text
    assert list(Verification.objects.values_list("status", flat=True)) == [0]
    assert health.report().level < health.Level.CRITICAL


def test_statements_that_the_key_in_use_did_not_sign_are_written_down_as_bad(
    key: Any, tmp_path: Path
) -> None:
    some()
    seal.seal(at_once=True)
    keys.generate(NAME, tmp_path / "other.key")
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "other.key")}):
        assert refused("verify")[0] == 4
        found = Verification.objects.get()
        assert (found.status, found.verified, found.checkpoint_at) == (4, 0, None)
        assert "no key given signed" in found.first
        assert health.report().level == health.Level.CRITICAL
        shown = integrity.badge()
        assert (shown.word, shown.css) == ("Not signed by the key in use", "rejected")


def test_what_waits_is_sent_by_hand(key: Any, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no target"):
        printed("send")
    logger = logging.getLogger("tests.by-hand")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    values = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), "AUDIT_LOGGER": "tests.by-hand"}
    with override_settings(JIT_APPROVAL=values):
        some()
        seal.seal(at_once=True)
        with pytest.raises(CommandError, match="no handler"):
            printed("send")


# --- what cannot be done is said, not thrown ----------------------------------------------------------------------

_UNMIGRATED = """
import sys
import django
from django.conf import settings
from django.core.management import CommandError, call_command

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "guardian", "jit_approval"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    JIT_APPROVAL={"AUDIT_KEY_FILE": sys.argv[1]}, SECRET_KEY="x", USE_TZ=True,
)
django.setup()
for verb in (
    "seal", "events", "protect", f"rotate --to {sys.argv[2]}", "send", "erase --subject a --as b",
    "prune --older-than 9 --as b", "verify",
):
    try:
        call_command("approval_audit", *verb.split())
    except CommandError as error:
        print(verb.split()[0], error)
    except SystemExit as error:
        print(verb.split()[0], "exit", error.code)
"""


def test_a_database_without_tables_is_said_to_be_one(tmp_path: Path) -> None:
    for name in ("a.key", "b.key"):
        keys.generate(NAME, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", _UNMIGRATED, str(tmp_path / "a.key"), str(tmp_path / "b.key")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert found.pop("verify") == "exit 2"
    # Without a target nothing is asked.
    assert "no target" in found.pop("send")
    assert list(found) == ["seal", "events", "protect", "rotate", "erase", "prune"]
    assert all("cannot be asked" in text for text in found.values()), found


def test_times_and_words_that_no_database_takes_are_refused(key: Any) -> None:
    factories.user("alice")
    for days in ("0", "800000", "9999999999999"):
        with pytest.raises(CommandError, match="older-than"):
            printed("prune", "--older-than", days, "--as", "alice")
    with pytest.raises(CommandError, match="since"):
        printed("events", "--since", "0001-01-01T00:00+05:00")
    with pytest.raises(CommandError, match="no text"):
        printed("events", "--by", "\udcff")


@pytest.mark.parametrize(
    "name", ["\udcff", "jit-approval/key-rotation/v1", "x" * 70_000, "", "a b"]
)
def test_no_key_is_made_under_a_name_that_could_not_be_read_back(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="No key was made"):
        printed("keygen", "--name", name, "--out", str(tmp_path / "new.key"))
    assert not (tmp_path / "new.key").exists()


def test_a_key_named_like_a_change_of_keys_seals_nothing(tmp_path: Path) -> None:
    signer = notes.Signer(checkpoints.ROTATION, bytes(32))
    path = tmp_path / "odd.key"
    path.write_text(signer.as_text())
    path.chmod(0o600)
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(path)}):
        some()
        with pytest.raises(CommandError, match="no trail may be named"):
            printed("seal")


def test_nothing_is_signed_before_1970(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    some()
    early = {
        "sqlite": "'1969-12-31 23:00:00.000000'",
        "postgresql": "TIMESTAMPTZ '1969-12-31 23:00:00+00'",
        "mysql": "CAST('1969-12-31 23:00:00' AS DATETIME(6))",
    }
    monkeypatch.setitem(clock._NOW_SQL, connection.vendor, early[connection.vendor])
    with pytest.raises(CommandError, match="Is the clock of the database right"):
        printed("seal")
    assert not Checkpoint.objects.exists()


# --- how it went by hand is known elsewhere -----------------------------------------------------------------------


@pytest.fixture
def folder(key: Any, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trail"
    path.mkdir()
    values = {"AUDIT_KEY_FILE": str(tmp_path / "trail.key"), "AUDIT_EXPORT_DIR": str(path)}
    with override_settings(JIT_APPROVAL=values):
        yield path


def finding(name: str) -> health.Finding:
    return next(each for each in health.report().findings if each.name == name)


def test_what_was_exported_by_hand_is_known_to_be(folder: Path) -> None:
    some()
    printed("seal")
    (target,) = integrity.targets()
    assert (target.name, target.error) == ("directory", "")
    assert target.done_at is not None


def test_what_could_not_be_exported_by_hand_is_told_until_it_is(folder: Path) -> None:
    some()
    # A directory where a file should be: as good as a disk that takes nothing.
    (folder / "events-000000000000.jsonl").mkdir()
    with pytest.raises(CommandError, match="cannot be exported"):
        printed("seal")
    assert finding("export").level == health.Level.WARNING
    assert finding("trail").level == health.Level.OK
    (folder / "events-000000000000.jsonl").rmdir()
    printed("seal")
    assert finding("export").level == health.Level.OK


def test_a_database_that_was_restored_is_told_when_it_is_sealed_by_hand(
    folder: Path, tmp_path: Path
) -> None:
    some()
    printed("seal")
    (folder / "checkpoints.jsonl").write_text('{"note":"of another database"}\n')
    with pytest.raises(CommandError, match="restored"):
        printed("seal")
    assert finding("trail").level == health.Level.CRITICAL
    # That somebody without the key tried is no news of the trail.
    TrailTask.objects.all().delete()
    values = {"AUDIT_KEY_FILE": str(tmp_path / "nothing"), "AUDIT_EXPORT_DIR": str(folder)}
    with (
        override_settings(JIT_APPROVAL=values),
        pytest.raises(CommandError, match="cannot be read"),
    ):
        printed("seal")
    assert not TrailTask.objects.exists()


def test_of_what_is_sent_by_hand_the_directory_is_no_part(folder: Path, tmp_path: Path) -> None:
    logger = logging.getLogger("tests.by-hand-too")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(tmp_path / "trail.log")
    logger.addHandler(handler)
    values = {
        "AUDIT_KEY_FILE": str(tmp_path / "trail.key"),
        "AUDIT_EXPORT_DIR": str(folder),
        "AUDIT_LOGGER": logger.name,
    }
    with override_settings(JIT_APPROVAL=values):
        some()
        printed("seal")
        assert printed("send") == "log:tests.by-hand-too: sent=14 behind=0\n"
    logger.removeHandler(handler)
    handler.close()

"""Sealing has stopped until somebody has looked: the ways back of docs/audit.md do lead back, and hide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from jit_approval import clock
from jit_approval.audit import chain, checking, keys, live, seal
from jit_approval.audit.findings import Report
from jit_approval.audit.folder import Folder
from jit_approval.models import AuditEvent, Checkpoint, Seal, TrailTask, TreeHead

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


@pytest.fixture
def key(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "export").mkdir()
    (tmp_path / "anew").mkdir()
    public = keys.generate(NAME, tmp_path / "trail.key")
    with using(tmp_path, "trail.key", "export"):
        yield public


def using(path: Path, key: str, folder: str) -> Any:
    values = {"AUDIT_KEY_FILE": str(path / key), "AUDIT_EXPORT_DIR": str(path / folder)}
    return override_settings(JIT_APPROVAL=values)


def some(count: int) -> None:
    for number in range(count):
        at = clock.now("default") - timedelta(minutes=1)
        chain.single_event("allowed", at=at, label="erin", data={"n": number}).save()
    seal.seal_all()


def verified(path: Path, *trusted: Any, kept: str | None = None) -> Report:
    return checking.verify(Folder(path).events(), Folder(path).statements(), trusted, kept)


def roll_back(size: int, statements: int) -> None:
    """As a backup has it that is put back."""
    gone = list(Seal.objects.filter(index__gte=size).values_list("event", flat=True))
    Seal.objects.filter(index__gte=size).delete()
    AuditEvent.objects.filter(pk__in=gone).delete()
    Checkpoint.objects.filter(number__gte=statements).delete()
    TreeHead.objects.update(size=size, settled=0)


def test_a_restored_database_goes_on_in_a_new_directory_under_a_new_key(
    key: Any, tmp_path: Path
) -> None:
    some(3)
    statements = Checkpoint.objects.count()
    some(4)
    kept = Checkpoint.objects.latest("number").note
    roll_back(3, statements)
    with pytest.raises(seal.SealRefused, match="restored"):
        seal.seal_all()
    new = keys.generate(NAME, tmp_path / "second.key")
    with using(tmp_path, "trail.key", "anew"):
        seal.rotate(keys.load(tmp_path / "second.key", {}))
    with using(tmp_path, "second.key", "anew"):
        some(2)
        assert live.verify([new]).status() == 0
    assert verified(tmp_path / "export", key).verified == 7
    report = verified(tmp_path / "anew", key)
    assert (report.status(), report.verified) == (0, 5)
    # Whoever kept a checkpoint from between sees it, as they should.
    assert verified(tmp_path / "anew", key, kept=kept).status() == 1


def test_an_export_with_foreign_bytes_is_made_anew_from_the_database(
    key: Any, tmp_path: Path
) -> None:
    some(3)
    with (tmp_path / "export" / "checkpoints.jsonl").open("ab") as file:
        file.write(b'{"note":"foreign"}\n')
    with pytest.raises(seal.SealRefused, match="not in the database"):
        seal.seal_all()
    with using(tmp_path, "trail.key", "anew"):
        some(2)
        assert verified(tmp_path / "anew", key).verified == 5
    old = (tmp_path / "export" / "checkpoints.jsonl").read_bytes().splitlines()[:-1]
    new = (tmp_path / "anew" / "checkpoints.jsonl").read_bytes().splitlines()
    assert new[: len(old)] == old


def test_where_the_key_is_lost_all_events_are_sealed_in_a_trail_of_another_name(
    key: Any, tmp_path: Path
) -> None:
    some(3)
    new = keys.generate("approvals.example/trail-2", tmp_path / "second.key")
    with using(tmp_path, "second.key", "anew"):
        with pytest.raises(seal.SealRefused, match="not of the key in use"):
            seal.seal_all()
        # As docs/audit.md has it in SQL, for who owns the tables.
        for model in (Seal, Checkpoint, TreeHead, TrailTask):
            model._base_manager.all().delete()
        some(2)
        assert live.verify([new]).verified == 5
        assert verified(tmp_path / "anew", new).verified == 5
    assert verified(tmp_path / "export", key).verified == 3

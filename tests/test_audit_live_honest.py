"""No honest history is accused: random ones, made in the database and verified there.

`JIT_TEST_ROUNDS` sets how many: a tenth of it, and 10 at least. `JIT_TEST_SEED` makes them others.
"""

from __future__ import annotations

import random
from datetime import timedelta
from os import environ
from pathlib import Path

import pytest

from jit_approval import clock, erasure
from jit_approval.audit import live
from jit_approval.audit.findings import NOT_JUDGED, Kind
from jit_approval.models import AuditEvent, Checkpoint
from tests.live_histories import Cast, History, Undone, checkpoints

pytestmark = pytest.mark.django_db
SEED = environ.get("JIT_TEST_SEED", "1")
ROUNDS = max(int(environ.get("JIT_TEST_ROUNDS", "0")) // 10, 10)


def test_no_honest_history_is_accused(tmp_path: Path) -> None:
    cast = Cast(tmp_path)
    for number in range(ROUNDS):
        where = f"history {number} of seed {SEED}"
        random_ = random.Random(f"{where}")
        with Undone():
            history = History(cast, random_).live(random_.choice([12, 20, 40]))
            report = live.verify(history.trusted, random_.choice(checkpoints()))
            assert report.is_sound, f"accused: {where}: {report.first}"
            # What is not signed yet, an act of erasure among it, is neither called verified, nor missing.
            status = 3 if is_waiting() else 0
            assert (report.status(), report.truncation_checked) == (status, True), where
            newest = cast.public[history.rotations]
            for trusted in ([newest], cast.public[: history.rotations + 1]):
                report = live.verify(trusted)
                assert (report.status(), report.truncation_checked) == (status, False), where


def is_waiting() -> bool:
    return AuditEvent.objects.filter(seal=None).exists()


def test_between_an_erasure_and_its_signature_nobody_is_accused(tmp_path: Path) -> None:
    cast = Cast(tmp_path)
    history = History(cast, random.Random(1))
    history.allow()
    history.seal()
    scope = erasure.Scope(before=clock.now("default") + timedelta(seconds=1))
    erasure.erase(scope, by=cast.alice)
    report = live.verify(history.trusted)
    assert (report.status(), report.erased) == (3, 0)
    assert report.unfinished == [
        "2 events have no content, and the act of erasure is not signed yet"
    ]
    AuditEvent.objects.filter(kind="erased").update(kind="notified")
    assert live.verify(history.trusted).counts[Kind.MISSING] == 1
    AuditEvent.objects.filter(kind="notified").update(kind="erased")
    history.seal()
    report = live.verify(history.trusted)
    assert (report.status(), report.erased) == (0, 2)


def test_the_newest_key_alone_vouches_for_all_before_it_from_its_rotation_on(
    tmp_path: Path,
) -> None:
    cast = Cast(tmp_path)
    history = History(cast, random.Random(1))
    history.allow()
    history.seal()
    erasure.erase(erasure.Scope(before=clock.now("default")), by=cast.alice)
    history.seal()
    history.rotate()
    assert Checkpoint.objects.latest("number").kind == Checkpoint.Kind.ROTATION
    report = live.verify([cast.public[1]])
    assert (report.status(), report.verified) == (0, AuditEvent.objects.count())
    assert live.verify([cast.public[2]]).status() == NOT_JUDGED

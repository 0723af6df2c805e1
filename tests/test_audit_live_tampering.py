"""Random tampering with the database itself: all of it is found, but for what is listed as unseen, with the reason.

`JIT_TEST_ROUNDS` sets how many cases are tried (150 by default), `JIT_TEST_SEED` which.
"""

from __future__ import annotations

import random
from collections import Counter
from os import environ
from pathlib import Path
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection

from jit_approval import clock, erasure
from jit_approval.audit import live
from jit_approval.audit.findings import NOT_JUDGED, WRONG, Kind, Report
from jit_approval.audit.verify import as_text
from jit_approval.models import AuditEvent
from tests.live_histories import Cast, History, Undone, checkpoints
from tests.tampering import ENDINGS, STRUCTURAL
from tests.tampering.rows import Act, CannotHere, column, snapshot
from tests.tampering.unseen import UNSEEN

pytestmark = pytest.mark.django_db
SEED = environ.get("JIT_TEST_SEED", "1")
ROUNDS = int(environ.get("JIT_TEST_ROUNDS", "150"))
_OF_ONE_HISTORY = 40


def any_act(random_: random.Random) -> Act:
    how = random_.random()
    if how < 0.35:
        return column
    return random_.choice(ENDINGS if how < 0.45 else STRUCTURAL)


def tampered(act: Act, random_: random.Random) -> str:
    """Do it; return what was done, "" where that was nothing, or the database would not have it."""
    before = snapshot()
    try:
        with connection.constraint_checks_disabled():
            done = act(random_)
    except (CannotHere, DataError, IntegrityError):
        return ""
    return done if snapshot() != before else ""


def ensure_found(act: Act, history: History, kept: str, where: str) -> None:
    report = live.verify(history.trusted, kept)
    # NOT_JUDGED: every statement was signed anew, by somebody else.
    assert report.status() in (WRONG, NOT_JUDGED), f"not found: {where}"
    if act in ENDINGS:
        ensure_says_what_it_did_not_check(live.verify(history.trusted), where)
    else:
        status = live.verify(history.trusted).status()
        assert status in (WRONG, NOT_JUDGED), f"not found without: {where}"


def ensure_says_what_it_did_not_check(report: Report, where: str) -> None:
    assert not report.truncation_checked, where
    assert "truncation  not checked: give a checkpoint" in as_text(report), where


def test_every_tampering_is_found(tmp_path: Path) -> None:
    cast, tried, counts = Cast(tmp_path), 0, Counter[str]()
    while tried < ROUNDS:
        begun = tried
        with Undone():
            history = History(cast, random.Random(f"history {begun} of seed {SEED}")).live(20)
            kept = checkpoints()[-1]
            assert live.verify(history.trusted, kept).is_sound
            for attempt in range(3 * _OF_ONE_HISTORY):
                name = f"attempt {attempt} on history {begun} of seed {SEED}"
                random_ = random.Random(name)
                act = any_act(random_)
                with Undone():
                    if done := tampered(act, random_):
                        ensure_found(act, history, kept, f"{name}: {act.__name__}: {done}")
                        tried, counts[act.__name__] = tried + 1, counts[act.__name__] + 1
                if tried - begun == _OF_ONE_HISTORY or tried == ROUNDS:
                    break
            assert live.verify(history.trusted, kept).is_sound, "accused, as it was"
    print(f"{tried} tamperings found: {dict(counts)}")


@pytest.mark.parametrize("act", [*STRUCTURAL, *ENDINGS], ids=lambda act: act.__name__)
def test_each_way_of_tampering_is_found(tmp_path: Path, act: Act) -> None:
    cast, tried, number = Cast(tmp_path), 0, 0
    while not tried:
        number += 1
        random_ = random.Random(f"{act.__name__} {number}")
        with Undone():
            history = History(cast, random_).live(14)
            kept = checkpoints()[-1]
            if done := tampered(act, random_):
                tried += 1
                ensure_found(act, history, kept, done)


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_listed_as_unseen_is_truly_unseen(tmp_path: Path, name: str) -> None:
    act, _why = UNSEEN[name]
    cast, tried, number = Cast(tmp_path), 0, 0
    while not tried:
        number += 1
        random_ = random.Random(f"{name} {number}")
        with Undone():
            history = History(cast, random_).live(14)
            if done := tampered(act, random_):
                tried += 1
                report = live.verify(history.trusted, checkpoints()[-1])
                assert report.is_sound, (
                    f"it is found, and not listed rightly: {done}: {report.first}"
                )


@pytest.mark.parametrize(
    "values",
    [{"actor_label": "eve"}, {"actor": 1}, {"sequence": 2}, {"previous_hash": "0" * 64}],
    ids=lambda values: next(iter(values)),
)
def test_what_was_erased_names_nobody_and_stands_alone(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    cast = Cast(tmp_path)
    history = History(cast, random.Random(1))
    history.allow()
    history.seal()
    erasure.erase(erasure.Scope(before=clock.now("default")), by=cast.alice)
    history.seal()
    assert live.verify(history.trusted).status() == 0
    values = values | ({"actor": cast.alice} if "actor" in values else {})
    AuditEvent.objects.filter(seal=1, body="").update(**values)
    report = live.verify(history.trusted)
    assert (report.counts, report.first and report.first.index) == ({Kind.ALTERED: 1}, 1)

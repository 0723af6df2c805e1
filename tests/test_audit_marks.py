"""No row that saves the sealer work is believed: what it hides is sealed all the same, and told where nobody seals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from jit_approval import clock, health
from jit_approval.audit import chain, keys, live, marks, notes, seal
from jit_approval.health import Level
from jit_approval.models import AuditEvent, Checkpoint, Seal, TrailTask, TreeHead
from jit_approval.streaming import early

pytestmark = pytest.mark.django_db
NOTHING = {"sealed": 0, "signed": 0, "exported": 0}


@pytest.fixture(autouse=True)
def key(tmp_path: Path) -> Iterator[notes.Verifier]:
    public = keys.generate("approvals.example/trail", tmp_path / "trail.key")
    # As in a process that has just begun.
    marks.forget()
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        yield public


def events(count: int, **ago: float) -> list[AuditEvent]:
    at = clock.now("default") - timedelta(**ago)
    made = [chain.single_event("allowed", at=at, label="erin", data={"n": n}) for n in range(count)]
    for event in made:
        event.save()
    return made


def later(**by: float) -> None:
    """Let time pass."""
    for model in (AuditEvent, Checkpoint):
        for row in model.objects.all():
            model.objects.filter(pk=row.pk).update(at=row.at - timedelta(**by))


def settled_trail() -> list[AuditEvent]:
    """Events that were sealed long ago, and noted to be."""
    made = events(3)
    seal.seal(at_once=True)
    later(minutes=61)
    seal.seal_all()
    assert TreeHead.objects.get().settled == made[-1].pk
    marks.forget()
    return made


def committed_late(*made: AuditEvent) -> None:
    """Have their keys be lower than those of all others."""
    for number, event in enumerate(made):
        AuditEvent.objects.filter(pk=event.pk).delete()
        event.pk = -1 - number
        event.save(force_insert=True)


def trail() -> health.Finding:
    return next(each for each in health.report().findings if each.name == "trail")


def sealed() -> list[int]:
    return list(Seal.objects.order_by("pk").values_list("event_id", flat=True))


def test_what_is_settled_is_not_looked_through_again() -> None:
    made = settled_trail()
    assert marks.settled("default", clock.now("default")) == made[-1].pk
    fresh = events(2)
    with CaptureQueriesContext(connection) as captured:
        assert seal.seal(at_once=True)["sealed"] == 2
    looked = [query["sql"] for query in captured if "NOT EXISTS" in query["sql"].upper()]
    assert looked
    assert all(f"> {made[-1].pk}" in sql for sql in looked)
    assert sealed() == [event.pk for event in [*made, *fresh]]


def test_settled_is_only_what_was_written_an_hour_ago() -> None:
    events(3)
    seal.seal_all()
    assert TreeHead.objects.get().settled == 0


@pytest.mark.parametrize("mark", ["far", "newest", "unsealed"])
def test_a_mark_that_is_too_far_hides_nothing(mark: str, key: notes.Verifier) -> None:
    settled_trail()
    newest = events(1)[0]
    seal.seal(at_once=True)
    hidden = events(2, minutes=125)
    far = {"far": 10**9, "newest": newest.pk, "unsealed": hidden[-1].pk}[mark]
    if mark == "newest":
        committed_late(*hidden)
    TreeHead.objects.update(settled=far)
    assert live.verify([key]).unfinished == [
        "2 events have waited for more than 5 minutes to be sealed"
    ]
    if mark != "newest":
        assert (trail().level, trail().count) == (Level.WARNING, 2)
    assert seal.seal(at_once=True)["sealed"] == 2
    assert TreeHead.objects.get().settled != far
    assert trail().level == Level.OK


def test_an_event_that_commits_later_than_any_should_is_sealed_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, late, last = events(3)
    AuditEvent.objects.filter(pk=late.pk).delete()
    seal.seal(at_once=True)
    later(minutes=61)
    seal.seal_all()
    assert TreeHead.objects.get().settled == last.pk
    late.save(force_insert=True)
    # Who has looked through all of them just now sees it the next time.
    assert seal.seal() == NOTHING
    marks.forget()
    with caplog.at_level(logging.WARNING):
        assert seal.seal()["sealed"] == 1
    assert "more than an hour late, and sealed now: 1 events" in caplog.text
    assert sealed() == [first.pk, last.pk, late.pk]


def test_by_hand_all_events_are_looked_through() -> None:
    settled_trail()
    committed_late(*events(1))
    assert seal.seal(at_once=True)["sealed"] == 0
    assert seal.seal_all()["sealed"] == 1


def test_a_process_looks_through_all_events_at_first_and_then_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = 1000.0
    monkeypatch.setattr(marks, "monotonic", lambda: moment)
    assert marks.must_look_through_all("default")
    marks.looked_through_all("default", moment - 0.01)
    for passed, must in ((299, False), (301, True)):
        moment = 1000.0 + passed
        assert marks.must_look_through_all("default") is must
    # Where it takes long, more seldom, but every hour.
    for took, pause in ((10, 1000), (3000, 3600)):
        moment = 5000.0
        marks.looked_through_all("default", moment - took)
        for passed, must in ((pause - 1, False), (pause + 1, True)):
            moment = 5000.0 + passed
            assert marks.must_look_through_all("default") is must


def test_while_more_may_come_to_a_checkpoint_nothing_is_looked_through() -> None:
    settled_trail()
    events(1)
    seal.seal(at_once=True)
    events(1)
    assert seal.seal() == NOTHING
    assert marks.must_look_through_all("default")


def test_an_event_with_a_time_that_has_not_come_is_late() -> None:
    seal.seal()
    events(1, minutes=-6)
    assert marks.late("default", 10) == 1


def test_late_events_are_counted_up_to_a_limit_and_not_by_the_mark() -> None:
    settled_trail()
    events(3)
    assert marks.late("default", 10) == 0
    later(minutes=6)
    TreeHead.objects.update(settled=10**9)
    assert marks.late("default", 10) == 3
    assert marks.late("default", 2) == 2
    seal.seal(at_once=True)
    assert marks.late("default", 10) == 0


def test_for_health_what_was_signed_an_hour_ago_is_not_looked_through() -> None:
    made = settled_trail()
    events(2, minutes=10)
    TreeHead.objects.update(settled=0)
    with CaptureQueriesContext(connection) as captured:
        assert marks.late("default", 10) == 2
    assert f"> {made[-1].pk}" in captured[-1]["sql"]


def test_a_place_beyond_the_head_hides_no_event(key: notes.Verifier) -> None:
    settled_trail()
    hidden = events(1)[0]
    Seal.objects.create(index=10**6, event_id=hidden.pk, nodes=bytes(32))
    with pytest.raises(seal.SealRefused, match="Place 1000000 is taken, and no more than 3"):
        seal.seal(at_once=True)
    assert trail().level == Level.CRITICAL
    assert "Place 1000000 is taken" in trail().message
    assert live.verify([key]).status() == 1


def test_a_place_that_is_taken_while_it_is_given_stops_sealing(tmp_path: Path) -> None:
    settled_trail()
    sealer = seal._Sealer("default", keys.load(tmp_path / "trail.key", {}), dict(NOTHING))
    waiting = events(1)
    Seal.objects.create(index=3, event_id=waiting[0].pk, nodes=bytes(32))
    with pytest.raises(seal.SealRefused, match="Place 3 is taken"):
        sealer._advance(waiting)


def test_a_mark_that_is_too_far_keeps_no_event_from_leaving_early() -> None:
    settled_trail()
    task = TrailTask(name="log:x", early=early.start("default"))
    fresh = events(1)
    TreeHead.objects.update(settled=10**9)
    assert [event.pk for event in early.batch(task, 10, "default")] == [fresh[0].pk]

"""A lease saves work. One that no right clock can have given stops nobody; by hand nobody is left to guess."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from jit_approval import clock, health, keeping
from jit_approval.audit import chain, keys, leases, notes, places, seal
from jit_approval.health import Level
from jit_approval.models import Checkpoint, Seal, TrailTask, TreeHead, Verification
from jit_approval.streaming import cursor

pytestmark = pytest.mark.django_db
NAME = "approvals.example/trail"


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[notes.Verifier]:
    public = keys.generate(NAME, tmp_path / "trail.key")
    monkeypatch.setattr(seal, "_PATIENCE", 0.3)
    with override_settings(JIT_APPROVAL={"AUDIT_KEY_FILE": str(tmp_path / "trail.key")}):
        yield public


def event(**ago: float) -> None:
    at = clock.now("default") - timedelta(**ago)
    chain.single_event("allowed", at=at, label="erin", data={}).save()


def leased(**until: float) -> None:
    """As whoever died, or had another clock, has left it."""
    places.head("default")
    end = clock.now("default") + timedelta(**until)
    TreeHead.objects.update(leased_until=end, leased_by="web-7:4711 0123456789abcdef")


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command("approval_audit", *arguments, stdout=out)
    return out.getvalue()


def trail() -> health.Finding:
    return next(each for each in health.report().findings if each.name == "trail")


@pytest.mark.parametrize("days", [1 / 24, 400, 3650])
def test_a_lease_that_ends_later_than_any_is_none(days: float) -> None:
    event()
    leased(days=days)
    assert leases.held("default") == ""
    assert seal.seal(at_once=True)["sealed"] == 1
    assert TreeHead.objects.get().leased_until is None


def test_two_that_take_over_such_a_lease_do_not_both_have_it() -> None:
    leased(days=400)
    with leases.taken("default") as one, leases.taken("default") as two:
        assert (one, two) == (True, False)
    assert TreeHead.objects.get().leased_until is None


def test_who_lost_the_lease_does_not_give_back_that_of_another() -> None:
    with leases.taken("default") as mine:
        assert mine
        leased(seconds=30)
    assert leases.held("default").startswith("web-7:4711, until ")


def test_by_hand_who_has_no_turn_says_whose_it_is_and_fails() -> None:
    event()
    leased(seconds=50)
    with pytest.raises(CommandError, match=r"it is the turn of web-7:4711, until .* UTC"):
        printed("seal")
    assert not Seal.objects.exists()
    leased(seconds=-1)
    assert printed("seal") == "sealed=1 signed=2 exported=0\n"


def test_by_hand_the_turn_of_another_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    event()
    leased(seconds=50)
    monkeypatch.setattr(seal, "_PATIENCE", 30)
    monkeypatch.setattr(seal, "sleep", lambda seconds: leased(seconds=-1))
    assert printed("seal") == "sealed=1 signed=2 exported=0\n"


def test_no_key_is_handed_over_while_it_is_not_known_that_all_is_sealed(tmp_path: Path) -> None:
    event()
    keys.generate(NAME, tmp_path / "new.key")
    leased(seconds=50)
    with pytest.raises(CommandError, match="Nothing is known to be sealed"):
        printed("rotate", "--to", str(tmp_path / "new.key"))
    assert not Checkpoint.objects.exists()
    leased(seconds=-1)
    printed("rotate", "--to", str(tmp_path / "new.key"))
    stated = Checkpoint.objects.order_by("number").values_list("kind", "size")
    assert list(stated) == [("checkpoint", 0), ("checkpoint", 1), ("rotation", 1)]


def test_health_names_who_has_the_lease() -> None:
    seal.seal()
    event(minutes=6)
    leased(seconds=50)
    found = trail()
    assert (found.level, found.count) == (Level.WARNING, 1)
    assert "web-7:4711, until " in found.hint
    # One that is none is no reason: sealing goes on in spite of it.
    leased(days=400)
    assert "approval_clock" in trail().hint


def test_a_pause_that_ends_later_than_any_does_not_stop_sealing() -> None:
    event()
    keeping.keep(0)
    Checkpoint.objects.update(at=clock.now("default") - timedelta(minutes=2))
    ahead = clock.now("default") + timedelta(minutes=2)
    TrailTask.objects.filter(pk=keeping.SEALER).update(retry_at=ahead)
    assert keeping.keep(0) == {}
    TrailTask.objects.filter(pk=keeping.SEALER).update(retry_at=ahead + timedelta(days=400))
    assert keeping.keep(0)["sealed"] == 1


@pytest.mark.parametrize("column", ["claimed_until", "retry_at"])
def test_a_claim_or_pause_that_ends_later_than_any_is_none(column: str) -> None:
    lasting = timedelta(minutes=1)
    ahead = clock.now("default") + timedelta(seconds=30)
    TrailTask.objects.create(name="log:x", **{column: ahead})
    with cursor.claimed("log:x", lasting=lasting) as task:
        assert task is None
    TrailTask.objects.update(**{column: ahead + timedelta(days=400)})
    with cursor.claimed("log:x", lasting=lasting) as task:
        assert task is not None


def test_a_verification_that_lies_ahead_does_not_put_off_the_next() -> None:
    event()
    seal.seal_all()
    assert keeping.verify_if_due() is not None
    assert keeping.verify_if_due() is None
    Verification.objects.update(at=clock.now("default") + timedelta(days=400))
    assert keeping.verify_if_due() is not None
    assert keeping.verify_if_due() is None

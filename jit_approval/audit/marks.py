"""Up to which key of the database nothing is left to seal. It saves work; no row is believed for it.

Whoever may seal may write any number to `TreeHead.settled`. So it counts only where the event of that key is sealed and
an hour old, which nobody can make of an event that is not; and every few minutes a sealer looks through all events
whatever the mark says, when its own memory tells it to. Health does not ask the mark at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from time import monotonic

from django.db.models import Exists, Max, OuterRef, Q

from jit_approval import clock
from jit_approval.audit import places
from jit_approval.models import AuditEvent, Checkpoint, Seal, TreeHead

LATE = timedelta(minutes=5)
"""An event that waits for longer is worth a warning: nobody seals."""

SETTLING = timedelta(hours=1)
"""Who takes a key and commits later than this is found only by looking through all events."""

# Seconds from one look through all events to the next: a hundredth of the time goes into it, more or less.
_SOONEST, _LATEST, _SHARE = 300.0, 3600.0, 100

_next: dict[str, float] = {}


def settled(alias: str, now: datetime) -> int:
    """Return a key up to which there is nothing to seal but what committed very late; 0 where none is known."""
    key = TreeHead.objects.using(alias).values_list("settled", flat=True).first() or 0
    return key if key and _may_be_settled(alias, key, now) else 0


def settle(alias: str, began: datetime) -> None:
    """Remember where to begin. All that was committed when it `began` has been looked through, and is sealed.

    Who had a lower key then, and had not committed, has had it for an hour.
    """
    old = AuditEvent.objects.using(alias).filter(at__lt=began - SETTLING).order_by("-at", "-pk")
    key = old.values_list("pk", flat=True).first() or 0
    TreeHead.objects.using(alias).exclude(settled=key).update(settled=key)


def must_look_through_all(alias: str) -> bool:
    """Tell whether this process has not looked through all events for some time, or never."""
    return monotonic() >= _next.get(alias, 0.0)


def looked_through_all(alias: str, started: float) -> None:
    """Note that this process has, having `started` at this `monotonic()`."""
    ended = monotonic()
    pause = min(max((ended - started) * _SHARE, _SOONEST), _LATEST)
    _next[alias] = ended + pause


def forget() -> None:
    """Look through all events the next time."""
    _next.clear()


def late(alias: str, most: int) -> int:
    """Return how many events have waited for a place for too long, at most so many.

    What was committed very late is not counted: it is sealed when all events are looked through.
    """
    now = clock.now(alias)
    rows = places.waiting(alias, _sealed_by_then(alias, now)).filter(is_late(now))
    return len(rows.values_list("pk", flat=True)[:most])


def is_late(now: datetime) -> Q:
    """Return the condition for events that should have a place by now, or will never be old enough to be missed."""
    return Q(at__lt=now - LATE) | Q(at__gt=now + LATE)


def disagree(alias: str) -> str:
    """Tell where places were given that the head does not know of, or the other way round; "" where not."""
    # In this order: a sealer may go on meanwhile, and then the head is ahead.
    last = Seal.objects.using(alias).aggregate(last=Max("pk"))["last"]
    head = TreeHead.objects.using(alias).values_list("size", flat=True).first() or 0
    if last is not None and last >= head:
        return f"Place {last} is taken, and no more than {head} were given."
    return ""


def _may_be_settled(alias: str, key: int, now: datetime) -> bool:
    rows = AuditEvent.objects.using(alias).filter(pk=key, at__lt=now - SETTLING)
    return rows.filter(Exists(Seal.objects.using(alias).filter(event=OuterRef("pk")))).exists()


def _sealed_by_then(alias: str, now: datetime) -> int:
    """Return the key of the last event that was signed an hour ago: by rows that nobody may change."""
    rows = Checkpoint.objects.using(alias).filter(at__lt=now - SETTLING).order_by("-number")
    size = rows.values_list("size", flat=True).first() or 0
    found = Seal.objects.using(alias).filter(pk=size - 1) if size else Seal.objects.none()
    return found.values_list("event_id", flat=True).first() or 0

"""How far a task of the trail is: claimed by one process at a time, moved on only from where it was.

A claim saves work and nothing else: two that are at it send the same twice, and one of them moves the cursor on.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from jit_approval import clock
from jit_approval.audit import places
from jit_approval.models import TrailTask

_MAX_ERROR = 500
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=5)
_MOST_PATIENCE = timedelta(hours=1)
_SELDOM = timedelta(minutes=1)


@contextmanager
def claimed(
    name: str, *, lasting: timedelta, start: dict[str, Any] | None = None
) -> Iterator[TrailTask | None]:
    """Return the task, made with `start` where it is new; None where it is not due, or another is at it."""
    alias = places.database()
    rows = TrailTask.objects.using(alias)
    if start is not None and not rows.filter(pk=name).exists():
        rows.bulk_create([TrailTask(name=name, **start)], ignore_conflicts=True)
    now, me = clock.now(alias), secrets.token_hex(16)
    # A claim or a pause that ends later than any does is of a clock that was wrong, or somebody else's: it is none.
    free = Q(claimed_until=None) | ~Q(claimed_until__gte=now, claimed_until__lte=now + lasting)
    due = Q(retry_at=None) | ~Q(retry_at__gt=now, retry_at__lte=now + _MOST_PATIENCE)
    claim = {"claimed_by": me, "claimed_until": now + lasting}
    is_mine = rows.filter(free, due, pk=name).update(**claim)
    try:
        yield rows.get(pk=name) if is_mine else None
    finally:
        if is_mine:
            rows.filter(pk=name, claimed_by=me).update(claimed_until=None)


def advance(task: TrailTask, *, lasting: timedelta, **to: Any) -> bool:
    """Move a cursor on, if it is where `task` has it; tell whether it was. The claim is renewed along."""
    alias = places.database()
    now = clock.now(alias)
    where = {"statement": task.statement, "index": task.index, "early": task.early}
    fine = {"failures": 0, "failing_since": None, "error": "", "retry_at": None, "done_at": now}
    values = {**fine, **to, "claimed_until": now + lasting}
    if not TrailTask.objects.using(alias).filter(pk=task.pk, **where).update(**values):
        return False
    for name, value in values.items():
        setattr(task, name, value)
    return True


def failed(name: str, error: str, *, retry_after: timedelta | None = None) -> bool:
    """Write down that a task failed, and when to try again; tell whether this trouble is new."""
    alias = places.database()
    rows = TrailTask.objects.using(alias)
    now, text = clock.now(alias), " ".join(error.split())[:_MAX_ERROR]
    task, _made = rows.get_or_create(pk=name)
    pause = min(_FIRST_PAUSE * 2.0 ** min(task.failures, 10), _LONGEST_PAUSE)
    if retry_after is not None:
        pause = min(max(pause, retry_after), _MOST_PATIENCE)
    is_new = task.error != text
    rows.filter(pk=name).update(
        failures=task.failures + 1,
        failing_since=task.failing_since or now,
        error=text,
        retry_at=now + pause,
    )
    return is_new


def is_paused(name: str) -> bool:
    """Tell whether a task failed so lately that it is not tried again yet."""
    alias = places.database()
    now = clock.now(alias)
    rows = TrailTask.objects.using(alias).filter(pk=name)
    return rows.filter(retry_at__gt=now, retry_at__lte=now + _MOST_PATIENCE).exists()


def done(name: str, now: datetime) -> None:
    """Write down that a task was done; where nothing was wrong, not more than once a minute."""
    rows = TrailTask.objects.using(places.database())
    fine = {"failures": 0, "failing_since": None, "error": "", "retry_at": None, "done_at": now}
    old = Q(done_at=None) | Q(done_at__lt=now - _SELDOM) | Q(failures__gt=0)
    if not rows.filter(pk=name).exists():
        rows.bulk_create([TrailTask(name=name, done_at=now)], ignore_conflicts=True)
    rows.filter(old, pk=name).update(**fine)

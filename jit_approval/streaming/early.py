"""Events that leave before they are sealed: as soon as they are committed, whatever the order of their keys.

A key is taken before its event is committed, so a lower one may appear after a higher one was sent. The keys that were
not there are remembered as gaps, and looked for until nobody can hold them any more. What is missed all the same, for
there are too many gaps, leaves when it is sealed, as everything does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Max

from jit_approval import clock
from jit_approval.audit import marks
from jit_approval.models import AuditEvent, TrailTask

_KEPT_FOR = timedelta(hours=1)
_MOST_GAPS = 1000


def start(alias: str) -> int:
    """Return the key from which a new target has events early: what is there by now it has as it is sealed."""
    newest = AuditEvent.objects.using(alias).aggregate(newest=Max("pk"))["newest"]
    return newest or 0


def batch(task: TrailTask, most: int, alias: str) -> list[AuditEvent]:
    """Return events that were committed and not sent, at most so many."""
    rows = AuditEvent.objects.using(alias)
    # All up to here is sealed, and leaves, or has left, with its proof.
    settled = marks.settled(alias, clock.now(alias))
    missing = [key for key, _since in task.gaps if key > settled]
    found = list(rows.filter(pk__in=missing).order_by("pk")[:most]) if missing else []
    later = rows.filter(pk__gt=max(task.early, settled)).order_by("pk")
    return [*found, *later[: most - len(found)]]


def after(task: TrailTask, sent: Iterable[AuditEvent], now: datetime) -> dict[str, object]:
    """Return where the cursor stands once these were sent: the highest key, and the gaps below it."""
    keys = {event.pk for event in sent}
    early = max([task.early, *keys])
    oldest = int((now - _KEPT_FOR).timestamp())
    gaps = [[key, since] for key, since in task.gaps if key not in keys and since > oldest]
    # Of a stretch that is too long, the keys nearest to what was sent.
    last = task.early
    for key in sorted(key for key in keys if key > task.early):
        begin = max(last + 1, key - _MOST_GAPS)
        gaps += [[missing, int(now.timestamp())] for missing in range(begin, key)]
        last = key
    return {"early": early, "gaps": gaps[-_MOST_GAPS:]}

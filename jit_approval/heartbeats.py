"""Signs of life of whoever sweeps: written by the sweep, read by `health`."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from jit_approval import clock, policies
from jit_approval.clock import DatabaseNow
from jit_approval.models import Heartbeat

_KEPT = timedelta(days=1)


class Pulse:
    """The heartbeat of this process, with what it has done since it started."""

    counts: Counter[str]
    lateness: float | None

    def __init__(self, kind: Heartbeat.Kind) -> None:
        self.kind = kind
        self._pid, self._is_new = 0, True
        self._begin()

    def add(self, counts: Mapping[str, int], lateness: float | None = None) -> None:
        """Count one sweep, for the next beat. `lateness`: in seconds, where it recorded anything."""
        if self._pid != os.getpid():
            self._begin()  # forked: the counts are another's
        self.sweeps += 1
        self.counts.update(counts)
        if lateness is not None:
            self.lateness = lateness

    def beat(self) -> None:
        """Write that this process lives (one statement, but for the first beat)."""
        if self._pid != os.getpid():
            self._begin()
        own = {"kind": self.kind, "host": socket.gethostname()[:200], "pid": self._pid}
        done: dict[str, Any] = {"sweeps": self.sweeps, "counts": dict(self.counts)}
        done |= {"lateness": self.lateness, "at": DatabaseNow()}
        if self._is_new:
            done["started_at"] = DatabaseNow()  # an earlier process may have had the same number
        if not _all().filter(**own).update(**done):
            row = Heartbeat(**own, **{"started_at": DatabaseNow(), **done})
            # Another thread of this process may have been first; either says the same.
            _all().bulk_create([row], ignore_conflicts=True)
        if self._is_new:
            forget_old()
        self._is_new = False

    def _begin(self) -> None:
        self.counts, self.sweeps, self.lateness = Counter(), 0, None
        self._pid, self._is_new = os.getpid(), True


def forget_old() -> None:
    """Remove the rows of processes that have not been seen for a day."""
    _all().filter(at__lt=clock.now(policies.database()) - _KEPT).delete()


def newest() -> Heartbeat | None:
    """Return the last sign of life of any process that sweeps."""
    return _all().order_by("-at").first()


def _all() -> QuerySet[Heartbeat]:
    return Heartbeat.objects.using(policies.database())

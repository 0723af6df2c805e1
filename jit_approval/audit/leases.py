"""Who seals now. It saves others the work, and nothing else: see seal.py.

A lease is taken for a minute at a time. One that ends later than that was taken by a clock that was wrong, or written
by somebody else, and is none: nobody waits for it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db.models import Q

from jit_approval import clock
from jit_approval.audit import places
from jit_approval.models import TreeHead

LONGEST = timedelta(minutes=1)


@contextmanager
def taken(alias: str) -> Iterator[bool]:
    """Take the lease if it is free, and tell whether it was; give it back in the end."""
    places.head(alias)
    rows = TreeHead.objects.using(alias)
    now, me = clock.now(alias), f"{socket.gethostname()[:30]}:{os.getpid()} {secrets.token_hex(8)}"
    free = Q(leased_until=None) | ~_holds(now)
    is_mine = bool(rows.filter(free).update(leased_by=me, leased_until=now + LONGEST))
    try:
        yield is_mine
    finally:
        if is_mine:
            rows.filter(leased_by=me).update(leased_until=None)


def held(alias: str) -> str:
    """Return who holds the lease, and until when; "" where nobody does."""
    rows = TreeHead.objects.using(alias).filter(_holds(clock.now(alias)))
    head = rows.first()
    if head is None or head.leased_until is None:
        return ""
    return f"{head.leased_by.split(' ')[0]}, until {_moment(head.leased_until)}"


def _holds(now: datetime) -> Q:
    return Q(leased_until__gte=now, leased_until__lte=now + LONGEST)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

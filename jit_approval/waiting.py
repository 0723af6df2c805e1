"""To wait on the line: whether a caller may, for how long, how many at once; and the wait itself.

While somebody waits, nothing of the database is held: no connection, no transaction. Who is woken asks again.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.core.handlers.asgi import ASGIRequest
from django.db import Error, connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from jit_approval import conf, prefer, waking
from jit_approval.models import ApprovalRequest
from jit_approval.policies import database
from jit_approval.states import OPEN, Execution, Outcome, Status

logger = logging.getLogger(__name__)

_HELD = "_jit_approval_held"
_STANDING = ("status", "outcome", "execution", "due_at", "audit_seq", "requester_id", "max_wait")
# Who waits for a deadline asks just after it, when the database agrees that it has passed.
_AFTER = 0.05
# Seconds between two looks at whether the client is still there, where only looking tells.
_LOOK_EVERY = 1.0


@dataclass(frozen=True)
class Asked:
    """What a caller would like: to be kept on the line for so many seconds. `threaded`: in a thread of its own."""

    seconds: int
    threaded: bool

    @property
    def applied(self) -> str:
        """The value of Preference-Applied. RFC 7240 §3."""
        return f"wait={self.seconds}"


@dataclass(frozen=True, slots=True)
class Held:
    """What an answer was about: the request as it was then, and for whom it was read.

    `seen` is how far its trail had come; `allowed` and `until_deadline` are seconds: for how long its terms let a
    caller wait, and when it changes by itself. `by_server`: nobody has to make the call again once it is approved.
    Not the row: thousands may wait.
    """

    pk: UUID
    seen: int
    reader: Any
    is_requester: bool
    allowed: float
    until_deadline: float
    by_server: bool


def held(approval_request: ApprovalRequest, *, reader: Any, now: datetime) -> Held:
    """Return what is to be remembered of a request while somebody waits. `now` is the database's time."""
    row = approval_request
    left = float("inf") if row.due_at is None else (row.due_at - now).total_seconds() + _AFTER
    return Held(
        pk=row.pk,
        seen=row.audit_seq,
        reader=reader,
        is_requester=reader == row.requester_id,
        allowed=row.max_wait.total_seconds(),
        until_deadline=left,
        by_server=row.execution == Execution.SERVER,
    )


def goes_on(approval_request: ApprovalRequest) -> bool:
    """Tell whether a caller has something to wait for: a decision, or the end of a run that is the server's."""
    row = approval_request
    if row.execution != Execution.SERVER:
        return row.status == Status.PENDING
    running = row.status == Status.CONSUMED and row.outcome == Outcome.RUNNING
    return row.status in OPEN or running


def looked(before: Held) -> Held | None:
    """Return what there is to wait for by now, without making the call again; None where it is to be made again.

    While the server runs it, the call would meet the run's own locks.
    """
    rows = ApprovalRequest.objects.using(database()).with_now()
    try:
        row = rows.only(*_STANDING).filter(pk=before.pk).first()
    except Error:
        return None  # the gate says so
    if row is None or not goes_on(row) or row.is_overdue(row.now):
        return None
    return held(row, reader=before.reader, now=row.now)


def asked(request: HttpRequest, *, threaded: bool) -> Asked | None:
    """Return what the caller asks for in `Prefer: wait=N`; None where it does not, or may not here.

    `threaded`: to wait would take a thread.
    """
    if "HTTP_PREFER" not in request.META or not conf.get().MAX_WAIT:
        return None
    seconds = prefer.wait_seconds(request.META)
    if not seconds or not _has_threads(request):
        return None
    return Asked(seconds, threaded)


def in_transactions() -> bool:
    """Tell whether views run inside transactions, which must not stay open for as long as somebody waits."""
    return any(settings["ATOMIC_REQUESTS"] for settings in connections.settings.values())


_warned = False


def _has_threads(request: HttpRequest) -> bool:
    """Tell whether others are served while one waits: under ASGI, and by WSGI servers with threads (PEP 3333)."""
    global _warned
    if isinstance(request, ASGIRequest) or request.META.get("wsgi.multithread"):
        return True
    if not _warned:
        logger.warning(
            "Prefer: wait is ignored: this server's workers serve one request at a time."
        )
        _warned = True
    return False


# --- what an answer is about -------------------------------------------------------------------------------


def mark(response: HttpResponseBase, held: Held) -> None:
    """Note on an answer what it was about."""
    setattr(response, _HELD, held)


def held_by(response: HttpResponseBase) -> Held | None:
    """Return what the answer was about, if it could be another one later."""
    found: Held | None = getattr(response, _HELD, None)
    return found


# --- how many ----------------------------------------------------------------------------------------------


class _Seats:
    """Counts who waits in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: Counter[Any] = Counter()
        self._threads = 0

    def take(self, requester: Any, threaded: bool) -> bool:
        """Take a seat if there is one."""
        config = conf.get()
        with self._lock:
            room = (
                self._of.total() < config.MAX_WAITERS
                and self._of[requester] < config.MAX_WAITERS_PER_REQUESTER
                and (not threaded or self._threads < config.MAX_THREAD_WAITERS)
            )
            if room:
                self._of[requester] += 1
                self._threads += threaded
            return room

    def leave(self, requester: Any, threaded: bool) -> None:
        """Give the seat back."""
        with self._lock:
            self._of[requester] -= 1
            self._threads -= threaded
            self._of += Counter()  # who has none is forgotten

    def taken(self) -> int:
        """Return how many there are."""
        return self._of.total()


_seats = _Seats()


def waiters() -> int:
    """Return how many wait in this process."""
    return _seats.taken()


@contextmanager
def seat(requester: Any, asked: Asked) -> Iterator[bool]:
    """Say whether there is room for one more waiter of this requester; keep the place while the block runs."""
    granted = _seats.take(requester, asked.threaded)
    try:
        yield granted
    finally:
        if granted:
            _seats.leave(requester, asked.threaded)


class Turns:
    """Lets so many at once do what they were woken for: a thousand must not ask for a thousand connections."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._of: WeakKeyDictionary[Any, asyncio.Semaphore] = WeakKeyDictionary()

    def here(self) -> asyncio.Semaphore:
        """Return the turns of the running event loop."""
        made = asyncio.Semaphore(self._at_once)
        return self._of.setdefault(asyncio.get_running_loop(), made)


def release_connections() -> bool:
    """Give back what this thread has of the database, to its pool if it has one. False: it is in a transaction."""
    if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
        return False
    connections.close_all()
    return True


# --- the wait ----------------------------------------------------------------------------------------------


def wait_in_thread(held: Held, seconds: float, request: HttpRequest) -> bool:
    """Wait until the request may have changed, or so many seconds. False: nobody is left to answer."""
    event, until = threading.Event(), monotonic() + seconds
    with waking.watching(held.pk, held.seen, event.set):
        while not event.is_set() and (left := until - monotonic()) > 0:
            event.wait(min(left, _LOOK_EVERY))
            if _has_gone(request):
                return False
    return True


def _has_gone(request: HttpRequest) -> bool:
    """Tell whether the client has hung up, where the server lets one see its socket: gunicorn does."""
    line = request.META.get("gunicorn.socket")
    if line is None:
        return False
    with suppress(OSError, ValueError):  # TLS: there one cannot look without reading
        if select.select([line], [], [], 0)[0]:
            return not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False


async def wait_on_loop(held: Held, seconds: float) -> None:
    """Wait until the request may have changed, or so many seconds; no thread waits meanwhile."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(event.set)

    with waking.watching(held.pk, held.seen, wake), suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

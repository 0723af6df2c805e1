"""Who waits for an approval request is woken when it changes: one listener per process, whoever waits.

On PostgreSQL (psycopg 3) each change sends a NOTIFY in its own transaction, so that it is heard when it is
committed; elsewhere the listener looks ten times a second, at all that is waited for in one statement. A
wake-up is a hint and nothing more: who is woken asks again, and what has been decided is what the row says.

A NOTIFY may be missed (the database restarts, a pooler swallows LISTEN): every few seconds, and after each
new connection, the listener looks at the rows themselves. It starts with the first who waits and ends, its
connection closed, when nobody has for a while. A process that forks leaves it to its parent.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import connections

from jit_approval import conf, prepared
from jit_approval.models import ApprovalRequest
from jit_approval.policies import database

logger = logging.getLogger(__name__)

CHANNEL = "jit_approval_changed"
# Seconds. Between two looks at the rows where nothing tells of changes, and where a NOTIFY may be missed.
_LOOK_EVERY = 0.1
_LOOK_AGAIN = 5.0
# How long the listener stays when nobody waits, and how long it leaves a database alone that failed.
_LINGER = 10.0
_RETRY = 1.0
_MANY = 500


def along(approval_request: ApprovalRequest, sequence: int, alias: str) -> prepared.Along | None:
    """Return what tells of a change, as SQL to be evaluated by a statement of its transaction; None for nothing.

    Not a statement of its own: deciding has none to spare. Nothing is sent where nobody can wait: a transaction
    that notifies takes a lock at its commit.
    """
    if not conf.get().MAX_WAIT or not _can_notify(connections[alias]):
        return None
    return "pg_notify(%s, %s)", (CHANNEL, f"{approval_request.pk} {sequence}")


def _can_notify(connection: Any) -> bool:
    """Tell whether the database can notify, and its driver hear of it."""
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


@contextmanager
def watching(pk: UUID, seen: int, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake()`, from another thread, when the audit sequence of the request is another than `seen`.

    Perhaps at once, perhaps more than once, perhaps too late: it is a hint.
    """
    waiter = _Waiter(pk, seen, wake)
    listener = _listener
    listener.add(waiter)
    try:
        yield
    finally:
        listener.remove(waiter)


def stop() -> None:
    """End the listener of this process, and wait until its connection is closed. Who waits now is not woken."""
    _listener.stop()


@dataclass(frozen=True, eq=False)
class _Waiter:
    pk: UUID
    seen: int
    wake: Callable[[], None]

    def hear(self, sequence: int) -> None:
        if sequence != self.seen:
            self.wake()


class Listener:
    """The thread that listens, and all who wait for what it hears."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[UUID, set[_Waiter]] = {}
        self._unseen: set[UUID] = set()
        self._ears: _Ears | None = None
        # Kept here: where a process forks, nothing in the child may close what the parent talks on.
        self._source: _Source | None = None

    def add(self, waiter: _Waiter) -> None:
        """Let somebody wait. The row is looked at once more: it may have changed since it was read."""
        with self._lock:
            self._waiters.setdefault(waiter.pk, set()).add(waiter)
            self._unseen.add(waiter.pk)
            if self._ears is None:
                self._ears = ears = _Ears()
                ears.thread = threading.Thread(
                    target=self._run, args=(ears,), name="jit_approval.waking", daemon=True
                )
                ears.thread.start()
            self._ears.nudge()

    def remove(self, waiter: _Waiter) -> None:
        """Let somebody go."""
        with self._lock:
            others = self._waiters.get(waiter.pk, set())
            others.discard(waiter)
            if not others:
                self._waiters.pop(waiter.pk, None)
                self._unseen.discard(waiter.pk)

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            ears = self._ears
            if ears is not None:
                ears.stopped = True
                ears.nudge()
        if ears is not None and ears.thread is not None:
            ears.thread.join(_LINGER)

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self, ears: _Ears) -> None:
        try:
            self._listen(ears)
        finally:
            ears.close()

    def _listen(self, ears: _Ears) -> None:
        failing = False
        while True:
            source = None
            try:
                source = self._source = _source(ears)
                source.open()
                if failing:
                    logger.warning("Who waits is woken again.")
                failing = False
                self._serve(source, ears)
                return
            except Exception:
                if not failing:
                    logger.exception(
                        "Who waits is not woken: the database failed. It is tried again."
                    )
                failing = True
            finally:
                if source is not None:
                    source.close()
            ears.sleep(_RETRY)
            if self._ends(ears, _LINGER):
                return

    def _serve(self, source: _Source, ears: _Ears) -> None:
        """Listen until there has been nobody to listen for, for a while."""
        idle_since, look_at = monotonic(), 0.0
        while True:
            now = monotonic()
            waited_for, unseen = self._asked_for()
            idle_since = now if waited_for else idle_since
            if self._ends(ears, now - idle_since):
                return
            all_of_them = now >= look_at
            self._tell(source.look(waited_for if all_of_them else unseen))
            look_at = now + source.look_every if all_of_them else look_at
            self._tell(source.hear(look_at - monotonic() if waited_for else _LINGER))

    def _asked_for(self) -> tuple[set[UUID], set[UUID]]:
        with self._lock:
            unseen, self._unseen = self._unseen, set()
            return set(self._waiters), unseen

    def _ends(self, ears: _Ears, idle: float) -> bool:
        """Tell whether the thread is to end, and take note that it does: who comes now starts another."""
        with self._lock:
            ends = ears.stopped or (not self._waiters and idle >= _LINGER)
            if ends:
                self._ears = None
            return ends

    def _tell(self, heard: Iterable[tuple[UUID, int]]) -> None:
        for pk, sequence in heard:
            with self._lock:
                waiters = tuple(self._waiters.get(pk, ()))
            for waiter in waiters:
                waiter.hear(sequence)


class _Ears:
    """What a listening thread sleeps on, so that it can be nudged."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.stopped = False
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)

    def nudge(self) -> None:
        """Wake the thread up."""
        with suppress(BlockingIOError):  # then it has not noticed the last nudge yet
            self._mouth.send(b"\0")

    def sleep(self, seconds: float, *also: Any) -> None:
        """Sleep so long, or until nudged, or until there is something to read elsewhere."""
        with selectors.DefaultSelector() as selector:
            for end in (self._ear, *also):
                selector.register(end, selectors.EVENT_READ)
            selector.select(max(0.0, seconds))
        with suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass

    def close(self) -> None:
        """Give back what sleeping took."""
        self._ear.close()
        self._mouth.close()


class _Source:
    """A connection of the listener's own, which tells what has changed; here, by looking."""

    look_every = _LOOK_EVERY

    def __init__(self, connection: Any, ears: _Ears) -> None:
        self._connection = connection
        self._ears = ears

    def open(self) -> None:
        self._connection.connect()

    def look(self, wanted: Iterable[UUID]) -> list[tuple[UUID, int]]:
        """Read how far the audit trails of these requests have come. What is gone has ended: it is told too."""
        keys, found = list(wanted), []
        for start in range(0, len(keys), _MANY):
            part = keys[start : start + _MANY]
            read = dict(self._read(part))
            found += [(key, read.get(key, -1)) for key in part]
        return found

    def _read(self, keys: list[UUID]) -> Iterator[tuple[UUID, int]]:
        field: Any = ApprovalRequest._meta.pk
        values = [field.get_db_prep_value(key, self._connection) for key in keys]
        table = self._connection.ops.quote_name(ApprovalRequest._meta.db_table)
        places = ", ".join(["%s"] * len(values))
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT id, audit_seq FROM {table} WHERE id IN ({places})", values)  # noqa: S608
            for key, sequence in cursor.fetchall():
                yield UUID(str(key)), sequence

    def hear(self, seconds: float) -> list[tuple[UUID, int]]:
        """Sleep so long, or until nudged; return what was heard meanwhile."""
        self._ears.sleep(seconds)
        return []

    def close(self) -> None:
        with suppress(Exception):
            self._connection.close()


class _Notified(_Source):
    """The same, told by PostgreSQL."""

    look_every = _LOOK_AGAIN

    def open(self) -> None:
        super().open()
        with self._connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")

    def hear(self, seconds: float) -> list[tuple[UUID, int]]:
        driver = self._connection.connection
        # What came along with the answer to a query is at hand already, and wakes nobody.
        heard = list(driver.notifies(timeout=0))
        if not heard:
            self._ears.sleep(seconds, driver.fileno())
            heard = list(driver.notifies(timeout=0))
        return [told for each in heard if (told := _told(each.payload)) is not None]


def _source(ears: _Ears) -> _Source:
    # Not the thread's own connection, which a pool may have lent out: this one is kept for long.
    connection = connections[database()].copy()
    connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
    return (_Notified if _can_notify(connection) else _Source)(connection, ears)


def _told(payload: str) -> tuple[UUID, int] | None:
    """Return what a notification says. Whoever may connect to the database may send one: it is not trusted."""
    key, _, sequence = payload.partition(" ")
    try:
        return UUID(key), int(sequence)
    except ValueError:
        return None


_listener = Listener()
_inherited: list[Listener] = []


def _start_anew() -> None:
    """In a process that was forked: the listener is the parent's."""
    global _listener
    _inherited.append(_listener)
    _listener = Listener()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)

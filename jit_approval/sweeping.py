"""The sweep: what time has ended is recorded, and what was lost on the way to people is made good.

One `Sweeper` per process. Any number may sweep at once, in as many processes: they share the work (see `batches`
and `notifications.delivery`), and what one of them leaves undone the next one does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Model, QuerySet

from jit_approval import clock, erasure, escalating, overdue, policies, policy_changes, queue
from jit_approval.batches import Batch
from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest, Notification, StoredAnswer, StoredCall
from jit_approval.notifications import delivery

logger = logging.getLogger(__name__)

GRACE = timedelta(seconds=2)
"""A message that waits for less has a task on its way."""

# Rows locked in one transaction: enough to be cheap, few enough that whoever meets one of them hardly waits.
_BATCH = 25
# Seconds of one sweep spent on rows, and on messages: together well below the time limit of a task. A mail server
# that hangs must not keep sweeps from ending.
_SECONDS = 20.0
# Seconds for which what raised is left alone: the clock looks every second, and would log it every second.
_PUT_OFF = 60.0
_WAITING = Notification.State.WAITING.value


@dataclass(frozen=True)
class Due:
    """Seconds from now until the next deadline, message, step or notice before a deadline, and call; None: none."""

    deadline: float | None
    message: float | None
    step: float | None = None
    # Until an approved call that the server is to run is overdue.
    call: float | None = None


class Sweeper:
    """Sweeps for one process, and remembers what it could not do, so as not to try it over and over."""

    def __init__(
        self,
        stopping: Callable[[], bool] = lambda: False,
        *,
        run: Callable[[UUID], bool] | None = None,
    ) -> None:
        """`run` runs an approved call on the server, or sees to it; without it none is."""
        self._stopping = stopping
        self._run = run
        self._rows = _PutOff()
        self._steps = _PutOff()
        self._messages = _PutOff()
        self._calls = _PutOff()
        self.lateness: float | None = None
        """Of the last sweep that recorded a deadline: the worst, in seconds."""

    def sweep(self) -> dict[str, int]:
        """Do all there is to do, within a time limit; return how many of each."""
        return {
            # First: an approved change whose process died has little time left.
            "changes": self.make_changes(),
            **self.record_due(),
            **self.take_steps(look=True),
            "told": self.send_what_waits(),
            "run": self.run_calls(),
        }

    def record_due(self, seconds: float = _SECONDS) -> dict[str, int]:
        """Record what is due, soonest first, for about so long; return how many expired and are `unknown`."""
        self.lateness = None
        counts, late = self._in_batches(overdue.Batch, overdue.record, self._rows, seconds)
        self.lateness = late
        return counts

    def take_steps(self, seconds: float = _SECONDS / 2, *, look: bool = False) -> dict[str, int]:
        """Take the steps of ladders that are due, and announce ends that are near; return how many of each.

        `look`: for requests that nobody is left to decide, too.
        """
        if look:
            self.look_for_stranded()
        counts, _late = self._in_batches(escalating.Batch, escalating.record, self._steps, seconds)
        return counts

    def look_for_stranded(self) -> None:
        """Have requests looked at that nobody is left to decide."""
        try:
            escalating.look_for_stranded()
        except Exception:
            if not _is_alive():
                raise
            logger.exception("The sweep could not look for requests that nobody could decide.")

    def _in_batches(
        self, kind: type[Batch], record: Callable[..., None], put_off: _PutOff, seconds: float
    ) -> tuple[dict[str, int], float | None]:
        """Take batch after batch; return how many of each, and the worst lateness, None where nothing was done."""
        counts, late, size, since = dict(kind().counts), None, _BATCH, None
        until = monotonic() + seconds
        while monotonic() < until and not self._stopping():
            batch = kind()
            try:
                record(batch, size, without=put_off.now(), since=since)
            except Exception as error:
                if not batch.taken or not _is_alive():
                    raise
                # It fails as a whole, at its commit. One at a time shows which row it is.
                if len(batch.taken) == 1:
                    batch.failed[batch.taken[0]] = error
                size = 1
                _leave(batch, put_off)
                continue
            counts = {name: counts[name] + count for name, count in batch.counts.items()}
            _leave(batch, put_off)
            if any(batch.counts.values()):
                late = max(late or 0.0, batch.lateness)
            if len(batch.taken) < size:
                break
            since = batch.reached
        return counts, late

    def make_changes(self) -> int:
        """Make the approved changes of policies, and erasures, that nobody made yet; return how many."""
        try:
            return policy_changes.make_all() + erasure.make_all()
        except Exception:
            if not _is_alive():
                raise
            logger.exception("The sweep could not make changes of policies.")
            return 0

    def send_what_waits(self, seconds: float | None = None) -> int:
        """Tell what a lost task did not, for about so long; return how many were told."""
        told, until = 0, monotonic() + (_SECONDS if seconds is None else seconds)
        delivery.close_pointless()
        for pk in delivery.due_since(GRACE):
            if monotonic() > until or self._stopping():
                break
            if pk in self._messages.now():
                continue
            try:
                told += delivery.deliver(pk)
            except Exception:
                if not _is_alive():
                    raise
                logger.exception("The sweep could not deliver notification %s.", pk)
                self._messages.add(pk)
        return told

    def run_calls(self) -> int:
        """Run what a lost task did not, or no worker is there to run; forget old answers. Return how many."""
        _answers().filter(delete_at__lte=DatabaseNow()).delete()
        count = 0
        for pk in _calls_due() if self._run is not None else ():
            if self._stopping():
                break
            if pk in self._calls.now():
                continue
            try:
                count += self._run(pk)  # type: ignore[misc]
            except Exception:
                if not _is_alive():
                    raise
                logger.exception("The sweep could not run the call of %s.", pk)
                self._calls.add(pk)
        return count

    def look(self) -> Due:
        """Ask what falls due next: one statement, one entry of an index for each kind."""
        alias = policies.database()
        sql, params = next_due_sql(
            alias,
            rows=self._rows.now(),
            messages=self._messages.now(),
            steps=self._steps.now(),
            calls=self._calls.now(),
        )
        with connections[alias].cursor() as cursor:
            cursor.execute(sql, params)
            due, told, step, call, asked_at = cursor.fetchone()
        now = clock.from_database(asked_at)
        return Due(
            _until(due, now),
            _until(told, now, GRACE),
            _until(step, now),
            _until(call, now, _grace()),
        )


def _leave(batch: Batch, put_off: _PutOff) -> None:
    """Leave alone, for a while, what could not be moved."""
    for pk, error in batch.failed.items():
        logger.error("The sweep could not move approval request %s.", pk, exc_info=error)
        put_off.add(pk)


def next_due_sql(
    alias: str,
    *,
    rows: Collection[Any] = (),
    messages: Collection[Any] = (),
    steps: Collection[Any] = (),
    calls: Collection[Any] = (),
) -> tuple[str, list[Any]]:
    """Return the statement, and its parameters, for the next deadline, message, step and call, and the time now.

    `rows`, `messages` and `calls` are the keys of those to leave alone, `steps` those of the requests to take
    none of.
    """
    deadline, first = _earliest(ApprovalRequest, "due_at", alias, rows)
    message, second = _earliest(Notification, "next_attempt_at", alias, messages, state=_WAITING)
    step, third = _earliest(ApprovalRequest, "wake_at", alias, steps)
    call, fourth = _earliest(StoredCall, "next_attempt_at", alias, calls)
    return (
        f"SELECT ({deadline}), ({message}), ({step}), ({call}), {clock.now_sql(alias)}",
        [*first, *second, *third, *fourth],
    )


def _earliest(
    model: type[Model], column: str, alias: str, without: Collection[Any], **where: Any
) -> tuple[str, list[Any]]:
    """Return SQL, with its parameters, for the earliest moment in a column: the first entry of its index."""
    connection, meta = connections[alias], model._meta
    quote: Any = connection.ops.quote_name
    pk: Any = meta.pk
    conditions = [f"{quote(column)} IS NOT NULL", *(f"{quote(name)} = %s" for name in where)]
    params = [*where.values(), *(pk.get_db_prep_value(key, connection) for key in without)]
    if without:
        conditions.append(f"{quote(pk.column)} NOT IN ({', '.join(['%s'] * len(without))})")
    return (
        f"SELECT {quote(column)} FROM {quote(meta.db_table)} WHERE {' AND '.join(conditions)} "  # noqa: S608 - names
        f"ORDER BY {quote(column)} LIMIT 1",
        params,
    )


def _grace() -> timedelta:
    """Return how long a worker is given to take a call before somebody else does."""
    return GRACE if queue.is_configured() else timedelta(0)


def _calls_due() -> list[UUID]:
    """Return the approved calls whose time came a while ago, oldest first."""
    rows = StoredCall.objects.using(policies.database()).annotate(now=DatabaseNow())
    found = rows.filter(next_attempt_at__lte=DatabaseNow()).order_by("next_attempt_at")
    grace, pairs = _grace(), found.values_list("pk", "next_attempt_at", "now")[:_BATCH]
    return [pk for pk, due, now in pairs if due is not None and now - due >= grace]


def _answers() -> QuerySet[StoredAnswer]:
    return StoredAnswer.objects.using(policies.database())


def _until(value: Any, now: datetime, extra: timedelta = timedelta(0)) -> float | None:
    if value is None:
        return None
    return (clock.from_database(value) + extra - now).total_seconds()


def _is_alive() -> bool:
    """Tell whether the database can still be asked, after an error that may have been its end."""
    connection = connections[policies.database()]
    return connection.connection is not None and connection.is_usable()


class _PutOff:
    """Keys to be left alone for a while."""

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}

    def add(self, key: Hashable) -> None:
        """Leave it alone from now on."""
        self._until[key] = monotonic() + _PUT_OFF

    def now(self) -> list[Any]:
        """Return those to leave alone now."""
        self._until = {key: until for key, until in self._until.items() if until > monotonic()}
        return list(self._until)

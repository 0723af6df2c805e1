"""What time alone has ended: recorded in batches, each row by whoever comes first.

A batch is one durable transaction. Its rows are locked where nobody else holds them (SKIP LOCKED, where the
database has it), so that processes that sweep at once share the work and none waits; each is moved under a
savepoint of its own. A process that dies takes its batch back with it: nothing is half recorded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import connections, transaction

from jit_approval import transitions
from jit_approval.models import ApprovalRequest
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import OPEN, Outcome, Status


@dataclass
class Batch:
    """What became of the rows that were taken. `lateness`: the worst, in seconds from deadline to record."""

    taken: list[UUID] = field(default_factory=list)
    expired: int = 0
    unknown: int = 0
    lateness: float = 0.0
    failed: dict[UUID, Exception] = field(default_factory=dict)
    # The last deadline that was met: the next batch need not look at earlier ones.
    reached: datetime | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {"expired": self.expired, "unknown": self.unknown}


def record(
    batch: Batch, size: int, *, without: Collection[UUID] = (), since: datetime | None = None
) -> None:
    """Take up to `size` rows that are due, soonest first, and say in `batch` what became of them.

    An open call expires; a run beyond its limit becomes `unknown`, and is never run again. `without` are rows to
    leave alone, `since` is a deadline before which nothing is left to do.

    Raises:
        Exception: the transaction as a whole failed; nothing of `batch` happened but that its rows were taken.
    """
    with transitions.durable() as alias:
        for row in _lock(alias, size, without, since):
            batch.taken.append(row.pk)
            batch.reached = row.due_at
            try:
                with transaction.atomic(using=alias):
                    _record(batch, row, alias)
            except Exception as error:
                if not transitions.is_alive(alias):
                    raise
                batch.failed[row.pk] = error


def due(alias: str) -> ApprovalRequestQuerySet:
    """Return the rows whose deadline has passed, whatever it ends. The index on `due_at` has them, soonest first."""
    return ApprovalRequest.objects.using(alias).due()


def _lock(
    alias: str, size: int, without: Collection[UUID], since: datetime | None
) -> list[ApprovalRequest]:
    rows = due(alias).with_now().defer("payload", "context")
    if without:
        rows = rows.exclude(pk__in=without)
    if since is not None:
        rows = rows.filter(due_at__gte=since)
    skip = connections[alias].features.has_select_for_update_skip_locked
    return list(rows.select_for_update(skip_locked=skip)[:size])


def _record(batch: Batch, row: ApprovalRequest, alias: str) -> None:
    late = (row.now - row.due_at).total_seconds() if row.due_at else 0.0
    if row.status in OPEN:
        transitions.move(row, to=Status.EXPIRED, by=None, alias=alias, changes=transitions.CLOSED)
        batch.expired += 1
    else:
        transitions.end(row, outcome=Outcome.UNKNOWN, alias=alias, at=row.now)
        batch.unknown += 1
    batch.lateness = max(batch.lateness, late)

"""What time alone has ended: recorded in batches (see `batches`), each row by whoever comes first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from jit_approval import batches, transitions
from jit_approval.models import ApprovalRequest
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import OPEN, Outcome, Status


@dataclass
class Batch(batches.Batch):
    """Rows whose deadline has passed."""

    expired: int = 0
    unknown: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {"expired": self.expired, "unknown": self.unknown}


def record(
    batch: Batch, size: int, *, without: Collection[UUID] = (), since: datetime | None = None
) -> None:
    """Take up to `size` rows that are due, soonest first, and say in `batch` what became of them.

    An open call expires; a run beyond its limit becomes `unknown`, and is never run again. Else as `batches.take`.
    """
    batches.take(batch, size, due=due, moment="due_at", move=_record, without=without, since=since)


def due(alias: str) -> ApprovalRequestQuerySet:
    """Return the rows whose deadline has passed, whatever it ends. The index on `due_at` has them, soonest first."""
    return ApprovalRequest.objects.using(alias).due()


def _record(batch: Batch, row: ApprovalRequest, alias: str) -> None:
    late = (row.now - row.due_at).total_seconds() if row.due_at else 0.0
    if row.status in OPEN:
        transitions.move(row, to=Status.EXPIRED, by=None, alias=alias, changes=transitions.CLOSED)
        batch.expired += 1
    else:
        transitions.end(row, outcome=Outcome.UNKNOWN, alias=alias, at=row.now)
        batch.unknown += 1
    batch.lateness = max(batch.lateness, late)

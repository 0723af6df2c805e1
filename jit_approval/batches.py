"""Rows that a moment has come for: taken in batches, each row by whoever comes first.

A batch is one durable transaction. Its rows are locked where nobody else holds them (SKIP LOCKED, where the
database has it), so that processes that sweep at once share the work and none waits; each is moved under a
savepoint of its own. A process that dies takes its batch back with it: nothing is half recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from django.db import connections, transaction

from jit_approval import transitions
from jit_approval.models import ApprovalRequest
from jit_approval.querysets import ApprovalRequestQuerySet


@dataclass
class Batch:
    """What became of the rows that were taken. `lateness`: the worst, in seconds from the moment to its record."""

    taken: list[UUID] = field(default_factory=list)
    lateness: float = 0.0
    failed: dict[UUID, Exception] = field(default_factory=dict)
    # The last moment that was met: the next batch need not look at earlier ones.
    reached: datetime | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {}


B = TypeVar("B", bound=Batch)


def take(
    batch: B,
    size: int,
    *,
    due: Callable[[str], ApprovalRequestQuerySet],
    moment: str,
    move: Callable[[B, ApprovalRequest, str], None],
    without: Collection[UUID] = (),
    since: datetime | None = None,
) -> None:
    """Move up to `size` of the rows that are due, in their order, and say in `batch` what became of them.

    `due` finds them in a database, `moment` is the field of what they are due by. `without` are rows to leave alone,
    `since` is a moment before which nothing is left to do.

    Raises:
        Exception: the transaction as a whole failed; nothing of `batch` happened but that its rows were taken.
    """
    with transitions.durable() as alias:
        rows = due(alias).exclude(pk__in=without) if without else due(alias)
        if since is not None:
            rows = rows.filter(**{f"{moment}__gte": since})
        for row in _locked(rows, size, alias):
            batch.taken.append(row.pk)
            batch.reached = getattr(row, moment)
            try:
                with transaction.atomic(using=alias):
                    move(batch, row, alias)
            except Exception as error:
                if not transitions.is_alive(alias):
                    raise
                batch.failed[row.pk] = error


def _locked(rows: ApprovalRequestQuerySet, size: int, alias: str) -> list[ApprovalRequest]:
    skip = connections[alias].features.has_select_for_update_skip_locked
    rows = rows.with_now().defer("payload", "context")
    return list(rows.select_for_update(skip_locked=skip)[:size])

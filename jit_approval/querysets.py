"""Named sets of approval requests. Time is always the database's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import F, Q

from jit_approval.clock import DatabaseNow
from jit_approval.states import Status

if TYPE_CHECKING:
    from jit_approval.models import ApprovalRequest  # noqa: F401 - named in a string


class ApprovalRequestQuerySet(models.QuerySet["ApprovalRequest"]):
    """Approval requests by where they stand now."""

    def pending(self) -> ApprovalRequestQuerySet:
        """Waiting for a decision, in time."""
        return self.filter(status=Status.PENDING, due_at__gt=DatabaseNow())

    def usable(self) -> ApprovalRequestQuerySet:
        """Approved, unused and in time: what the design calls grants."""
        return self.filter(status=Status.APPROVED, due_at__gt=DatabaseNow())

    def due(self) -> ApprovalRequestQuerySet:
        """Whatever time has ended and nobody recorded: overdue, or run beyond the run limit; soonest first."""
        return self.filter(due_at__lte=DatabaseNow()).order_by("due_at")

    def to_wake(self) -> ApprovalRequestQuerySet:
        """In time, or run to its end, and somebody is to be told something by now; soonest first."""
        in_time = Q(due_at=None) | Q(due_at__gt=DatabaseNow())
        return self.filter(in_time, wake_at__lte=DatabaseNow()).order_by("wake_at")

    def with_now(self) -> ApprovalRequestQuerySet:
        """Read the database's time along with each row, as `now`."""
        return self.annotate(now=DatabaseNow())  # type: ignore[no-redef]

    def soonest_first(self) -> ApprovalRequestQuerySet:
        """Open ones first by deadline, then closed ones, newest first."""
        return self.order_by(F("due_at").asc(nulls_last=True), "-created_at")

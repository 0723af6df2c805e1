"""What django-q2 runs: a message per task, and a sweep every minute that makes good whatever was lost.

A task carries a primary key, reads the row, and does nothing if it is late or doubled. Nobody's permission
depends on one having run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from uuid import UUID

from django.apps import apps
from django.db import connections, router
from django.db.models import Model, Q

from jit_approval import policies, policy_changes, services
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import ApprovalRequest
from jit_approval.notifications import delivery
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import Outcome

logger = logging.getLogger(__name__)

SWEEP = "jit_approval.tasks.sweep"
_BATCH = 100
# Keeps one sweep well below a task's time limit; the next one is a minute away.
_MOST_PER_SWEEP = 500
# A row younger than this has a task on its way.
_GRACE = timedelta(seconds=5)
# Seconds of one sweep spent on messages; a mail server that hangs must not keep sweeps from ending.
_TIME_FOR_MESSAGES = 20.0


def deliver(notification_pk: int) -> int:
    """Tell the recipients of an outbox row; return how many were told now.

    Doubled or late it tells nobody twice. Only a process that dies between sending a message and writing that
    down makes the sweeper send that one message again (see `notifications.delivery`).
    """
    return delivery.deliver(notification_pk)


def sweep() -> dict[str, int]:
    """Tidy up: expire what is overdue, close runs without an end, send what was not sent; return how many of each.

    No lock is held across rows: of sweeps at the same time, one moves a row and the others pass it by. A row that
    raises is logged and left for the next sweep.
    """
    return {
        # First: an approved change whose process died has little time left.
        "changes": policy_changes.make_all(),
        "expired": _each(_requests().overdue, _expire),
        "unknown": _each(_requests().lost, _give_up_on),
        "told": _send_what_waits(),
    }


def ensure_schedule(using: str) -> None:
    """Schedule the sweep every minute if the database `using` holds the schedules and has none for it.

    One that is there stays as the operator left it, disabled or edited; one that was deleted comes back.
    """
    if not apps.is_installed("django_q"):
        return
    from django_q.models import Schedule

    if router.db_for_write(Schedule) != using or not _has_table(Schedule, using):
        return
    if not _has_table(ApprovalRequest, policies.database()):
        return  # `migrate jit_approval zero`: there is nothing left to sweep.
    ours = Schedule.objects.using(using).filter(Q(func=SWEEP) | Q(name=SWEEP))
    if ours.exists():
        return
    made = {"schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    Schedule.objects.using(using).create(name=SWEEP, func=SWEEP, **made)
    # There is no unique column to rely on. Of processes that migrate at the same time, whoever
    # looks last sees all rows, and the oldest stays.
    oldest = ours.order_by("pk").values_list("pk", flat=True).first()
    ours.filter(name=SWEEP, pk__gt=oldest).delete()


# --- the pieces ------------------------------------------------------------------------------------------


def _requests() -> ApprovalRequestQuerySet:
    return ApprovalRequest.objects.using(policies.database())


def _each(
    due: Callable[[], ApprovalRequestQuerySet], move: Callable[[ApprovalRequest], object]
) -> int:
    """Move every row that is due, soonest first, in batches; return how many this process moved."""
    moved = 0
    passed_by: set[UUID] = set()
    while batch := list(due().exclude(pk__in=passed_by).with_now()[:_BATCH]):
        for row in batch:
            passed_by.add(row.pk)
            try:
                move(row)
                moved += 1
            except IllegalTransition:
                pass  # Somebody else was first.
            except Exception:
                logger.exception("The sweep could not move approval request %s.", row.pk)
        if len(passed_by) >= _MOST_PER_SWEEP:
            break
    return moved


def _expire(row: ApprovalRequest) -> None:
    services.expire(row)


def _give_up_on(row: ApprovalRequest) -> None:
    services.record_outcome(row, outcome=Outcome.UNKNOWN)


def _send_what_waits() -> int:
    told, until = 0, monotonic() + _TIME_FOR_MESSAGES
    delivery.close_pointless()
    for pk in delivery.due_since(_GRACE):
        if monotonic() > until:
            break
        try:
            told += delivery.deliver(pk)
        except Exception:
            logger.exception("The sweep could not deliver notification %s.", pk)
    return told


def _has_table(model: type[Model], using: str) -> bool:
    connection = connections[using]
    with connection.cursor() as cursor:
        return model._meta.db_table in connection.introspection.table_names(cursor)

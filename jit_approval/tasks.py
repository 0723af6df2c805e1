"""What django-q2 runs: a message per task, and a sweep every minute that makes good whatever was lost.

A task carries a primary key, reads the row, and does nothing if it is late or doubled. Nobody's permission
depends on one having run.
"""

from __future__ import annotations

from uuid import UUID

from django.apps import apps
from django.db import connections, router
from django.db.models import Model, Q

from jit_approval import execution, keeping, policies, queue, services
from jit_approval.heartbeats import Pulse
from jit_approval.models import ApprovalRequest, Heartbeat
from jit_approval.notifications import delivery
from jit_approval.sweeping import Sweeper

RUN = services.RUN
SWEEP = "jit_approval.tasks.sweep"

# Seconds for the trail: a sweep ends within a minute.
_TRAIL = 10.0


def _run_soon(pk: UUID) -> bool:
    """Give a call to a task of its own: a sweep must end, and a call may take long."""
    if queue.enqueue(RUN, str(pk), using=policies.database(), inline=False):
        return True
    return execution.run(pk)


_sweeper = Sweeper(run=_run_soon)
_pulse = Pulse(Heartbeat.Kind.SCHEDULE)


def deliver(notification_pk: int) -> int:
    """Tell the recipients of an outbox row; return how many were told now.

    Doubled or late it tells nobody twice. Only a process that dies between sending a message and writing that
    down makes the sweeper send that one message again (see `notifications.delivery`).
    """
    return delivery.deliver(notification_pk)


def run(approval_request_pk: str) -> bool:
    """Run an approved call that the server is to run; doubled or late it does nothing."""
    return execution.run(UUID(approval_request_pk))


def take_steps() -> int:
    """Take the steps that are due now; return how many. Doubled or late it takes none twice."""
    return _sweeper.take_steps()["steps"]


def sweep() -> dict[str, int]:
    """Tidy up: expire what is overdue, close runs without an end, send what was not sent; return how many of each.

    It ends within a minute. What raises is logged and left for a later sweep. That it ran is written down, for
    `health` to see.
    """
    return _swept(_sweeper)


def sweep_here() -> dict[str, int]:
    """Do the same, and run approved calls in this process: for where no cluster may be there to take a task."""
    return _swept(Sweeper(run=execution.run))


def _swept(sweeper: Sweeper) -> dict[str, int]:
    counts = sweeper.sweep()
    _pulse.add(counts, sweeper.lateness)
    _pulse.beat()
    return counts | keeping.keep(_TRAIL)


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


def _has_table(model: type[Model], using: str) -> bool:
    connection = connections[using]
    with connection.cursor() as cursor:
        return model._meta.db_table in connection.introspection.table_names(cursor)

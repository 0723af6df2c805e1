"""What is told as time passes: the steps of a ladder, that an end is near, how a run ended; each once, in order.

A step is one transaction: its event, its messages and who may decide from then on stand or fall together. Of
processes that take it at once, the conditional UPDATE on the number of steps taken lets one. Never after the end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Q

from jit_approval import batches, clock, policies, prepared, signals, transitions
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import ApprovalPolicy, ApprovalRequest, EscalatedDecider, Notification
from jit_approval.notifications import outbox
from jit_approval.policies import ladder, reachability
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import Status

KIND = "escalated"
Event = Notification.Event


@dataclass
class Batch(batches.Batch):
    """Rows of whom somebody is to be told."""

    steps: int = 0
    notices: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {"steps": self.steps, "notices": self.notices}


def record(
    batch: Batch, size: int, *, without: Collection[UUID] = (), since: datetime | None = None
) -> None:
    """Take up to `size` rows of whom somebody is to be told, soonest first, and say in `batch` what became of them.

    As `batches.take`.
    """
    batches.take(batch, size, due=due, moment="wake_at", move=_wake, without=without, since=since)


def due(alias: str) -> ApprovalRequestQuerySet:
    """Return the rows of whom somebody is to be told by now. The index on `wake_at` has them, soonest first."""
    return ApprovalRequest.objects.using(alias).to_wake()


def look_again() -> int:
    """Have every pending request looked at at once: somebody who could decide may be gone. Return how many.

    Those whose last resort was told already stay as they are.
    """
    rows = ApprovalRequest.objects.using(policies.database()).pending()
    rows = rows.exclude(notifications__event=Event.UNAVAILABLE)
    return rows.update(wake_at=clock.DatabaseNow())


def look_for_stranded() -> int:
    """Have those looked at whose policy's deciders, all together, could not decide them any more; return how many.

    What nobody was told of, for deciders were changed by SQL, or a delegation began: a few queries, however many
    requests wait.
    """
    alias = policies.database()
    rows = ApprovalRequest.objects.using(alias).pending()
    rows = rows.exclude(notifications__event=Event.UNAVAILABLE).order_by()
    keys = set(rows.values_list("policy", flat=True).distinct())
    named = ApprovalPolicy.objects.using(alias).filter(pk__in=keys - {None})
    stranded = Q(policy__in=reachability.out_of_reach(named))
    if None in keys and not policies.quorum_is_reachable(policies.terms(None)):
        stranded |= Q(policy=None)
    return rows.filter(stranded).update(wake_at=clock.DatabaseNow())


def _wake(batch: Batch, row: ApprovalRequest, alias: str) -> None:
    asked_at = row.wake_at or row.now
    steps = _climb(row, alias)
    notices = _announce_end(row, alias) + _tell_outcome(row, alias)
    changes = {"warned": row.warned, "wake_at": ladder.wake_at(row)}
    as_read = {"id": row.pk, "audit_seq": row.audit_seq, "status": row.status}
    if not prepared.update(ApprovalRequest, changes, using=alias, where=as_read):
        raise IllegalTransition("The request has moved on.")
    batch.steps += steps
    batch.notices += notices
    if steps or notices:
        batch.lateness = max(batch.lateness, (row.now - asked_at).total_seconds())


def _climb(row: ApprovalRequest, alias: str) -> int:
    """Take the steps that are due, and, where nobody is left who could decide, the next ones at once."""
    taken = 0
    while row.status == Status.PENDING and (rung := ladder.next_rung(row)) is not None:
        due_now = rung.at is not None and rung.at <= row.now
        if not due_now and policies.is_reachable_still(row):
            break
        _take(row, rung, alias, early=not due_now)
        taken += 1
    return taken


def _take(row: ApprovalRequest, rung: ladder.Rung, alias: str, *, early: bool) -> None:
    transitions.advance(
        row,
        KIND,
        alias=alias,
        at=row.now,
        data={**rung.as_data(), "early": early},
        where={"status": Status.PENDING, "steps_taken": rung.number - 1},
        guards=(f"due_at > {clock.now_sql(alias)}",),
        changes={"steps_taken": rung.number},
    )
    if rung.may_decide:
        _let_decide(row, rung, alias)
    for event in _told(rung):
        outbox.write(row, event, at=row.now, using=alias, occasion=rung.number)
    transitions.announce(signals.request_escalated, row, alias)


def _told(rung: ladder.Rung) -> list[Notification.Event]:
    if rung.is_last_resort:
        return [Event.UNAVAILABLE]
    return [
        *([Event.REMINDER] if rung.deciders else []),
        *([Event.ESCALATED] if rung.names_others else []),
    ]


def _let_decide(row: ApprovalRequest, rung: ladder.Rung, alias: str) -> None:
    """Write who may decide from now on. Who stands behind the call may not, whatever a step says."""
    model = get_user_model()
    users = model._base_manager.using(alias).filter(pk__in=rung.users).values_list("pk", flat=True)
    wanted_groups = [key for key, _name in rung.groups]
    groups = Group.objects.using(alias).filter(pk__in=wanted_groups).values_list("pk", flat=True)
    made = [
        *(EscalatedDecider(approval_request=row, step=rung.number, user_id=key) for key in users),
        *(EscalatedDecider(approval_request=row, step=rung.number, group_id=key) for key in groups),
    ]
    EscalatedDecider.objects.using(alias).bulk_create(made)


def _announce_end(row: ApprovalRequest, alias: str) -> int:
    """Say that the window in force ends soon, once."""
    moment = ladder.notice_at(row)
    if moment is None or moment > row.now:
        return 0
    row.warned = True
    occasion = 0 if row.status == Status.PENDING else 1
    outbox.write(row, Event.EXPIRING, at=row.now, using=alias, occasion=occasion)
    return 1


def _tell_outcome(row: ApprovalRequest, alias: str) -> int:
    """Say how a run ended, where the run itself did not (see `transitions.end`)."""
    if row.status != Status.CONSUMED or row.finished_at is None:
        return 0
    outbox.write(row, Event.CONSUMED, at=row.now, using=alias)
    return 1

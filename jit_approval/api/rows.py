"""Which approval requests a user sees: own ones, those they may decide, those they decided."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q

from jit_approval import conf, policies, problems, services
from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import OPEN, Status

_LONG = ("payload", "context", "parts", "state_parts", "user_agent")


def own(user: Any) -> ApprovalRequestQuerySet:
    """Return the requests the user stands behind."""
    behind = Q(requester=user.pk)
    if conf.get().PERSON_KEY != "pk":
        behind |= Q(requester_person=policies.person_of(user))
    return ApprovalRequest.objects.using(policies.database()).filter(behind)


def under(user: Any, status: Status) -> ApprovalRequestQuerySet:
    """Return the requests of others that the user has authority over; pending: where their vote is missing."""
    rows = in_status(policies.decidable_by(user), status)
    if status is Status.PENDING:
        rows = rows.exclude(decisions__person=policies.person_of(user))
    return rows


def in_status(rows: ApprovalRequestQuerySet, status: Status) -> ApprovalRequestQuerySet:
    """Keep what is in this state now, by the database clock."""
    if status is Status.PENDING:
        return rows.pending()
    if status is Status.APPROVED:
        return rows.usable()
    if status is Status.EXPIRED:
        overdue = Q(status__in=OPEN, due_at__lte=DatabaseNow())
        return rows.filter(Q(status=Status.EXPIRED) | overdue)
    return rows.filter(status=status)


def for_list(rows: ApprovalRequestQuerySet) -> ApprovalRequestQuerySet:
    """Read what a list shows: two queries, however many rows."""
    return rows.with_now().defer(*_LONG).prefetch_related("decisions")


def read(pk: UUID) -> ApprovalRequest:
    """Read one request as it stands now, with its decisions and the database's time."""
    rows = ApprovalRequest.objects.using(policies.database()).with_now()
    return rows.defer("parts", "state_parts").prefetch_related("decisions").get(pk=pk)


def visible_to(user: Any, text: str) -> ApprovalRequest:
    """Return the request with this id, if the user may see it.

    Raises:
        jit_approval.refusals.Problem: 404, the same for ids that are malformed, unknown and somebody else's.
    """
    try:
        row = read(UUID(text))
    except (ValueError, ApprovalRequest.DoesNotExist):
        raise problems.not_found() from None
    if not _sees(user, row):
        raise problems.not_found()
    return row


def _sees(user: Any, row: ApprovalRequest) -> bool:
    return (
        services.stands_behind(user, row)
        or decision_of(user, row) is not None
        or policies.decidable_by(user).filter(pk=row.pk).exists()
    )


def decision_of(user: Any, row: ApprovalRequest) -> str | None:
    """Return the verdict that the user's person has given on this request, if any."""
    person = policies.person_of(user)
    verdicts = [one.verdict for one in row.decisions.all() if one.person == person]
    return verdicts[0] if verdicts else None

"""Calls that look the same and are not identical: approved as well, the same may be done twice.

Another header, query or spelling makes another call, which nothing else on a page would speak of.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber

from jit_approval import policies
from jit_approval.admin import access, deadline
from jit_approval.clock import DatabaseNow
from jit_approval.models import ApprovalRequest
from jit_approval.states import OPEN, Status

# Whose call it is, and what a person sees of it.
_LOOK = ("requester_id", "action", "object_model", "object_pk", "payload")
# One that was run longer ago than this is no matter.
_RECENT = timedelta(days=1)
# Of one look, newest first.
_MAX = 5


def of_each(
    user: Any, rows: Sequence[ApprovalRequest], among: Sequence[ApprovalRequest] = ()
) -> dict[Any, list[dict[str, Any]]]:
    """Return, by the key of each row, what is told of calls that look like it: one query for all of them.

    `among`: the rows that are about to be decided together.
    """
    others = _others(rows, among)
    seen = access.seen(user, others)
    return {
        row.pk: [
            {
                "row": other,
                "badge": deadline.badge(other),
                "is_seen": other in among or other.pk in seen,
                "is_among": other in among,
            }
            for other in [*others, *among]
            if _is_alike(row, other)
        ]
        for row in rows
    }


def _look(row: ApprovalRequest) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _LOOK}


def _is_alike(row: ApprovalRequest, other: ApprovalRequest) -> bool:
    if row.fingerprint == other.fingerprint or _look(row) != _look(other):
        return False
    if row.requester_id is None:
        return False  # nobody knows whether these two were the same account
    return other.status in OPEN or other.created_at >= row.created_at - _RECENT


def _others(
    rows: Sequence[ApprovalRequest], among: Sequence[ApprovalRequest]
) -> list[ApprovalRequest]:
    """Return calls that look like one of the rows, and are open in time, or have been run; newest first."""
    alike = [_alike(row) for row in rows if row.requester_id is not None]
    if not alike:
        return []
    same = ApprovalRequest.objects.using(policies.database()).with_now()
    same = same.filter(reduce(or_, alike)).exclude(pk__in=[row.pk for row in among])
    # So many of each look: many of one must not leave another without its warning.
    newest = F("created_at").desc()
    rank = Window(RowNumber(), partition_by=[F(name) for name in _LOOK], order_by=newest)
    return list(same.alias(rank=rank).filter(rank__lte=_MAX).order_by("-created_at"))


def _alike(row: ApprovalRequest) -> Q:
    run = Q(status=Status.CONSUMED, created_at__gte=row.created_at - _RECENT)
    matters = run | Q(status__in=OPEN, due_at__gt=DatabaseNow())
    return Q(**_look(row)) & matters & ~Q(fingerprint=row.fingerprint)

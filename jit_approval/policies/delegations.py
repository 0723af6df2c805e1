"""Who stands in for whom at this moment, by the database's clock."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from django.db.models import Q, QuerySet

from jit_approval.clock import DatabaseNow
from jit_approval.models import Delegation
from jit_approval.policies import authority
from jit_approval.policies.persons import database


def in_force() -> QuerySet[Delegation]:
    """Return the delegations of this moment, by the clock alone: they tie their two ends, active or not.

    What they lend is another question: see `lends`.
    """
    rows = Delegation.objects.using(database()).select_related("delegator", "stand_in")
    return rows.filter(revoked_at=None, starts_at__lte=DatabaseNow(), ends_at__gt=DatabaseNow())


def touching(users: Iterable[Any]) -> list[Delegation]:
    """Return those in force in which one of the users (keys) takes part, on either side. One query."""
    keys = list(users)
    return list(in_force().filter(Q(stand_in__in=keys) | Q(delegator__in=keys)))


@cache
def touches_sql(alias: str) -> str:
    """Return SQL that is 1 where user `%s` (twice) takes part in a delegation in force."""
    mine = "AND (g.stand_in_id = %s OR g.delegator_id = %s)"
    exists = f"EXISTS (SELECT 1 FROM {authority.in_force_sql(alias)} {mine})"  # noqa: S608
    return f"CASE WHEN {exists} THEN 1 ELSE 0 END"


@cache
def any_sql(alias: str) -> str:
    """Return SQL that is 1 while any delegation is in force."""
    exists = f"EXISTS (SELECT 1 FROM {authority.in_force_sql(alias)})"  # noqa: S608
    return f"CASE WHEN {exists} THEN 1 ELSE 0 END"


def covers(delegation: Delegation, policy_id: int | None) -> bool:
    """Tell whether it is about this policy."""
    return delegation.policy_id is None or delegation.policy_id == policy_id


def lends(delegation: Delegation, policy_id: int | None) -> bool:
    """Tell whether it lends authority under this policy: to and from accounts that are active."""
    both = delegation.delegator.is_active and delegation.stand_in.is_active
    return bool(both and covers(delegation, policy_id))

"""Who sees which requests in the admin, and what one may do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext as _

from jit_approval import policies, services
from jit_approval.exceptions import MayNotDecide, SelfApprovalForbidden
from jit_approval.models import (
    ApprovalRequest,
    EscalatedDecider,
    PolicyGroupPermission,
    PolicyUserPermission,
)
from jit_approval.policies import delegations
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import OPEN, Outcome, Status

VIEW = "jit_approval.view_approvalrequest"


def sees_all(user: Any) -> bool:
    """Tell whether the user sees every request: superusers and holders of the view permission."""
    return bool(user.has_perm(VIEW))


def is_decider(user: Any) -> bool:
    """Tell whether the user may decide requests of some policy, model-wide or by object permission, or any one."""
    if not user.is_active:
        return False
    if user.has_perm(policies.DECIDE):
        return True
    alias = policies.database()
    decide = {"permission__codename": "decide"}
    by_user = PolicyUserPermission.objects.using(alias).filter(user=user.pk, **decide)
    by_group = PolicyGroupPermission.objects.using(alias).filter(
        group__in=user.groups.using(alias), **decide
    )
    return by_user.exists() or by_group.exists() or _is_escalated(user, alias)


def _is_escalated(user: Any, alias: str) -> bool:
    """Tell whether a ladder has let the user decide some request that still waits, or may still be revoked."""
    groups = user.groups.using(alias).values("pk")
    rows = EscalatedDecider.objects.using(alias).filter(Q(user=user.pk) | Q(group__in=groups))
    return rows.filter(approval_request__status__in=OPEN).exists()


def acts_as_decider(user: Any) -> bool:
    """Tell whether the user is a decider, or stands in for one now."""
    if not user.is_active:
        return False
    return is_decider(user) or any(
        is_decider(each.delegator)
        for each in delegations.touching([user.pk])
        if each.stand_in_id == user.pk
    )


def visible_to(user: Any) -> ApprovalRequestQuerySet:
    """Return what the user may look at: everything, or what is theirs to decide, and what they asked."""
    if sees_all(user):
        return ApprovalRequest.objects.using(policies.database())
    # Annotated, not a subquery of `decidable_by`: its SQL names the outer table.
    return policies.with_authority(user).filter(Q(_authority=1) | own(user))


def seen(user: Any, rows: Sequence[ApprovalRequest]) -> set[Any]:
    """Return the keys of those of the rows that the user may look at."""
    if not rows:
        return set()
    return set(
        visible_to(user).filter(pk__in=[row.pk for row in rows]).values_list("pk", flat=True)
    )


def own(user: Any) -> Q:
    """Return the condition for requests of the user, or of another account of the same person."""
    return Q(requester=user.pk) | Q(requester_person=policies.person_of(user))


def sees_anything(user: Any) -> bool:
    """Tell whether the inbox is of any use to the user."""
    return sees_all(user) or is_decider(user) or visible_to(user).exists()


@dataclass(frozen=True)
class Options:
    """What one user may do with one request now; `why_not` says why nothing can be decided."""

    may_decide: bool = False
    may_revoke: bool = False
    may_settle: bool = False
    why_not: str = ""
    # Names of those the user would decide for, as their stand-in.
    on_behalf_of: tuple[str, ...] = ()


def options(user: Any, row: ApprovalRequest, *, authority: bool | None = None) -> Options:
    """Return what the user may do now. It only shapes the page: the services check again.

    `row` carries the database's time (`with_now`). `authority`: over its policy, when already read.
    """
    refusal, on_behalf_of = _standing(user, row, authority)
    if row.status == Status.APPROVED and not row.is_overdue(row.now):
        may_revoke = not refusal or services.stands_behind(user, row)
        why_not = _("It has been approved already.")
        return Options(may_revoke=may_revoke, why_not=why_not, on_behalf_of=on_behalf_of)
    if row.outcome == Outcome.UNKNOWN:
        why_not = _("Nobody knows whether it ran: no end of the run was recorded.")
        return Options(may_settle=not refusal, why_not=why_not)
    why_not = _over(row) or refusal or _has_voted(user, row)
    return Options(may_decide=not why_not, why_not=why_not, on_behalf_of=on_behalf_of)


def _over(row: ApprovalRequest) -> str:
    if row.status == Status.EXPIRED or row.is_overdue(row.now):
        return _("The time for this is over.")
    if row.status != Status.PENDING:
        return _("It has been decided already: %(status)s.") % {"status": row.get_status_display()}
    return ""


def _standing(
    user: Any, row: ApprovalRequest, authority: bool | None
) -> tuple[str, tuple[str, ...]]:
    """Return why the user has no say, and, where they have, for whom they would say it."""
    try:
        if authority is None or policies.is_behind(user, row.requester_id, row.persons):
            return "", policies.ensure_may_decide(user, row).on_behalf_of
        if not authority:
            raise MayNotDecide
    except SelfApprovalForbidden:
        if policies.is_behind(user, row.requester_id, row.persons):
            return _("This is your own call. Somebody else has to decide it."), ()
        return _("You stand in for who made this call. Somebody else has to decide it."), ()
    except MayNotDecide:
        return _("You are not among the deciders of this request."), ()
    return "", ()


def _has_voted(user: Any, row: ApprovalRequest) -> str:
    person = policies.person_of(user)
    if any(decision.person == person for decision in row.decisions.all()):
        return _("You have given your decision. Others have yet to give theirs.")
    return ""

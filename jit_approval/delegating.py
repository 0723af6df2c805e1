"""Entering a delegation and ending it: by whom, within which bounds, and written down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from jit_approval import clock, policies, prepared
from jit_approval.audit import chain
from jit_approval.calls import Origin
from jit_approval.clock import DatabaseNow
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import Delegation

# Longer than a holiday is a change of who decides, which is a matter of policies.
MAX_PERIOD = timedelta(days=90)
FOR_OTHERS = "jit_approval.change_delegation"


def enter(delegation: Delegation, *, by: Any, origin: Origin | None = None) -> Delegation:
    """Save a new delegation, entered by `by`, and write an event that says so.

    Without a start, or with one that is past, it starts now: nobody stood in before it was entered.

    Raises:
        PermissionDenied: it is another's authority, and `by` may not enter that.
        ValidationError: the rules of delegation exclude it; the message says which.
    """
    alias = policies.database()
    with transaction.atomic(using=alias):
        _lock(delegation)
        now = clock.now(alias)
        if delegation.starts_at is None or delegation.starts_at < now:
            delegation.starts_at = now
        delegation.full_clean(exclude=("created_by",))
        ensure_allowed(delegation, by=by, now=now)
        delegation.created_by = by
        delegation.save(using=alias, force_insert=True)
        _write("delegated", delegation, by, now, origin)
    return delegation


def ensure_allowed(delegation: Delegation, *, by: Any, now: Any) -> None:
    """Refuse what the model's own rules do not know: who enters it, and for how long.

    Raises: as `enter`.
    """
    if by.pk != delegation.delegator_id:
        if not by.has_perm(FOR_OTHERS):
            raise PermissionDenied(_("You may delegate your own authority only."))
        if policies.person_of(by) == policies.person_of(delegation.stand_in):
            text = _("Who enters it for somebody else does not name themselves.")
            raise ValidationError({"stand_in": text})
    if not delegation.delegator.is_active:
        raise ValidationError(
            _("The delegator's account is deactivated: there is nothing to lend.")
        )
    if not delegation.stand_in.is_active:
        raise ValidationError({"stand_in": _("The stand-in's account is deactivated.")})
    if delegation.policy is not None and delegation.policy.archived:
        raise ValidationError({"policy": _("The policy is archived.")})
    if delegation.ends_at <= now:
        raise ValidationError({"ends_at": _("That is past.")})
    if delegation.ends_at - delegation.starts_at > MAX_PERIOD:
        limit = {"days": MAX_PERIOD.days}
        raise ValidationError({"ends_at": _("At most %(days)d days after it starts.") % limit})


def may_end(delegation: Delegation, by: Any) -> bool:
    """Tell whether `by` may end it: it is their authority, or they may enter for others."""
    return bool(by.is_active and (by.pk == delegation.delegator_id or by.has_perm(FOR_OTHERS)))


def end(delegation: Delegation, *, by: Any, origin: Origin | None = None) -> None:
    """End a delegation now, by the database's clock, and write an event that says so.

    Raises:
        PermissionDenied: it is another's authority, and `by` may not end that.
        IllegalTransition: it is over already.
    """
    if not may_end(delegation, by):
        raise PermissionDenied(_("You may end delegations of your own authority only."))
    alias = policies.database()
    with transaction.atomic(using=alias):
        rows = Delegation.objects.using(alias).filter(pk=delegation.pk, revoked_at=None)
        if not rows.filter(ends_at__gt=DatabaseNow()).update(revoked_at=DatabaseNow()):
            raise IllegalTransition("The delegation is over already.")
        delegation.refresh_from_db(fields=["revoked_at"])
        _write("delegation_ended", delegation, by, delegation.revoked_at, origin)


def _lock(delegation: Delegation) -> None:
    """Let two that would close a circle wait for each other."""
    users = get_user_model()._base_manager.using(policies.database()).select_for_update()
    ends = [delegation.delegator_id, delegation.stand_in_id]
    list(users.filter(pk__in=ends).order_by("pk").values_list("pk"))


def _write(kind: str, delegation: Delegation, by: Any, at: Any, origin: Origin | None) -> None:
    data = {
        "delegation": delegation.pk,
        "delegator": str(delegation.delegator.get_username()),
        "stand_in": str(delegation.stand_in.get_username()),
        "policy": delegation.policy.slug if delegation.policy is not None else "",
        "from": delegation.starts_at.isoformat(timespec="seconds"),
        "until": delegation.ends_at.isoformat(timespec="seconds"),
        "reason": delegation.reason,
    }
    origin = (origin or Origin()).of(policies.person_of(by))
    event = chain.single_event(kind, at=at, by=by, data=data, origin=origin)
    prepared.insert(event, using=policies.database())

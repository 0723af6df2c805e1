"""On what terms a call is held, and whether a grant still satisfies those of now."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import Permission

from jit_approval import conf
from jit_approval.calls import Terms
from jit_approval.models import ApprovalPolicy, ApprovalRequest, PolicyGroupRequirement
from jit_approval.policies.persons import database
from jit_approval.states import Severity


def terms(policy: ApprovalPolicy | None) -> Terms:
    """Return the terms of a policy, or those of the settings where none matches: held all the same."""
    if policy is None:
        return _default_terms()
    return Terms(
        policy_id=policy.pk,
        policy_slug=policy.slug,
        policy_version=policy.version,
        required_approvals=policy.required_approvals,
        decide_within=policy.decide_within,
        usable_within=policy.usable_within,
        rejection_cooldown=policy.rejection_cooldown,
        require_reason=policy.require_reason,
        reason_pattern=policy.reason_pattern,
        require_approval_id=policy.require_approval_id,
        severity=policy.severity,
        group_requirements=_group_requirements(policy),
        **_object_permission(policy.object_permission),
    )


def _default_terms() -> Terms:
    config = conf.get()
    return Terms(
        policy_id=None,
        policy_slug="",
        policy_version=0,
        required_approvals=config.REQUIRED_APPROVALS,
        decide_within=config.DECIDE_WITHIN,
        usable_within=config.USABLE_WITHIN,
        rejection_cooldown=config.REJECTION_COOLDOWN,
        require_reason=config.REQUIRE_REASON,
    )


def _group_requirements(policy: ApprovalPolicy) -> tuple[tuple[int, str, int], ...]:
    # Read with the policy by `matching`: most have none, and then there is nothing more to ask.
    if not getattr(policy, "has_groups", True):
        return ()
    rows = PolicyGroupRequirement.objects.using(database()).filter(policy=policy.pk)
    return tuple(rows.order_by("group_id").values_list("group_id", "group__name", "count"))


def _object_permission(name: str) -> dict[str, Any]:
    """Return a permission by its name; the key -1, which nobody holds, where it is gone."""
    if not name:
        return {}
    app_label, _, codename = name.partition(".")
    found = (
        Permission.objects.using(database())
        .filter(content_type__app_label=app_label, codename=codename)
        .order_by("pk")
        .values_list("pk", "content_type__app_label", "content_type__model")
        .first()
    )
    key, *model = found or (-1, "", "")
    return {
        "object_permission": key,
        "object_permission_model": ".".join(model),
        "object_permission_label": name,
    }


def still_covers(approval_request: ApprovalRequest, now_terms: Terms) -> bool:
    """Tell whether a grant still satisfies the terms that hold now.

    False when another policy matches by now, or the same one has become stricter. Loosening changes nothing.
    """
    row = approval_request
    pinned = {key: count for key, _name, count in row.group_requirements}
    return (
        row.policy_id == now_terms.policy_id
        and row.required_approvals >= now_terms.required_approvals
        and row.usable_within <= now_terms.usable_within
        and (bool(row.reason) or not now_terms.require_reason)
        and fits_pattern(row.reason, now_terms.reason_pattern)
        and row.object_permission_label in ("", now_terms.object_permission_label)
        and all(pinned.get(key, 0) >= count for key, _name, count in now_terms.group_requirements)
    )


def fits_pattern(reason: str, pattern: str) -> bool:
    """Tell whether the reason contains the pattern; a pattern that fails is contained in nothing."""
    if not pattern:
        return True
    try:
        return re.search(pattern, reason) is not None
    except (re.error, RecursionError):
        return False


def strictness(policy: ApprovalPolicy | None) -> tuple[Any, ...]:
    """Return what compares greater for the policy that lets less through. None: terms of the settings.

    Denying beats requiring beats allowing; then more persons, more groups, a reason, and shorter times.
    """
    if policy is not None and policy.effect != "require":
        return (2 if policy.effect == "deny" else 0,)
    held = terms(policy)
    groups = held.group_requirements
    return (
        1,
        max(held.required_approvals, sum(count for _, _, count in groups)),
        len(groups),
        held.object_permission is None,
        held.require_reason + bool(held.reason_pattern) + held.require_approval_id,
        list(Severity).index(Severity(held.severity)),
        -held.usable_within,
        -held.decide_within,
    )

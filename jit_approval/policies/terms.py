"""On what terms a call is held, and whether a grant still satisfies those of now."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from django.contrib.auth.models import Permission

from jit_approval import conf
from jit_approval.calls import Step, Terms
from jit_approval.models import ApprovalPolicy, ApprovalRequest, PolicyGroupRequirement
from jit_approval.policies import ladder
from jit_approval.policies.persons import database
from jit_approval.redaction import seen
from jit_approval.states import Execution, Severity


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
        max_wait=policy.max_wait,
        require_reason=policy.require_reason,
        reason_pattern=policy.reason_pattern,
        require_approval_id=policy.require_approval_id,
        severity=policy.severity,
        execution=policy.execution,
        group_requirements=_group_requirements(policy),
        steps=ladder.of_policy(policy),
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
        max_wait=conf.MAX_ON_THE_LINE,
        require_reason=config.REQUIRE_REASON,
        steps=ladder.default(),
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
    key, *model = found or (_NOBODYS, "", "")
    return {
        "object_permission": key,
        "object_permission_model": ".".join(model),
        "object_permission_label": name,
    }


_NO_OBJECT_PERMISSION: dict[str, Any] = {
    "object_permission": None,
    "object_permission_model": "",
    "object_permission_label": "",
}
# A permission that nobody holds.
_NOBODYS = -1
# As long as the object's key may be; of a longer one only the beginning is kept.
_MAX_KEY = 200


def on_object(held: Terms, model: str, key: str) -> Terms:
    """Return the terms for a call on this object: a permission on objects of another kind is nobody's here.

    Two objects of different kinds may have the same key, and two long keys the same beginning.
    """
    if held.object_permission is None:
        return held
    same_kind = bool(model) and held.object_permission_model == model
    if same_kind and 0 < len(key) < _MAX_KEY:
        return held
    return replace(held, object_permission=_NOBODYS)


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
        and gives_reason(row.reason, now_terms)
        and fits_pattern(row.reason, now_terms.reason_pattern)
        and not (_by_server(row.execution) and not _by_server(now_terms.execution))
        and row.object_permission_label in ("", now_terms.object_permission_label)
        and all(pinned.get(key, 0) >= count for key, _name, count in now_terms.group_requirements)
        # Who may decide for a step was taken could do so by now under the terms of now.
        and not ladder.lets_others_decide(
            ladder.steps_of(row), row.decide_by - row.created_at, now_terms
        )
    )


def gives_reason(reason: str, held: Terms) -> bool:
    """Tell whether the reason is one, where the terms ask for one."""
    return is_meaningful(reason) or not _asks_why(held)


def _asks_why(held: Terms) -> bool:
    return held.require_reason or bool(held.reason_pattern)


def is_meaningful(reason: str) -> bool:
    """Tell whether a reason says anything: three different letters or digits, so "." and "aaa" do not."""
    return len({character for character in seen(reason) if character.isalnum()}) >= 3


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

    Denying beats requiring beats allowing; then more persons, more groups, a reason, a requester who has to
    come back and repeat the call, and severity. Which times are the shorter says nothing: whichever is chosen,
    `tightened` takes the shorter ones.
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
        not any(step.may_decide for step in held.steps),
        held.require_reason + bool(held.reason_pattern) + held.require_approval_id,
        not _by_server(held.execution),
        _rank(held.severity),
    )


def tightened(held: Terms, other: Terms) -> Terms:
    """Return the terms, where they are looser than the others as strict as those. Who decides stays.

    Of two patterns the first is kept. Where the ladders differ, no step lets anybody decide; people are told.
    """
    counts = {key: count for key, _name, count in other.group_requirements}
    groups = {
        key: (key, name, max(count, counts.get(key, 0)))
        for key, name, count in held.group_requirements
    }
    groups = {**{each[0]: each for each in other.group_requirements}, **groups}
    same = held.object_permission == other.object_permission
    return replace(
        held,
        required_approvals=max(held.required_approvals, other.required_approvals),
        decide_within=min(held.decide_within, other.decide_within),
        usable_within=min(held.usable_within, other.usable_within),
        rejection_cooldown=max(held.rejection_cooldown, other.rejection_cooldown),
        max_wait=min(held.max_wait, other.max_wait),
        require_reason=held.require_reason or other.require_reason,
        reason_pattern=held.reason_pattern or other.reason_pattern,
        require_approval_id=held.require_approval_id or other.require_approval_id,
        severity=max(held.severity, other.severity, key=_rank),
        execution=held.execution if _by_server(other.execution) else other.execution,
        group_requirements=tuple(groups[key] for key in sorted(groups)),
        steps=held.steps if held.steps == other.steps else _telling_only(held.steps),
        **({} if same else _NO_OBJECT_PERMISSION),
    )


def _telling_only(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(replace(step, may_decide=False) for step in steps)


def _by_server(execution: str) -> bool:
    return execution == Execution.SERVER


def _rank(severity: str) -> int:
    return list(Severity).index(Severity(severity))

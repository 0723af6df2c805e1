"""What a policy says, as plain data: to be compared, kept and written down.

A snapshot names users, groups and permissions, never their keys, so that it means the same elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet

from jit_approval.models import (
    ApprovalPolicy,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.policies import durations, rungs
from jit_approval.policies.persons import database

Snapshot = dict[str, Any]

PLAIN = (
    "name",
    "slug",
    "description",
    "enabled",
    "archived",
    "priority",
    "effect",
    "condition",
    "severity",
    "execution",
    "required_approvals",
    "object_permission",
    "require_reason",
    "reason_pattern",
    "require_approval_id",
)
LINES = ("actions", "fallback")
DURATIONS = ("decide_within", "usable_within", "rejection_cooldown", "max_wait")
_NOTHING_BESIDE: Snapshot = {
    "channels": [],
    "steps": [],
    "group_requirements": {},
    "users": {},
    "groups": {},
}


EXACT = frozenset(
    {"slug", "actions", "condition", "object_permission", "reason_pattern", "fallback", "steps"}
)
"""Fields that programs read: a letter that only looks like another is shown as an escape."""


@dataclass(frozen=True)
class Difference:
    """One field that two snapshots differ in. None: it was, or will be, no policy at all."""

    field: str
    before: Any
    after: Any


def snapshot(policy: ApprovalPolicy) -> Snapshot:
    """Return what one policy says now, those who may decide under it included. A few queries."""
    (found,) = snapshots_by_slug([policy]).values()
    return found


def snapshots() -> dict[str, Snapshot]:
    """Return what every policy says now, by slug. A few queries, however many policies."""
    return snapshots_of(ApprovalPolicy.objects.using(database()))


def snapshots_of(policies: QuerySet[ApprovalPolicy]) -> dict[str, Snapshot]:
    """Return what these policies say now, by slug. A few queries, however many policies."""
    return snapshots_by_slug(list(policies.order_by("slug")))


def snapshots_by_slug(policies: list[ApprovalPolicy]) -> dict[str, Snapshot]:
    """Return what these say now, by slug, as `snapshots_of`."""
    keys = [policy.pk for policy in policies]
    users = _holders(PolicyUserPermission, f"user__{get_user_model().USERNAME_FIELD}", keys)
    groups = _holders(PolicyGroupPermission, "group__name", keys)
    required: dict[Any, dict[str, int]] = {}
    rows = PolicyGroupRequirement.objects.using(database()).filter(policy__in=keys)
    for key, name, count in rows.values_list("policy", "group__name", "count"):
        required.setdefault(key, {})[name] = count
    named: dict[Any, list[str]] = {}
    links = ApprovalPolicy.channels.through._default_manager.using(database())
    for key, slug in links.filter(approvalpolicy__in=keys).values_list(
        "approvalpolicy", "channel__slug"
    ):
        named.setdefault(key, []).append(slug)
    steps = rungs.said_of(keys)
    return {
        policy.slug: {
            **_own_fields(policy),
            "channels": sorted(named.get(policy.pk, [])),
            "steps": steps.get(policy.pk, []),
            "group_requirements": dict(sorted(required.get(policy.pk, {}).items())),
            "users": users.get(policy.pk, {}),
            "groups": groups.get(policy.pk, {}),
        }
        for policy in policies
    }


def _own_fields(policy: ApprovalPolicy) -> Snapshot:
    return {
        **{name: getattr(policy, name) for name in PLAIN},
        **{name: _lines(getattr(policy, name)) for name in LINES},
        **{name: durations.as_text(getattr(policy, name)) for name in DURATIONS},
    }


def _holders(model: Any, name: str, keys: list[Any]) -> dict[Any, dict[str, list[str]]]:
    """Return by policy, by permission's codename, the sorted names of who holds it."""
    rows = model.objects.using(database()).filter(content_object__in=keys)
    found: dict[Any, dict[str, list[str]]] = {}
    for key, codename, holder in rows.values_list("content_object", "permission__codename", name):
        found.setdefault(key, {}).setdefault(codename, []).append(str(holder))
    return {
        key: {codename: sorted(names) for codename, names in sorted(held.items())}
        for key, held in found.items()
    }


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def differences(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[Difference]:
    """Return the fields that differ, in the order a policy is written down in.

    What a snapshot says nothing of, for it is older than the field, is the field's default.
    """
    names = dict.fromkeys([*(after or {}), *(before or {})])
    first, then = complete(before), complete(after)
    return [
        Difference(name, first.get(name), then.get(name))
        for name in names
        if first.get(name) != then.get(name)
    ]


def complete(said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the snapshot with the defaults of what it says nothing of; of no policy, nothing."""
    return {**_own_fields(ApprovalPolicy()), **_NOTHING_BESIDE, **said} if said else {}

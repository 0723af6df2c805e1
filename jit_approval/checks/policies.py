"""Checks of the policies that are stored: they query, so they run with `migrate` and `check --database` alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.models import Q

from jit_approval import conditions, policies, policy_changes, secrets
from jit_approval.calls import Terms
from jit_approval.checks import config, workers
from jit_approval.models import ApprovalPolicy
from jit_approval.policies import reachability, versions
from jit_approval.redaction import visible
from jit_approval.states import Effect, Execution

_MAX_NAMES = 20
# Each costs a query; where more may change policies, the first tell enough.
_MAX_EDITORS = 100


def check(databases: Sequence[str] | None) -> list[CheckMessage]:
    """Return what is wrong with the policies of the database, if it is one of `databases` and has them."""
    alias = policies.database()
    if alias not in (databases or ()) or not config.people_can_be_found():
        return []  # what is wrong with the settings is an error of its own
    try:
        if not _has_tables(alias):
            return []
        rows = list(ApprovalPolicy.objects.using(alias).filter(archived=False))
        enabled = [row for row in rows if row.enabled]
        return [
            *_deciders(enabled),
            *_conditions(enabled),
            *_server_execution(enabled),
            *_changed_past(rows),
            *_changes_of_policies(),
        ]
    except DatabaseError:
        # Before or between migrations the columns are not there.
        return []


def _has_tables(alias: str) -> bool:
    names = connections[alias].introspection.table_names()
    return ApprovalPolicy._meta.db_table in names


def _deciders(rows: Iterable[ApprovalPolicy]) -> Iterator[CheckMessage]:
    rows = list(rows)
    lacking = reachability.out_of_reach(rows)
    found = [row for row in rows if row.pk in lacking]
    if hard := [row for row in found if not row.object_permission]:
        yield Warning(
            f"Nobody could give the approvals that these policies ask for: {_named(hard)}.",
            hint="Every call under them is refused as unavailable. Name deciders, or members of the groups "
            "that must be represented, in the admin.",
            id="jit_approval.W010",
        )
    if soft := [row for row in found if row.object_permission]:
        yield Warning(
            "These policies have too few deciders of their own and count on holders of a permission on "
            f"the object: {_named(soft)}.",
            hint="A call on an object without enough holders is refused as unavailable.",
            id="jit_approval.W011",
        )


def _conditions(rows: Iterable[ApprovalPolicy]) -> Iterator[CheckMessage]:
    found = [row for row in rows if row.condition.strip()]
    if found and not conditions.available():
        yield Warning(
            f"These policies have a condition, and no CEL library is installed: {_named(found)}.",
            hint='Install "django-jit-approval[cel]". Until then calls are held under the stricter terms.',
            id="jit_approval.W012",
        )


def _server_execution(rows: Iterable[ApprovalPolicy]) -> Iterator[CheckMessage]:
    found = [row for row in rows if row.execution == Execution.SERVER]
    if found and not secrets.is_ready():
        yield Warning(
            f"These policies have the server run their calls, and it cannot keep them: {_named(found)}.",
            hint="Set JIT_APPROVAL['SECRET_KEYS'] and install the extra [crypto]. Until then requesters "
            "repeat such calls themselves.",
            id="jit_approval.W017",
        )
    elif found:
        yield from workers.check()


def _changed_past(rows: Iterable[ApprovalPolicy]) -> Iterator[CheckMessage]:
    rows = list(rows)
    changed = versions.changed_past(rows)
    if found := [row for row in rows if row.pk in changed]:
        yield Warning(
            f"These policies do not say what their newest version says: {_named(found)}.",
            hint="They were changed past the admin and the command (by SQL, update() or a fixture), or a "
            "user or group they name was renamed. The page of versions shows the difference; saving the "
            "policy records it.",
            id="jit_approval.W013",
        )


def _changes_of_policies() -> Iterator[CheckMessage]:
    """Whoever turned the gate on should be able to turn anything else, too."""
    if not _is_gated():
        return
    plain = _rule_for_changes()
    if plain is not None and plain.effect == Effect.DENY:
        return  # meant so
    terms = policies.terms(plain)
    if not policies.quorum_is_reachable(terms):
        yield Warning(
            "Changes of policies wait for approval, and nobody could approve one.",
            hint=f"Give people the permission to decide {policy_changes.ACTION}, or the policy that names "
            "it deciders: until then no policy can be changed in the admin.",
            id="jit_approval.W014",
        )
    elif alone := [user for user in _editors() if not _others_could_approve(terms, user)]:
        yield Warning(
            "Changes of policies wait for approval, and nobody else could approve those by: "
            f"{_listed(visible(str(user.get_username())) for user in alone)}.",
            hint="Nobody approves their own change, nor does their stand-in. Name further people who may "
            f"decide {policy_changes.ACTION}: until then what these people change is refused.",
            id="jit_approval.W016",
        )


def _rule_for_changes() -> ApprovalPolicy | None:
    """Return what a change falls under that no condition is about; None: the terms of the settings."""
    left_out = (Effect.ALLOW, Effect.OBSERVE)
    named = (row for row in policies.named(policy_changes.ACTION) if row.effect not in left_out)
    return next((row for row in named if not row.condition.strip()), None)


def _editors() -> Iterable[Any]:
    """Return the users who may change policies, the oldest accounts first."""
    held = Q(content_type__app_label="jit_approval", codename="change_approvalpolicy")
    allowed = Permission.objects.using(policies.database()).filter(held)
    users = get_user_model()._base_manager.using(policies.database())
    able = Q(user_permissions__in=allowed) | Q(groups__permissions__in=allowed)
    keys = users.filter(Q(is_superuser=True) | able).values("pk")
    return users.filter(pk__in=keys, is_active=True).order_by("pk")[:_MAX_EDITORS]


def _others_could_approve(terms: Terms, user: Any) -> bool:
    return policies.quorum_is_reachable(terms, [policies.person_of(user)])


def check_admin() -> list[CheckMessage]:
    """Return which pages of the project's admin change policies past the gate. No query."""
    if not _is_gated():
        return []
    if pages := sorted(set(_ways_around())):
        return [
            Warning(
                f"These pages of the admin change policies without approval: {', '.join(pages)}.",
                hint="GATE_POLICY_CHANGES covers jit_approval's own pages. Unregister these, or derive them "
                "from jit_approval.admin.ApprovalPolicyAdmin without guardian's GuardedModelAdmin.",
                id="jit_approval.W015",
            )
        ]
    return []


def _ways_around() -> Iterator[str]:
    from django.contrib.admin.sites import all_sites

    for site in all_sites:
        for model, page in site._registry.items():
            if _is_loose(model, page):
                yield f"{type(page).__module__}.{type(page).__qualname__}"


def _is_loose(model: Any, page: Any) -> bool:
    from guardian.admin import GuardedModelAdminMixin

    from jit_approval import models
    from jit_approval.admin import ApprovalPolicyAdmin

    ours = (
        ApprovalPolicy,
        models.PolicyUserPermission,
        models.PolicyGroupPermission,
        models.PolicyGroupRequirement,
    )
    if isinstance(page, ApprovalPolicyAdmin):
        return isinstance(page, GuardedModelAdminMixin)
    inlines = [getattr(inline, "model", None) for inline in page.inlines]
    return model in ours or any(each in ours for each in inlines)


def _is_gated() -> bool:
    try:
        return policy_changes.is_gated()
    except ImproperlyConfigured:
        return False  # said by the check of the settings


def _named(rows: Sequence[ApprovalPolicy]) -> str:
    return _listed(row.slug for row in rows)


def _listed(found: Iterable[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more

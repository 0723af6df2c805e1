"""What a policy says, as plain data: to be compared, kept, written down and put back.

A snapshot names users, groups and permissions, never their keys, so that it means the same elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet

from jit_approval import clock, prepared
from jit_approval.audit import chain
from jit_approval.calls import Origin
from jit_approval.models import (
    ApprovalPolicy,
    Channel,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
    PolicyVersion,
)
from jit_approval.policies import durations, erased, rungs
from jit_approval.policies.persons import database, person_of

Snapshot = dict[str, Any]

_PLAIN = (
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
_LINES = ("actions", "fallback")
_DURATIONS = ("decide_within", "usable_within", "rejection_cooldown", "max_wait")
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


# --- as data -----------------------------------------------------------------------------------------------


def snapshot(policy: ApprovalPolicy) -> Snapshot:
    """Return what one policy says now, those who may decide under it included. A few queries."""
    (found,) = _snapshots([policy]).values()
    return found


def snapshots() -> dict[str, Snapshot]:
    """Return what every policy says now, by slug. A few queries, however many policies."""
    return snapshots_of(ApprovalPolicy.objects.using(database()))


def snapshots_of(policies: QuerySet[ApprovalPolicy]) -> dict[str, Snapshot]:
    """Return what these policies say now, by slug. A few queries, however many policies."""
    return _snapshots(list(policies.order_by("slug")))


def _snapshots(policies: list[ApprovalPolicy]) -> dict[str, Snapshot]:
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
        **{name: getattr(policy, name) for name in _PLAIN},
        **{name: _lines(getattr(policy, name)) for name in _LINES},
        **{name: durations.as_text(getattr(policy, name)) for name in _DURATIONS},
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
    first, then = _complete(before), _complete(after)
    return [
        Difference(name, first.get(name), then.get(name))
        for name in names
        if first.get(name) != then.get(name)
    ]


def _complete(said: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the snapshot with the defaults of what it says nothing of; of no policy, nothing."""
    return {**_own_fields(ApprovalPolicy()), **_NOTHING_BESIDE, **said} if said else {}


# --- put back ----------------------------------------------------------------------------------------------


def restore(wanted: Mapping[str, Any]) -> ApprovalPolicy:
    """Make the policy of this slug say what a snapshot says, and nothing else; return it, saved.

    To be called in a transaction: what is wrong is found before anything but the policy itself is written.

    Raises:
        ValidationError: a value no policy may have, or a user, group or permission that does not exist.
    """
    wanted = _complete(wanted)  # older than a field, it means the field's default
    alias = database()
    # Of fields it is older than, a snapshot says nothing.
    wanted = {**_own_fields(ApprovalPolicy()), **wanted}
    policy = ApprovalPolicy.objects.using(alias).filter(slug=wanted["slug"]).first()
    policy = policy or ApprovalPolicy(slug=wanted["slug"])
    for name in _PLAIN:
        setattr(policy, name, wanted[name])
    for name in _LINES:
        setattr(policy, name, "\n".join(wanted[name]))
    try:
        for name in _DURATIONS:
            setattr(policy, name, durations.parse(wanted[name]))
    except ValueError as error:
        raise ValidationError({name: str(error)}) from None
    required = _groups(wanted["group_requirements"])
    users, groups = _users(_names(wanted["users"])), _groups(_names(wanted["groups"]))
    channels = _channels(wanted["channels"])
    steps = wanted["steps"]
    known = (
        _users(name for each in steps for name in each["users"]),
        _groups(name for each in steps for name in each["groups"]),
        {each.slug: each for each in _channels(n for step in steps for n in step["channels"])},
    )
    policy.full_clean()
    with transaction.atomic(using=alias):
        policy.save(using=alias)
        policy.channels.set(channels)
        rungs.put(policy, steps, *known)
        _put_requirements(
            policy, {required[name]: n for name, n in wanted["group_requirements"].items()}
        )
        _put_holders(PolicyUserPermission, "user", policy, wanted["users"], users)
        _put_holders(PolicyGroupPermission, "group", policy, wanted["groups"], groups)
    return policy


def _names(by_permission: Mapping[str, Iterable[str]]) -> list[str]:
    return [name for names in by_permission.values() for name in names]


def _users(names: Iterable[str]) -> dict[str, Any]:
    model, names = get_user_model(), list(names)
    if erased.GONE in names:
        # Whatever account there is of that name.
        raise ValidationError({"users": "It names somebody who was erased."})
    found = model._base_manager.using(database()).filter(**{f"{model.USERNAME_FIELD}__in": names})
    return _all_of("users", names, {str(user.get_username()): user for user in found})


def _groups(names: Iterable[str]) -> dict[str, Group]:
    names = list(names)
    found = Group.objects.using(database()).filter(name__in=names)
    return _all_of("groups", names, {group.name: group for group in found})


def _channels(slugs: Iterable[str]) -> list[Channel]:
    slugs = list(slugs)
    found = Channel.objects.using(database()).filter(slug__in=slugs)
    return list(_all_of("channels", slugs, {channel.slug: channel for channel in found}).values())


def _all_of(kind: str, names: Iterable[str], found: dict[str, Any]) -> dict[str, Any]:
    missing = sorted(set(names) - set(found))
    if missing:
        raise ValidationError({kind: f"There are no such {kind}: {', '.join(missing)}."})
    return found


def _put_requirements(policy: ApprovalPolicy, wanted: Mapping[Group, int]) -> None:
    rows = PolicyGroupRequirement.objects.using(database())
    for row in rows.filter(policy=policy).exclude(group__in=list(wanted)):
        row.delete()
    for group, count in wanted.items():
        found = rows.filter(policy=policy, group=group).first()
        row = found or PolicyGroupRequirement(policy=policy, group=group)
        row.count = count
        row.full_clean(exclude=("policy", "group"))
        row.save(using=database())


def _put_holders(
    model: Any,
    kind: str,
    policy: ApprovalPolicy,
    wanted: Mapping[str, Iterable[str]],
    found: Mapping[str, Any],
) -> None:
    rows = model.objects.using(database()).filter(content_object=policy)
    keep = {(codename, found[name].pk) for codename, names in wanted.items() for name in names}
    have = set()
    for row in rows.select_related("permission"):
        key = (row.permission.codename, getattr(row, f"{kind}_id"))
        if key in keep:
            have.add(key)
        else:
            row.delete()
    permissions = _permissions(wanted)
    for codename, holder in sorted(keep - have):
        made = model(permission=permissions[codename], content_object=policy)
        setattr(made, f"{kind}_id", holder)
        made.save(using=database())


def _permissions(codenames: Iterable[str]) -> dict[str, Permission]:
    rows = Permission.objects.using(database()).filter(
        content_type__app_label="jit_approval",
        content_type__model="approvalpolicy",
        codename__in=list(codenames),
    )
    return _all_of("permissions", codenames, {row.codename: row for row in rows})


# --- history -----------------------------------------------------------------------------------------------


@dataclass
class _Author:
    """Who changes policies in the block, why, and which they touched."""

    by: Any
    reason: str
    label: str = ""
    origin: Origin | None = None
    touched: set[Any] = field(default_factory=set)


_author: ContextVar[_Author | None] = ContextVar("jit_approval_policy_author", default=None)


@contextmanager
def authored(
    by: Any, reason: str = "", *, label: str = "", origin: Origin | None = None
) -> Iterator[None]:
    """Record what the block does to policies as one version each, with who and why.

    `label`: where the change came from, if nobody is said to have made it. The block and its versions are one
    transaction.
    """
    with transaction.atomic(using=database()):
        author = _Author(by, reason, label, origin)
        token = _author.set(author)
        try:
            yield
        finally:
            _author.reset(token)
        for key in sorted(author.touched):
            _record(key, author)


_going: ContextVar[frozenset[Any]] = ContextVar("jit_approval_policies_going", default=frozenset())


def touched(policy_id: Any) -> None:
    """Note that a policy, or who may decide under it, was changed; past the admin and the command too."""
    author = _author.get()
    if policy_id in _going.get():
        return  # its permissions go with it
    if author is not None:
        author.touched.add(policy_id)
    else:
        _record(policy_id, _Author(None, ""))


def _record(policy_id: Any, author: _Author) -> None:
    """Write the next version, if the policy does not say what it said."""
    alias = database()
    with transaction.atomic(using=alias):
        rows = ApprovalPolicy.objects.using(alias).select_for_update()
        policy = rows.filter(pk=policy_id).first()
        if policy is None:
            return
        now, newest = snapshot(policy), _newest(policy)
        if newest is not None and not differences(newest.data, now):
            return
        number = (newest.number if newest else policy.version) + 1
        at = clock.now(alias)
        PolicyVersion.objects.using(alias).create(
            policy=policy,
            slug=policy.slug,
            number=number,
            at=at,
            author=author.by,
            author_label=str(author.by.get_username()) if author.by is not None else author.label,
            reason=author.reason,
            data=now,
        )
        ApprovalPolicy.objects.using(alias).filter(pk=policy.pk).update(version=number)
        _write("policy_changed", newest.data if newest else None, now, number, author, at)


def _newest(policy: ApprovalPolicy) -> PolicyVersion | None:
    return PolicyVersion.objects.using(database()).filter(policy=policy).order_by("-number").first()


def changed_past(policies: Iterable[ApprovalPolicy]) -> set[Any]:
    """Return the keys of policies that do not say what their newest version says. A few queries.

    Changed by `update()`, a fixture or SQL; or a user or group named in them was renamed.
    """
    rows = list(policies)
    newest = PolicyVersion.objects.using(database()).filter(
        policy__in=[row.pk for row in rows], number=F("policy__version")
    )
    recorded = dict(newest.values_list("policy_id", "data"))
    now = _snapshots(rows)
    return {row.pk for row in rows if differences(recorded.get(row.pk), now[row.slug])}


def deleted(policy: ApprovalPolicy) -> None:
    """Write that a policy is about to be deleted: its last words."""
    _going.set(_going.get() | {policy.pk})
    author = _author.get() or _Author(None, "")
    at = clock.now(database())
    _write("policy_deleted", snapshot(policy), None, policy.version, author, at)


def gone(policy_id: Any) -> None:
    """Forget about a policy whose deletion has ended."""
    _going.set(_going.get() - {policy_id})


def _write(
    kind: str,
    before: Snapshot | None,
    after: Snapshot | None,
    number: int,
    author: _Author,
    at: Any,
) -> None:
    said = after or before or {}
    data = {
        "policy": said.get("slug", ""),
        "version": number,
        "reason": author.reason,
        "changes": [
            {"field": each.field, "before": each.before, "after": each.after}
            for each in differences(before, after)
        ],
    }
    label = "" if author.by is not None else author.label or "past the admin and the command"
    origin = author.origin
    if author.by is not None:
        origin = (origin or Origin()).of(person_of(author.by))
    event = chain.single_event(kind, at=at, by=author.by, label=label, data=data, origin=origin)
    prepared.insert(event, using=database())

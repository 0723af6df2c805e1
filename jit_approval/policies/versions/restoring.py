"""A policy made to say what a snapshot says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import ValidationError
from django.db import transaction

from jit_approval.models import (
    ApprovalPolicy,
    Channel,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.policies import durations, erased, rungs
from jit_approval.policies.persons import database
from jit_approval.policies.versions.snapshots import DURATIONS, LINES, PLAIN, complete


def restore(wanted: Mapping[str, Any]) -> ApprovalPolicy:
    """Make the policy of this slug say what a snapshot says, and nothing else; return it, saved.

    To be called in a transaction: what is wrong is found before anything but the policy itself is written.

    Raises:
        ValidationError: a value no policy may have, or a user, group or permission that does not exist.
    """
    wanted = complete(wanted)  # older than a field, it means the field's default
    alias = database()
    policy = _policy(wanted, alias)
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


def _policy(wanted: Mapping[str, Any], alias: str) -> ApprovalPolicy:
    """Return the policy of this slug, perhaps a new one, with its own fields as wanted; unsaved."""
    policy = ApprovalPolicy.objects.using(alias).filter(slug=wanted["slug"]).first()
    policy = policy or ApprovalPolicy(slug=wanted["slug"])
    for name in PLAIN:
        setattr(policy, name, wanted[name])
    for name in LINES:
        setattr(policy, name, "\n".join(wanted[name]))
    try:
        for name in DURATIONS:
            setattr(policy, name, durations.parse(wanted[name]))
    except ValueError as error:
        raise ValidationError({name: str(error)}) from None
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

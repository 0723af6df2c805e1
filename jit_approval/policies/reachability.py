"""Which policies could never be satisfied: of many at once, in a fixed number of queries.

For lists and checks. The gate asks `quorum_is_reachable` about one policy, object and requester.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from jit_approval import conf, quorum
from jit_approval.models import (
    ApprovalPolicy,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.policies import delegations
from jit_approval.policies.persons import database, person_of
from jit_approval.states import Effect


@dataclass
class _People:
    """Who may decide what, by user's key; persons beside them."""

    persons: dict[Any, str] = field(default_factory=dict)
    everywhere: set[Any] = field(default_factory=set)
    by_policy: dict[Any, set[Any]] = field(default_factory=lambda: defaultdict(set))
    members: dict[Any, set[Any]] = field(default_factory=lambda: defaultdict(set))
    groups_of: dict[Any, set[Any]] = field(default_factory=lambda: defaultdict(set))
    required: dict[Any, dict[Any, int]] = field(default_factory=lambda: defaultdict(dict))
    # Of one policy, or of all (None): user's key → persons they stand in for.
    lends: dict[Any, dict[Any, set[str]]] = field(default_factory=lambda: defaultdict(dict))


def out_of_reach(policies: Iterable[ApprovalPolicy]) -> set[Any]:
    """Return the keys of the policies that hold calls and whose deciders, all together, could not approve one.

    Superusers count. Holders of a permission on the object do not: who they are depends on the call. Six
    queries, however many policies.
    """
    held = [policy for policy in policies if policy.effect == Effect.REQUIRE]
    if not held:
        return set()
    found = people([policy.pk for policy in held])
    return {policy.pk for policy in held if not _could_meet(policy, found)}


def _could_meet(policy: ApprovalPolicy, people: _People) -> bool:
    able = people.everywhere | people.by_policy[policy.pk]
    links: dict[Any, set[str]] = defaultdict(set)
    for key in (None, policy.pk):
        for stand_in, persons in people.lends[key].items():
            links[stand_in] |= persons
    groups = people.required[policy.pk]
    if not groups and not links.keys() & able:
        persons = {people.persons[key] for key in able}
        return len(persons) >= max(1, policy.required_approvals)
    votes = (
        quorum.Vote(
            people.persons[key],
            frozenset(people.groups_of[key] & groups.keys()),
            linked=frozenset(links[key]),
        )
        for key in able
    )
    return quorum.is_met(votes, policy.required_approvals, groups)


def people(keys: list[Any]) -> _People:
    """Return who may decide under these policies. Six queries."""
    alias, found = database(), _People()
    for policy, group, count in _rows(
        PolicyGroupRequirement, "policy", keys, "policy_id", "group_id", "count"
    ):
        found.required[policy][group] = count
    by_group = _rows(PolicyGroupPermission, "content_object", keys, "content_object_id", "group_id")
    _read_members(
        found, [*by_group, *((0, key) for each in found.required.values() for key in each)]
    )
    for policy, group in by_group:
        found.by_policy[policy] |= found.members[group]
    for policy, user, person in _rows(
        PolicyUserPermission,
        "content_object",
        keys,
        "content_object_id",
        "user_id",
        _person_at("user__"),
    ):
        found.by_policy[policy].add(user)
        found.persons[user] = _person(user, person)
    decide = {"content_type__app_label": "jit_approval", "codename": "decide"}
    users = get_user_model()._base_manager.using(alias).filter(is_active=True)
    able = (
        Q(is_superuser=True)
        | Q(**{f"user_permissions__{name}": value for name, value in decide.items()})
        | Q(**{f"groups__permissions__{name}": value for name, value in decide.items()})
    )
    for user, person in users.filter(able).order_by().values_list("pk", _person_at("")).distinct():
        found.everywhere.add(user)
        found.persons[user] = _person(user, person)
    for each in delegations.in_force():
        found.lends[each.policy_id].setdefault(each.stand_in_id, set()).add(
            person_of(each.delegator)
        )
    return found


def _rows(model: Any, policy: str, keys: list[Any], *columns: str) -> list[tuple[Any, ...]]:
    rows = model.objects.using(database()).filter(**{f"{policy}__in": keys})
    if hasattr(model, "permission"):
        rows = rows.filter(permission__codename="decide")
    if hasattr(model, "user"):
        rows = rows.filter(user__is_active=True)
    return list(rows.order_by().values_list(*columns))


def _read_members(found: _People, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Read who belongs to the groups, inactive accounts left out."""
    through: Any = get_user_model().groups.through
    user = get_user_model().groups.field.m2m_field_name()
    rows = through._base_manager.using(database()).filter(
        group__in={group for _policy, group in pairs}, **{f"{user}__is_active": True}
    )
    for group, key, person in rows.values_list("group_id", f"{user}_id", _person_at(f"{user}__")):
        found.members[group].add(key)
        found.groups_of[key].add(group)
        found.persons[key] = _person(key, person)


def _person_at(prefix: str) -> str:
    return f"{prefix}{conf.get().PERSON_KEY}"


def _person(user: Any, value: Any) -> str:
    """Return what `person_of` says, of a value that was read along."""
    return str(value) if value not in (None, "") else f"account {user}"

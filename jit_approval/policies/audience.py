"""How many people a policy tells at once: attention is a resource, and a page for everybody is read by nobody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from jit_approval import conf
from jit_approval.models import ApprovalPolicy, EscalationStep
from jit_approval.policies import ladder, reachability
from jit_approval.policies.persons import database
from jit_approval.states import Effect


def too_many(policies: Iterable[ApprovalPolicy]) -> dict[Any, list[str]]:
    """Return, by policy's key, what is to be said of those that tell more than `MANY_TOLD` people at once.

    Holders of a permission on the object are not counted: who they are depends on the call. A fixed number of
    queries, however many policies.
    """
    held = [policy.pk for policy in policies if policy.effect == Effect.REQUIRE]
    if not held:
        return {}
    most = conf.get().MANY_TOLD
    found: dict[Any, list[str]] = {}
    for key, what, count in _told(held):
        if count > most:
            text = _(
                "%(what)s tells %(count)d people at once. More than %(most)d are rarely needed."
            )
            said = text % {"what": what, "count": count, "most": most}
            found.setdefault(key, []).append(said)
    return found


def _told(keys: list[Any]) -> Iterator[tuple[Any, str, int]]:
    """Yield policy, what it does, and how many people are told by that."""
    people, shared = reachability.people(keys), _told_on_channels(keys)
    able = {
        key: set() if key in shared else people.everywhere | people.by_policy[key] for key in keys
    }
    for key in keys:
        yield key, _("A held call"), len(able[key])
    steps = list(EscalationStep.objects.using(database()).filter(policy__in=keys).order_by("id"))
    named = _people_of([step.pk for step in steps])
    numbers: dict[Any, int] = defaultdict(int)
    for step in steps:
        numbers[step.policy_id] += 1
        told = named[step.pk] | (able[step.policy_id] if step.deciders else set())
        what = _("Step %(number)d") % {"number": numbers[step.policy_id]}
        yield step.policy_id, what, len(told) + len(step.addresses.split())


def _told_on_channels(keys: list[Any]) -> set[Any]:
    """Return the policies whose deciders are told on shared channels, and nobody in person."""
    links = ApprovalPolicy.channels.through._default_manager.using(database())
    rows = links.filter(approvalpolicy__in=keys, channel__enabled=True)
    kinds: dict[Any, set[str]] = defaultdict(set)
    for key, kind in rows.values_list("approvalpolicy", "channel__kind"):
        kinds[key].add(kind)
    return {key for key, found in kinds.items() if "email" not in found}


def _people_of(steps: list[Any]) -> dict[Any, set[Any]]:
    """Return the keys of the active users that each step names, by itself or by a group."""
    found: dict[Any, set[Any]] = defaultdict(set)
    if not steps:
        return found
    alias, model = database(), get_user_model()
    field = model.groups.field.m2m_field_name()
    of = ladder.named(steps)
    groups = {key for rows in of["groups"].values() for key, _name in rows}
    through: Any = model.groups.through._default_manager.using(alias)
    members = defaultdict(set)
    active = {f"{field}__is_active": True}
    for group, user in through.filter(group__in=groups, **active).values_list(
        "group_id", f"{field}_id"
    ):
        members[group].add(user)
    for step in steps:
        found[step] |= {key for key, _name in of["users"].get(step, ())}
        for group, _name in of["groups"].get(step, ()):
            found[step] |= members[group]
    return found

"""A large organisation: 1,000 policies, 1,000 users in 50 groups; who matches, and who may decide."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection

from jit_approval import policies, services
from jit_approval.models import ApprovalPolicy, PolicyGroupPermission, PolicyUserPermission
from tests import factories
from tests.benchmarks import scenes, shapes
from tests.benchmarks.models import Pair
from tests.benchmarks.rows import Measured
from tests.benchmarks.timing import interleaved

POLICIES, USERS, GROUPS = 1000, 1000, 50
# Of each policy, and of each user.
_GROUPS_OF_POLICY, _USERS_OF_POLICY, _GROUPS_OF_USER = 3, 5, 5
_BATCH = 400

LIMIT = 10_000.0
"""Microseconds that asking who may decide may take on PostgreSQL."""


def all_rows(*, runs: int, rounds: int, limit: float | None) -> list[Measured]:
    """Measure in a world of that size. `limit`: of the answers to "who may decide", in microseconds."""
    scenes.forget()
    policy, decider, outsider = _make()
    row = services.open_request(
        factories.call(outsider), policies.terms(policies.match(_action(policy)).policy)
    )
    asked: list[tuple[str, Callable[[], object], float | None]] = [
        ("match: no policy names it", lambda: policies.match("customers.destroy"), None),
        ("match: the last of 1,000", lambda: policies.match(_action(policy)), None),
        ("match: with a condition", lambda: policies.match("billing.pay", _facts), None),
        ("may_decide", lambda: policies.may_decide(decider, row), limit),
        ("deciders", lambda: list(policies.deciders(policy.pk)), limit),
        ("deciders of a request", lambda: policies.deciders_of(row), limit),
        ("decidable_by", lambda: list(policies.decidable_by(decider)), limit),
    ]
    return [_measure(*each, runs=runs, rounds=rounds) for each in asked]


def _facts() -> dict[str, object]:
    return {"request": {"data": {"amount": 50_000}}, "user": {"groups": ["sales", "treasury"]}}


def _action(policy: ApprovalPolicy) -> str:
    return policy.globs[0].replace("*", "destroy")


def _make() -> tuple[ApprovalPolicy, object, object]:
    """Return the last policy, one who may decide under it and one who may not."""
    chance = random.Random(0)
    users, groups = get_user_model(), _groups()
    users.objects.filter(username__startswith="decider").delete()  # of the rows before
    users.objects.bulk_create([users(username=f"person{n}") for n in range(USERS)])
    people = list(users.objects.filter(username__startswith="person").order_by("pk"))
    through = users.groups.through
    through.objects.bulk_create(
        [
            through(user=person, group=group)
            for person in people
            for group in chance.sample(groups, _GROUPS_OF_USER)
        ],
        batch_size=_BATCH,
    )
    ApprovalPolicy.objects.bulk_create(
        [
            ApprovalPolicy(
                name=f"P{n}", slug=f"p{n}", actions=f"service{n}.*\njobs{n}.*", priority=n
            )
            for n in range(POLICIES)
        ],
        batch_size=20,
    )
    ApprovalPolicy.objects.filter(slug="p500").update(
        actions="billing.*",
        condition='request.data.amount > 10000 && "treasury" in user.groups',
    )
    rules = list(ApprovalPolicy.objects.order_by("priority"))
    decide = {"permission": factories.decide_permission()}
    PolicyGroupPermission.objects.bulk_create(
        [
            PolicyGroupPermission(group=group, content_object=rule, **decide)
            for rule in rules
            for group in chance.sample(groups, _GROUPS_OF_POLICY)
        ],
        batch_size=_BATCH,
    )
    PolicyUserPermission.objects.bulk_create(
        [
            PolicyUserPermission(user=person, content_object=rule, **decide)
            for rule in rules
            for person in chance.sample(people, _USERS_OF_POLICY)
        ],
        batch_size=_BATCH,
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as an organisation of that size has long done
    able = list(policies.deciders(rules[-1].pk))
    outsider = next(person for person in people if person not in able)
    return rules[-1], able[0], outsider


def _groups() -> list[Group]:
    Group.objects.bulk_create([Group(name=f"group{n}") for n in range(GROUPS)])
    return list(Group.objects.filter(name__startswith="group").order_by("pk"))


def _measure(
    name: str, thing: Callable[[], object], limit: float | None, *, runs: int, rounds: int
) -> Measured:
    thing()
    shape = shapes.of(thing)
    floor = shapes.replay("R", Pair.objects.create(value=0).pk)
    together = {"thing": lambda: thing, "floor": lambda: floor}
    found = [interleaved(together, rounds) for _ in range(runs)]
    ratios = [one["thing"] / one["floor"] for one in found]
    return Measured(
        name=name,
        shape=shape,
        statements=shapes.statements(shape),
        p50=median(one["thing"] for one in found),
        added=median(one["thing"] for one in found),
        floor_name="one SELECT",
        floor=median(one["floor"] for one in found),
        to_floor=median(ratios),
        to_shape=None,
        lowest=min(ratios),
        highest=max(ratios),
        target=None,
        limit=limit,
    )

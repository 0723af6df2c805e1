"""Who may decide: in random worlds, the SQL says what Django's and guardian's own answers make of the docs.

`JIT_TEST_ROUNDS` sets how many worlds: a tenth of it, and 6 at least. `JIT_TEST_SEED` makes them others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from os import environ
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils import timezone
from guardian.shortcuts import assign_perm

from jit_approval import exceptions, policies, services
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    Decision,
    Delegation,
    EscalatedDecider,
    PolicyUserPermission,
)
from jit_approval.policies import authority, holders
from jit_approval.states import Status, Verdict
from tests import factories
from tests.live_histories import Undone
from tests.testapp.models import Account, Customer

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
SEED = environ.get("JIT_TEST_SEED", "1")
ROUNDS = max(int(environ.get("JIT_TEST_ROUNDS", "0")) // 10, 6)

DECIDE = policies.DECIDE
CHANGE = {
    "testapp.customer": "testapp.change_customer",
    "testapp.account": "testapp.change_account",
}
OUTCOMES = ("may", "may not", "voted", "consumed", "not consumed")
ALL_WAYS = [policies.Ways(*each) for each in product((True, False), repeat=2)]


# --- what the docs say, in plain Python --------------------------------------------------------------------


class Said:
    """Docs and docstrings, asked of Django and guardian about the world as it is at this moment."""

    def __init__(self) -> None:
        # Anew, for each remembers its permissions.
        self.users = {user.pk: user for user in get_user_model().objects.order_by("pk")}
        now = timezone.now()
        self.lent = [
            each
            for each in Delegation.objects.all()
            if each.revoked_at is None and each.starts_at <= now < each.ends_at
        ]
        self._own: dict[tuple[Any, Any], bool] = {}

    def holds(self, user: Any, policy: ApprovalPolicy | None) -> bool:
        """Model-wide, or on the policy; an active superuser holds everything."""
        return bool(user.has_perm(DECIDE) or (policy is not None and user.has_perm(DECIDE, policy)))

    def is_escalated(self, user: Any, row: ApprovalRequest) -> bool:
        teams = set(user.groups.values_list("pk", flat=True))
        return user.is_active and any(
            each.user_id == user.pk or each.group_id in teams
            for each in row.escalated_deciders.all()
        )

    def on_object(self, user: Any, row: ApprovalRequest) -> bool:
        """By the permission that the policy names, on this object or on all of its kind."""
        if row.object_permission is None or row.object_permission < 0:
            return False
        obj = {"testapp.customer": Customer, "testapp.account": Account}[row.object_model]
        name = CHANGE[row.object_model]
        found = obj._base_manager.get(pk=row.object_pk)
        return bool(user.has_perm(name) or user.has_perm(name, found))

    def basic(self, user: Any, row: ApprovalRequest, ways: policies.Ways) -> bool:
        return self.holds(user, row.policy if ways.policy else None) or (
            ways.ladder and self.is_escalated(user, row)
        )

    def own(self, user: Any, row: ApprovalRequest) -> bool:
        key = (user.pk, row.pk)
        if key not in self._own:
            self._own[key] = self.basic(user, row, policies.Ways()) or self.on_object(user, row)
        return self._own[key]

    def any(self, user: Any, row: ApprovalRequest) -> bool:
        """Of their own, or lent by one who has it and is active."""
        return user.is_active and (
            self.own(user, row)
            or any(
                self.own(self.users[each.delegator_id], row)
                for each in self.lent
                if each.stand_in_id == user.pk and each.policy_id in (None, row.policy_id)
            )
        )

    def is_barred(self, user: Any, requesters: Iterable[Any]) -> bool:
        """A stand-in of who asks, for whatever policy, and whoever of the two is active."""
        behind = set(requesters)
        return any(
            each.stand_in_id == user.pk and each.delegator_id in behind for each in self.lent
        )

    def may_decide(self, user: Any, row: ApprovalRequest) -> bool:
        behind = {key for key in self.users if f"{key}" in row.persons} | {row.requester_id}
        return user.pk not in behind and not self.is_barred(user, behind) and self.any(user, row)

    def votes(self, row: ApprovalRequest, ways: policies.Ways) -> int:
        approvals = row.decisions.filter(verdict=Verdict.APPROVE).exclude(decider=None)
        return sum(self.basic(self.users[vote.decider_id], row, ways) for vote in approvals)

    def holders(self, policy: ApprovalPolicy | None) -> set[Any]:
        """Who was given the permission: as if all were active, and nobody a superuser."""
        found = set()
        for user in get_user_model().objects.all():
            user.is_active, user.is_superuser = True, False
            if self.holds(user, policy):
                found.add(user.pk)
        return found


# --- a random world ----------------------------------------------------------------------------------------


@dataclass
class World:
    """Some users, groups, policies and requests, and who may do what there."""

    random: random.Random
    users: list[Any]
    groups: list[Group]
    policies: list[ApprovalPolicy]
    requests: list[ApprovalRequest]

    def some(self, chance: float) -> bool:
        return self.random.random() < chance

    def whoever(self) -> Any:
        return self.random.choice([*self.users, *self.groups])


def make(random_: random.Random) -> World:
    """Requests are held while two superusers are there, who are nobody in particular afterwards."""
    roots = [factories.user(is_superuser=True) for _ in range(3)]
    customers = [Customer.objects.create(name=name) for name in ("Ada", "Eve")]
    accounts = [Account.objects.create(owner=each) for each in customers]
    users = [*(factories.user() for _ in range(6)), *roots]
    groups = [Group.objects.create(name=f"team {number}") for number in range(3)]
    policies_ = [
        factories.policy(required_approvals=random_.randint(1, 2)),
        factories.policy(object_permission=random_.choice(list(CHANGE.values()))),
        factories.policy(),
    ]
    world = World(random_, users, groups, policies_, [])
    for policy in [None, *policies_[:2], random_.choice([None, *policies_])]:
        world.requests.append(_held(world, policy, random_.choice([*customers, *accounts])))
    world.requests.append(_held(world, policies_[1], random_.choice(customers)))
    get_user_model().objects.filter(pk__in=[root.pk for root in roots[1:]]).update(
        is_superuser=False
    )
    _say_who_may(world, [*customers, *accounts])
    _delegate(world)
    for row in world.requests:
        _escalate(world, row)
        _vote(world, row)
    return world


def _held(world: World, policy: ApprovalPolicy | None, obj: Any) -> ApprovalRequest:
    behind = world.random.sample(world.users[:6], world.random.choice([1, 1, 2]))
    call = factories.call(
        behind[0],
        persons=tuple(str(user.pk) for user in behind),
        object_model=obj._meta.label_lower,
        object_pk=str(obj.pk),
    )
    return services.open_request(call, policies.terms(policy))


def _say_who_may(world: World, objects: list[Any]) -> None:
    """Give permissions, some of them of the same name, or on something else."""
    elsewhere = Permission.objects.create(
        codename="decide", content_type=ContentType.objects.get_for_model(Customer), name="x"
    )
    for user in world.users:
        user.groups.set(world.random.sample(world.groups, world.random.choice([0, 1, 1, 2])))
        user.is_active = not world.some(0.15)
        user.is_superuser = world.some(0.05)
        user.save()
    model_wide = [factories.decide_permission(), elsewhere, *_named("change_customer")]
    for held in [*world.users, *world.groups]:
        given = held.permissions if isinstance(held, Group) else held.user_permissions
        given.set([each for each in model_wide if world.some(0.06)])
    for policy in world.policies:
        for name, times in ((DECIDE, 2), ("jit_approval.view_approvalpolicy", 1)):
            for _ in range(times):
                assign_perm(name, world.whoever(), policy)
    for obj in objects:
        for _ in range(2):
            # The accounts of these tests give permissions to users alone.
            is_any = isinstance(obj, Customer)
            who = world.whoever() if is_any else world.random.choice(world.users)
            assign_perm(CHANGE[obj._meta.label_lower], who, obj)
    _elsewhere(world, elsewhere)


def _elsewhere(world: World, elsewhere: Permission) -> None:
    """Another app's permission of that name, on an object whose key a policy has as well."""
    policy = world.random.choice(world.policies)
    twin, _ = Customer.objects.get_or_create(pk=policy.pk, defaults={"name": "twin"})
    assign_perm(elsewhere, world.random.choice(world.users), twin)
    # guardian saves no such row, but would read it.
    who = world.random.choice(world.users)
    row = PolicyUserPermission(user=who, permission=elsewhere, content_object=policy)
    PolicyUserPermission.objects.bulk_create([row])


def _named(codename: str) -> list[Permission]:
    return list(Permission.objects.filter(codename=codename))


def _delegate(world: World) -> None:
    now = timezone.now()
    for _ in range(world.random.choice([3, 5, 7])):
        delegator, stand_in = world.random.sample(world.users, 2)
        policy = world.random.choice([None, None, *world.policies])
        if world.some(0.5):
            assign_perm(DECIDE, delegator, policy or world.random.choice(world.policies))
        begins = world.random.choice([-2, -2, -2, -2, 1])
        Delegation.objects.create(
            delegator=delegator,
            stand_in=stand_in,
            policy=policy,
            starts_at=now + timedelta(days=begins),
            ends_at=now + timedelta(days=begins + world.random.choice([1, 3, 3, 3])),
            revoked_at=world.random.choice([None, None, None, None, now]),
        )


def _escalate(world: World, row: ApprovalRequest) -> None:
    """As `escalating` writes it: with the first step, never before."""
    taken = world.random.choice([0, 1, 2])
    ApprovalRequest.objects.filter(pk=row.pk).update(steps_taken=taken)
    for step in range(1, taken + 1):
        for _ in range(world.random.choice([0, 1, 2])):
            found = world.whoever()
            who = {"group" if isinstance(found, Group) else "user": found}
            EscalatedDecider.objects.create(approval_request=row, step=step, **who)


def _vote(world: World, row: ApprovalRequest) -> None:
    """Votes of whoever it was who could once; some of accounts that are gone."""
    for user in world.random.sample(world.users, world.random.choice([0, 1, 3])):
        Decision.objects.create(
            approval_request=row,
            decider=None if world.some(0.1) else user,
            decider_label=user.username,
            person=str(user.pk),
            verdict=world.random.choice([*Verdict]),
            created_at=row.created_at,
        )


# --- what the SQL says -------------------------------------------------------------------------------------


def _select(expression: str, params: tuple[Any, ...] = ()) -> dict[Any, int]:
    """Return what an expression about the outer request says of each request."""
    field = ApprovalRequest._meta.pk
    table = connection.ops.quote_name(ApprovalRequest._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, {expression} FROM {table}", params)
        return {field.to_python(key): value for key, value in cursor.fetchall()}


def _users(condition: str, params: tuple[Any, ...], name: str = "u") -> set[Any]:
    """Return the keys of the users whom a condition fits."""
    model = get_user_model()
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name}.id FROM {table} {name} WHERE {condition}", params)
        return {key for (key,) in cursor.fetchall()}


def _ensure_ways(world: World, said: Said) -> Counter[str]:
    """Each of the ways says what it is to say, and leaving out what a row does not have changes nothing."""
    seen: Counter[str] = Counter()
    for user in said.users.values():
        key = authority.user_key(user, "default")
        found = {w: _select(authority.authority_of_user_sql(w), (key,)) for w in ALL_WAYS}
        for row, ways in product(world.requests, ALL_WAYS):
            wanted = said.basic(user, row, ways)
            assert found[ways][row.pk] == wanted, (user.pk, row.pk, ways)
        for row in world.requests:
            whole = found[policies.Ways()][row.pk]
            assert found[policies.ways_of(row)][row.pk] == whole, (user.pk, row.pk)
            seen["basic"] += whole
            seen["by policy"] += whole - found[policies.Ways(policy=False)][row.pk]
            seen["by ladder"] += whole - found[policies.Ways(ladder=False)][row.pk]
    votes = {w: _select(authority.valid_votes_sql(w)) for w in ALL_WAYS}
    for row in world.requests:
        for ways in ALL_WAYS:
            assert votes[ways][row.pk] == said.votes(row, ways), (row.pk, ways)
        assert votes[policies.ways_of(row)][row.pk] == votes[policies.Ways()][row.pk]
        seen["votes"] += votes[policies.Ways()][row.pk]
    return seen


def _ensure_holders(world: World, said: Said) -> None:
    model = get_user_model()
    for policy in [None, *world.policies]:
        key = policy.pk if policy else None
        those = said.holders(policy)
        deciders = {user.pk for user in said.users.values() if said.holds(user, policy)}
        ways = {True: (key, key)} | ({False: ()} if policy is None else {})
        for of_policy, params in ways.items():
            sql = holders.holders_sql("default", model, of_policy=of_policy)
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                assert {found for (found,) in cursor.fetchall()} == those, policy
            sql = holders.is_decider_sql("default", model, of_policy=of_policy)
            assert _users(sql, params) == deciders, policy


def _ensure_authority(world: World, said: Said) -> Counter[str]:
    """What of objects and delegations counts as well."""
    seen: Counter[str] = Counter()
    able = authority.able_sql("default", get_user_model())
    everybody = said.users.values()
    lent = {
        user.pk: _select(
            authority.authority_of_any_sql("default", get_user_model()),
            (authority.user_key(user, "default"),) * 3,
        )
        for user in everybody
    }
    for row in world.requests:
        own = {user.pk for user in everybody if said.own(user, row)}
        assert _users(able, authority.able_params("default", row)) == own, row.pk
        may = {user.pk for user in everybody if said.may_decide(user, row)}
        assert {user.pk for user in everybody if policies.may_decide(user, row)} == may, row.pk
        assert {user.pk for user in policies.deciders_of(row)} == may, row.pk
        for user in everybody:
            if not user.is_active:
                continue  # of whom nobody asks
            wanted = said.any(user, row) and not said.is_barred(user, [row.requester_id])
            assert lent[user.pk][row.pk] == wanted, (user.pk, row.pk)
        basic = (user for user in everybody if said.basic(user, row, policies.Ways()))
        seen["by object"] += len(own) - len(list(basic))
        seen["lent"] += len(may - own)
    for user in everybody:
        listed = set(policies.decidable_by(user).values_list("pk", flat=True))
        assert listed == {
            row.pk
            for row in world.requests
            if said.any(user, row)
            and user.pk != row.requester_id
            and not said.is_barred(user, [row.requester_id])
        }, user.pk
    return seen


# --- and what is done about it -----------------------------------------------------------------------------


def _as_a_caller_has_it(world: World, row: ApprovalRequest) -> ApprovalRequest:
    """Return the request as read, long ago, or made up: of all of it the key alone is believed."""
    made_up = ApprovalRequest(
        pk=row.pk,
        policy_id=world.random.choice([None, *(policy.pk for policy in world.policies)]),
        steps_taken=world.random.choice([0, 1, 7]),
    )
    bare = ApprovalRequest.objects.only("pk").get(pk=row.pk)
    return world.random.choice([row, made_up, ApprovalRequest(pk=row.pk), bare])


def _ensure_approved_by_those(world: World, said: Said) -> Counter[str]:
    seen: Counter[str] = Counter()
    for row, user in product(world.requests, said.users.values()):
        decide = world.random.choice([services.approve, services.approve, services.reject])
        with Undone():
            try:
                decide(_as_a_caller_has_it(world, row), by=user)
            except exceptions.MayNotDecide:
                outcome = "may not"
            except exceptions.AlreadyDecided:
                outcome = "voted"
            else:
                outcome = "may"
                seen += _ensure_counted(world, row, decide)
        wanted = "may not" if not said.may_decide(user, row) else "may"
        if wanted == "may" and row.decisions.filter(person=str(user.pk)).exists():
            wanted = "voted"
        assert outcome == wanted, (decide, user.pk, row.pk)
        seen[outcome] += 1
    return seen


def _ensure_counted(world: World, row: ApprovalRequest, decide: Any) -> Counter[str]:
    now = factories.fresh(row)
    if decide is services.reject:
        assert now.status == Status.REJECTED
        return Counter()
    if now.weighed:
        return Counter()  # who counts beside whom: tests/test_deciders.py
    enough = row.required_approvals <= max(1, Said().votes(row, policies.Ways()))
    assert now.status == (Status.APPROVED if enough else Status.PENDING), row.pk
    seen: Counter[str] = Counter()
    for lose in _losses(world) if enough else ():
        with Undone():
            lose()
            seen[_ensure_consumed_by_valid_votes(now)] += 1
    return seen


def _ensure_consumed_by_valid_votes(row: ApprovalRequest) -> str:
    row = factories.fresh(row)
    enough = row.required_approvals <= Said().votes(row, policies.Ways())
    try:
        services.consume(row, state_digest=factories.STATE)
    except exceptions.IllegalTransition:
        assert not enough, row.pk
        return "not consumed"
    assert enough, row.pk
    return "consumed"


def _losses(world: World) -> list[Callable[[], Any]]:
    """Return what may happen between the approval and the call: somebody is gone, or no decider any more."""
    some = [user.pk for user in world.random.sample(world.users, 4)]
    users = get_user_model().objects.filter(pk__in=some)
    losses: list[Callable[[], Any]] = [
        lambda: users.update(is_active=False),
        lambda: users.update(is_superuser=False),
        PolicyUserPermission.objects.filter(user__in=some).delete,
        EscalatedDecider.objects.filter(user__in=some).delete,
        world.random.choice(world.groups).user_set.clear,
    ]
    return [lambda: None, *world.random.sample(losses, 2)]


def test_the_sql_says_what_the_docs_say_in_random_worlds() -> None:
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        where = f"world {number} of seed {SEED}"
        with Undone():
            world = make(random.Random(where))
            keys = [row.pk for row in world.requests]
            world.requests = [factories.fresh(ApprovalRequest(pk=key)) for key in keys]
            said = Said()
            try:
                seen += _ensure_ways(world, said)
                _ensure_holders(world, said)
                seen += _ensure_authority(world, said)
                seen += _ensure_approved_by_those(world, said)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
    for name in (*("by policy", "by ladder", "by object", "lent", "votes"), *OUTCOMES):
        assert seen[name], f"none {name}: {seen}"

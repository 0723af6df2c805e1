"""Who may decide, by every road to the permission, and that all who are asked give the same answer."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.utils import timezone
from guardian.shortcuts import assign_perm, remove_perm

from jit_approval import exceptions, policies, quorum, services
from jit_approval.models import ApprovalRequest, Delegation, PolicyGroupRequirement
from jit_approval.states import Status
from tests import factories
from tests.test_quorum import by_brute_force
from tests.testapp.models import Account, Customer, Vault

pytestmark = pytest.mark.django_db

DECIDE = "jit_approval.decide"
APPROVE = "testapp.change_customer"


def permission(name: str) -> Permission:
    app_label, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app_label, codename=codename)


def team(*users, name: str = "team") -> Group:
    group = Group.objects.get_or_create(name=name)[0]
    group.user_set.add(*users)
    return group


@pytest.fixture
def policy():
    return factories.policy(object_permission=APPROVE)


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ada")


@pytest.fixture
def bob():
    return factories.user("bob")


@pytest.fixture
def admin():
    """Somebody who can always decide, so that requests open; named apart from whoever is tested."""
    return factories.user("admin", is_superuser=True)


def held(policy, obj=None, **kwargs) -> ApprovalRequest:
    """A pending request under the policy, about the object."""
    about = {"object_model": obj._meta.label_lower, "object_pk": str(obj.pk)} if obj else {}
    call = factories.call(factories.user(), **about, **kwargs)
    return services.open_request(call, policies.terms(policy))


def decides(user, row: ApprovalRequest) -> bool:
    """Whether the user may decide: what every function says of it."""
    said = {
        policies.may_decide(user, row),
        user in policies.deciders_of(row),
        policies.decidable_by(user).filter(pk=row.pk).exists(),
        bool(policies.with_authority(user).get(pk=row.pk)._authority),
        user
        in policies.deciders(
            row.policy_id, permission=row.object_permission, object_pk=row.object_pk
        ),
    }
    assert len(said) == 1, "they disagree"
    return said.pop()


# --- every road to the permission ---------------------------------------------------------------------------


def on_the_policy(user, policy, customer):
    assign_perm("decide", user, policy)


def on_the_policy_by_group(user, policy, customer):
    assign_perm("decide", team(user), policy)


def model_wide(user, policy, customer):
    user.user_permissions.add(permission(DECIDE))


def model_wide_by_group(user, policy, customer):
    team(user).permissions.add(permission(DECIDE))


def superuser(user, policy, customer):
    user.is_superuser = True
    user.save()


def on_the_object(user, policy, customer):
    assign_perm(APPROVE, user, customer)


def on_the_object_by_group(user, policy, customer):
    assign_perm(APPROVE, team(user), customer)


def on_all_objects(user, policy, customer):
    user.user_permissions.add(permission(APPROVE))


def on_all_objects_by_group(user, policy, customer):
    team(user).permissions.add(permission(APPROVE))


ROADS = [
    on_the_policy,
    on_the_policy_by_group,
    model_wide,
    model_wide_by_group,
    superuser,
    on_the_object,
    on_the_object_by_group,
    on_all_objects,
    on_all_objects_by_group,
]


@pytest.mark.parametrize("road", ROADS)
def test_a_decider_by(road, bob, policy, customer, admin):
    row = held(policy, customer)
    assert not decides(bob, row)
    road(bob, policy, customer)
    assert decides(get_user_model().objects.get(pk=bob.pk), row)
    services.approve(row, by=bob)
    services.consume(factories.fresh(row), state_digest=factories.STATE)


@pytest.mark.parametrize("road", ROADS)
def test_an_inactive_account_decides_nothing_by(road, bob, policy, customer, admin):
    row = held(policy, customer)
    road(bob, policy, customer)
    stale = get_user_model().objects.get(pk=bob.pk)
    get_user_model().objects.filter(pk=bob.pk).update(is_active=False)
    assert not decides(get_user_model().objects.get(pk=bob.pk), row)
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=stale)  # logged in since before


def lose_permission(user, policy, customer):
    user.user_permissions.clear()
    Group.objects.all().delete()
    for name, obj in ((APPROVE, customer), ("decide", policy)):
        remove_perm(name, user, obj)
    get_user_model().objects.filter(pk=user.pk).update(is_superuser=False)


def lose_account(user, policy, customer):
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)


def be_deleted(user, policy, customer):
    user.delete()


def leave_groups(user, policy, customer):
    user.groups.clear()


@pytest.mark.parametrize("loss", [lose_permission, lose_account, be_deleted])
@pytest.mark.parametrize("road", ROADS)
def test_a_vote_is_worth_nothing_once_its_giver_lost_it(road, loss, bob, policy, customer, admin):
    row = held(policy, customer)
    road(bob, policy, customer)
    services.approve(row, by=bob)
    assert factories.fresh(row).status == Status.APPROVED
    loss(bob, policy, customer)
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)
    assert factories.fresh(row).status == Status.APPROVED


@pytest.mark.parametrize("road", [each for each in ROADS if each.__name__.endswith("by_group")])
def test_a_vote_is_worth_nothing_once_its_giver_left_the_group(road, bob, policy, customer, admin):
    row = held(policy, customer)
    road(bob, policy, customer)
    services.approve(row, by=bob)
    leave_groups(bob, policy, customer)
    assert not decides(bob, row)
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)


# --- roads that lead elsewhere ------------------------------------------------------------------------------


def another_permission_on_the_policy(user, policy, customer):
    assign_perm("change_approvalpolicy", user, policy)


def on_another_policy(user, policy, customer):
    assign_perm("decide", user, factories.policy())


def on_another_object(user, policy, customer):
    assign_perm(APPROVE, user, Customer.objects.create(name="Eve"))


def another_permission_on_the_object(user, policy, customer):
    assign_perm("testapp.delete_customer", user, customer)


def another_permission_everywhere(user, policy, customer):
    user.user_permissions.add(permission("testapp.delete_customer"))


def on_an_object_of_another_kind_with_that_key(user, policy, customer):
    account = Account.objects.create(pk=customer.pk, owner=customer)
    assign_perm("testapp.change_account", user, account)


def by_a_group_of_others(user, policy, customer):
    group = team(factories.user())
    assign_perm("decide", group, policy)
    assign_perm(APPROVE, group, customer)


def staff(user, policy, customer):
    user.is_staff = True
    user.save()


@pytest.mark.parametrize(
    "road",
    [
        another_permission_on_the_policy,
        on_another_policy,
        on_another_object,
        another_permission_on_the_object,
        another_permission_everywhere,
        on_an_object_of_another_kind_with_that_key,
        by_a_group_of_others,
        staff,
    ],
)
def test_no_decider_by(road, bob, policy, customer, admin):
    row = held(policy, customer)
    road(bob, policy, customer)
    assert not decides(bob, row)
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=bob)


def test_the_permission_on_the_object_counts_only_where_the_policy_says_so(bob, customer, admin):
    row = held(factories.policy(), customer)
    assign_perm(APPROVE, bob, customer)
    bob.user_permissions.add(permission(APPROVE))
    assert not decides(bob, row)


def test_an_object_of_another_kind_with_the_same_key_is_another_object(
    bob, policy, customer, admin
):
    account = Account.objects.create(pk=customer.pk, owner=customer)
    row = held(policy, account)  # the policy's permission is one on customers
    assign_perm(APPROVE, bob, customer)
    bob.user_permissions.add(permission(APPROVE))
    assert not decides(bob, row)


def test_a_call_about_no_object_is_decided_by_no_permission_on_objects(bob, policy, admin):
    row = held(policy)
    bob.user_permissions.add(permission(APPROVE))
    assert not decides(bob, row)


def test_a_permission_that_is_gone_is_nobodys(bob, customer, admin):
    row_policy = factories.policy(object_permission="testapp.fly_customer")
    assert not decides(bob, held(row_policy, customer))


def test_with_no_policy_no_object_permission_on_a_policy_counts(bob, policy, admin):
    assign_perm("decide", bob, policy)
    assert not decides(bob, factories.held())


def test_a_key_too_long_to_be_kept_whole_is_nobodys(policy):
    terms = policies.on_object(policies.terms(policy), "testapp.customer", "x" * 200)
    assert terms.object_permission == -1
    assert policies.on_object(terms, "testapp.customer", "") == terms


# --- guardian's direct tables -------------------------------------------------------------------------------


def test_a_direct_permission_on_the_object_counts_on_that_object(bob, customer, admin):
    policy = factories.policy(object_permission="testapp.change_account")
    mine, other = (Account.objects.create(owner=customer) for _ in range(2))
    assign_perm("testapp.change_account", bob, mine)
    assert decides(bob, held(policy, mine))
    assert not decides(bob, held(policy, other))


def test_a_direct_permission_by_group_counts_on_an_object_with_a_uuid(bob, admin):
    policy = factories.policy(object_permission="testapp.change_vault")
    mine, other = Vault.objects.create(), Vault.objects.create()
    assign_perm("testapp.change_vault", team(bob), mine)
    assert decides(bob, held(policy, mine))
    assert not decides(bob, held(policy, other))


# --- groups that must be represented ------------------------------------------------------------------------


@pytest.fixture
def grouped():
    """Two of security and one of finance."""
    policy = factories.policy(required_approvals=3)
    for name, count in (("security", 2), ("finance", 1)):
        group = team(name=name)
        PolicyGroupRequirement.objects.create(policy=policy, group=group, count=count)
    return policy


def member(*groups: str):
    user = factories.decider()
    for name in groups:
        team(user, name=name)
    return user


def test_groups_must_be_represented(grouped):
    first, second, finance = member("security"), member("security", "finance"), member("finance")
    others = [member(), member()]
    row = held(grouped)
    for user in (first, *others, second):
        services.approve(row, by=user)
        assert factories.fresh(row).status == Status.PENDING
    services.approve(row, by=finance)
    assert factories.fresh(row).status == Status.APPROVED
    services.consume(factories.fresh(row), state_digest=factories.STATE)


def test_who_is_a_member_but_no_decider_represents_nobody(grouped):
    for groups in (("security",), ("security",), ("finance",), ()):
        member(*groups)
    row = held(grouped)
    stranger = factories.user()
    team(stranger, name="security")
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=stranger)


def test_who_left_the_group_represents_it_no_more(grouped):
    voters = [member("security"), member("security"), member("finance")]
    row = held(grouped)
    for user in voters:
        services.approve(row, by=user)
    assert factories.fresh(row).status == Status.APPROVED
    voters[0].groups.clear()
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)


@pytest.mark.parametrize(
    "members",
    [
        [("security",), ("finance",), ()],
        [("security", "finance"), ("security",), ()],
        [("security",), ("security",), ()],
        [("security",), ("security",), ("finance",), "requester"],
    ],
)
def test_nothing_opens_where_a_group_cannot_be_represented(grouped, members):
    requester = None
    if members[-1] == "requester":
        requester = member("finance")
        members = members[:2]
    for groups in members:
        member(*groups)
    call = factories.call(requester or factories.user())
    with pytest.raises(exceptions.ApprovalUnavailable):
        services.open_request(call, policies.terms(grouped))


# --- small worlds -------------------------------------------------------------------------------------------


class World:
    """A few users, groups, permissions and delegations, drawn by a seed; and who may decide, worked out by hand."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        draw = self.draw
        self.policies = [factories.policy(object_permission=APPROVE) for _ in range(2)]
        self.customers = [Customer.objects.create(name=name) for name in ("Ada", "Eve")]
        self.groups = [Group.objects.create(name=f"g{number}") for number in range(2)]
        self.users = [
            factories.user(is_superuser=self.one_in(8), is_active=not self.one_in(8))
            for _ in range(6)
        ]
        self.members = {
            group: [user for user in self.users if self.one_in(3)] for group in self.groups
        }
        for group, members in self.members.items():
            group.user_set.set(members)
        self.grants = set()  # (holder, permission, about: a policy, a customer or None for all)
        for holder in (*self.users, *self.groups):
            for name in (DECIDE, APPROVE):
                for about in (None, *(self.policies if name == DECIDE else self.customers)):
                    if self.one_in(10):
                        self.grant(holder, name, about)
        self.delegations = [self.delegation() for _ in range(draw.randrange(5))]

    def one_in(self, chances: int) -> bool:
        return self.draw.randrange(chances) == 0

    def grant(self, holder, name: str, about) -> None:
        self.grants.add((holder, name, about))
        if about is not None:
            assign_perm(name, holder, about)
        elif isinstance(holder, Group):
            holder.permissions.add(permission(name))
        else:
            holder.user_permissions.add(permission(name))

    def delegation(self):
        delegator, stand_in = self.draw.sample(self.users, 2)
        policy = self.draw.choice([None, None, *self.policies])
        now, hour = timezone.now(), timedelta(hours=1)
        how = self.draw.choice(["now", "now", "now", "past", "future", "revoked"])
        start = {"past": -3, "future": 2}.get(how, -1)
        Delegation.objects.create(
            delegator=delegator,
            stand_in=stand_in,
            policy=policy,
            starts_at=now + start * hour,
            ends_at=now + (start + 2) * hour,
            revoked_at=now if how == "revoked" else None,
        )
        return (delegator, stand_in, policy) if how == "now" else None

    def holds(self, user, name: str, about) -> bool:
        holders = [user, *(group for group in self.groups if user in self.members[group])]
        return any(
            (holder, name, each) in self.grants for holder in holders for each in (None, about)
        )

    def able(self, user, policy, customer) -> bool:
        return user.is_active and (
            user.is_superuser
            or self.holds(user, DECIDE, policy)
            or self.holds(user, APPROVE, customer)
        )

    def lenders(self, user, policy, customer) -> list:
        return [
            delegator
            for delegator, stand_in, limit in filter(None, self.delegations)
            if user == stand_in
            and user.is_active
            and limit in (None, policy)
            and self.able(delegator, policy, customer)
        ]

    def tied_to(self, user, policy) -> set[str]:
        ties = [each for each in filter(None, self.delegations) if each[2] in (None, policy)]
        return {
            str(other.pk)
            for one, two, _limit in ties
            for other in ((two,) if one == user else (one,) if two == user else ())
        }

    def has_authority(self, user, policy, customer) -> bool:
        return self.able(user, policy, customer) or bool(self.lenders(user, policy, customer))

    def is_barred(self, user, requester) -> bool:
        return (requester, user) in {each[:2] for each in self.delegations if each}

    def vote(self, user, policy, customer, groups) -> quorum.Vote:
        lenders = self.lenders(user, policy, customer)
        own = {user} if self.able(user, policy, customer) else set()
        bring = lambda who: {g.pk for g in self.groups if who in self.members[g]} & groups.keys()  # noqa: E731
        mine = set().union(*map(bring, own))
        needed = [each for each in lenders if not own or not bring(each) <= mine]
        return quorum.Vote(
            str(user.pk),
            frozenset(mine.union(*map(bring, needed))),
            frozenset(self.tied_to(user, policy)),
            frozenset(str(each.pk) for each in needed),
        )


@pytest.mark.parametrize("seed", range(200))
def test_in_a_small_world_everyone_says_the_same(seed):
    world = World(seed)
    policy, customer = world.policies[0], world.customers[0]
    groups = {each.pk: 1 for each in world.groups if world.one_in(4)}
    for key in groups:
        PolicyGroupRequirement.objects.create(policy=policy, group_id=key, count=1)
    policy.required_approvals = world.draw.choice([1, 1, 2, 3])
    policy.save()
    requester = world.draw.choice(world.users)
    about = {"object_model": "testapp.customer", "object_pk": str(customer.pk)}
    terms = policies.terms(policy)
    on_it = policies.on_object(terms, *about.values())

    by_hand = {user for user in world.users if world.has_authority(user, policy, customer)}
    asked = policies.deciders(
        policy.pk, permission=on_it.object_permission, object_pk=str(customer.pk)
    )
    assert set(asked) == by_hand

    others = {
        user for user in by_hand if user != requester and not world.is_barred(user, requester)
    }
    own = [
        world.vote(user, policy, customer, groups)
        for user in others
        if world.able(user, policy, customer)
    ]
    possible = by_brute_force(own, policy.required_approvals, groups)
    reachable = policies.quorum_is_reachable(
        on_it, (str(requester.pk),), object_pk=str(customer.pk)
    )
    assert possible or not reachable
    call = factories.call(requester, **about)
    if not reachable:
        with pytest.raises(exceptions.ApprovalUnavailable):
            services.open_request(call, terms)
        return
    row = services.open_request(call, terms)

    assert set(policies.deciders_of(row)) == others
    for user in world.users:
        assert policies.may_decide(user, row) == (user in others)
        assert policies.decidable_by(user).filter(pk=row.pk).exists() == (user in others)
        authority = bool(policies.with_authority(user).get(pk=row.pk)._authority)
        assert authority == (user in by_hand and not world.is_barred(user, requester))

    votes = []
    for user in world.draw.sample(world.users, len(world.users)):
        if user not in others:
            with pytest.raises(exceptions.MayNotDecide):
                services.approve(row, by=user)
            continue
        votes.append(world.vote(user, policy, customer, groups))
        services.approve(row, by=user)
        enough = factories.fresh(row).status == Status.APPROVED
        assert enough == policies.has_quorum(factories.fresh(row))
        if enough:
            break
    assert by_brute_force(votes, policy.required_approvals, groups)
    assert factories.fresh(row).status == Status.APPROVED
    services.consume(factories.fresh(row), state_digest=factories.STATE)

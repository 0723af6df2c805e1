"""Who may decide a request now, and whether those who voted suffice."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, models
from django.db.models import Q
from django.db.models.expressions import RawSQL

from jit_approval import conf, prepared, quorum
from jit_approval.calls import Terms
from jit_approval.exceptions import MayNotDecide, SelfApprovalForbidden
from jit_approval.models import ApprovalRequest, Decision, Delegation
from jit_approval.policies import authority, delegations
from jit_approval.policies.persons import database, is_behind, person_of
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.redaction import visible
from jit_approval.states import Verdict

DECIDE = "jit_approval.decide"


@dataclass(frozen=True)
class Standing:
    """As whom a user decides: their person, whom they stand in for, and who is tied to them."""

    person: str
    # Names of the delegators whose authority it rests on; empty where the user's own suffices.
    on_behalf_of: tuple[str, ...] = ()
    linked: frozenset[str] = frozenset()


# --- who ---------------------------------------------------------------------------------------------------


def deciders(
    policy_id: int | None, *, permission: int | None = None, object_pk: str = ""
) -> models.QuerySet[Any]:
    """Return the users who may decide requests of this policy now (of no policy: None). One query.

    `permission` is the key of the permission on the object, where the policy names one. Stand-ins are among
    them; who stands behind a particular call is not left out.
    """
    users = get_user_model()._base_manager.using(database())
    own = _own(policy_id, permission, object_pk)
    lent = delegations.in_force().filter(Q(policy=None) | Q(policy=policy_id))
    stand_ins = lent.filter(delegator__in=users.filter(own)).values("stand_in")
    return users.filter(own | Q(pk__in=stand_ins), is_active=True)


def deciders_of(approval_request: ApprovalRequest) -> list[Any]:
    """Return the users who may decide this request now, nobody who stands behind it among them."""
    row = approval_request
    able = deciders(
        row.policy_id, permission=row.object_permission, object_pk=row.object_pk
    ).order_by("pk")
    return without_behind(able, row.requester_id, row.persons)


def without_behind(users: Iterable[Any], requester_id: Any, persons: Collection[str]) -> list[Any]:
    """Return the users who neither stand behind a call of these persons, nor stand in for one who does."""
    barred = {
        each.stand_in_id
        for each in delegations.in_force()
        if is_behind(each.delegator, requester_id, persons)
    }
    return [
        user
        for user in users
        if not is_behind(user, requester_id, persons) and user.pk not in barred
    ]


def _own(policy_id: int | None, permission: int | None, object_pk: str) -> Q:
    """Return the condition for users with authority of their own."""
    alias, user_model = database(), get_user_model()
    holders = RawSQL(  # noqa: S611 - names alone
        authority.holders_sql(alias, user_model), (policy_id, policy_id)
    )
    able = Q(is_superuser=True) | Q(pk__in=holders)
    if permission is not None:
        params = authority.able_params(alias, None, permission, object_pk)[2:]
        of_object = RawSQL(authority.object_holders_sql(alias, user_model), params)  # noqa: S611
        able |= Q(pk__in=of_object)
    return able & Q(is_active=True)


# --- one user ----------------------------------------------------------------------------------------------


def decidable_by(user: Any) -> ApprovalRequestQuerySet:
    """Return the requests this user has authority over, own ones excluded, whatever the state.

    For lists: deciding asks again, and knows of more persons behind a call than SQL does.
    """
    own = Q(requester=user.pk) | Q(requester_person=person_of(user))
    return with_authority(user).exclude(own).filter(_authority=1)  # type: ignore[misc]


def with_authority(user: Any) -> ApprovalRequestQuerySet:
    """Return all requests, each with `_authority` (1 or 0): whether the user, or who they stand in for, has it."""
    requests = ApprovalRequest.objects.using(database())
    if user.pk is None or not user.is_active:
        nobody = models.Value(0, output_field=models.IntegerField())
        return requests.annotate(_authority=nobody)
    key = authority.user_key(user, database())
    value = RawSQL(  # noqa: S611 - names alone
        authority.authority_of_any_sql(database(), get_user_model()),
        (key, key, key),
        output_field=models.IntegerField(),
    )
    return requests.annotate(_authority=value)


def may_decide(user: Any, approval_request: ApprovalRequest) -> bool:
    """Tell whether this user may decide this request now: authority, and not behind the call."""
    try:
        ensure_may_decide(user, approval_request)
    except MayNotDecide:
        return False
    return True


def ensure_may_decide(
    user: Any,
    approval_request: ApprovalRequest,
    *,
    own: bool | None = None,
    delegates: bool | None = None,
) -> Standing:
    """Return as whom `user` may decide the request.

    `own` and `delegates`, where they were read along with the row, say that the user holds the policy's
    permission, and takes part in a delegation; the common case needs no further query then.

    Raises:
        SelfApprovalForbidden: the user's person stands behind the call, or is stand-in of one who does.
        MayNotDecide: the user is inactive, or has no authority, own or lent.
    """
    row = approval_request
    if is_behind(user, row.requester_id, row.persons):
        raise SelfApprovalForbidden("A call is decided by somebody else than who made it.")
    if not user.is_active or user.pk is None:
        raise MayNotDecide("You are not among the deciders of this request.")
    if own and delegates is False:
        return Standing(person_of(user))
    return _standing(user, row, [] if delegates is False else delegations.touching([user.pk]))


def _standing(user: Any, row: ApprovalRequest, ties: list[Delegation]) -> Standing:
    delegators = {each.delegator_id: each.delegator for each in ties if each.stand_in_id == user.pk}
    if any(is_behind(each, row.requester_id, row.persons) for each in delegators.values()):
        raise SelfApprovalForbidden("A requester's stand-in does not decide the requester's calls.")
    ties = [each for each in ties if delegations.covers(each, row.policy_id)]
    lenders = {
        each.delegator_id
        for each in ties
        if each.stand_in_id == user.pk and delegations.lends(each, row.policy_id)
    }
    able = _able([user.pk, *lenders], row)
    if not able:
        raise MayNotDecide("You are not among the deciders of this request.")
    return Standing(
        person_of(user),
        tuple(str(delegators[key].get_username()) for key in sorted(_needed(user.pk, able, row))),
        frozenset(_others(user, ties)),
    )


def _needed(user: Any, able: set[Any], row: ApprovalRequest) -> set[Any]:
    """Return the lenders a vote of this user (key) rests on: all, or those who bring a group to represent."""
    if user not in able:
        return able
    members = memberships(able, [key for key, _name, _count in row.group_requirements])
    own = members.get(user, frozenset())
    return {key for key in able - {user} if not members.get(key, frozenset()) <= own}


def _others(user: Any, ties: list[Delegation]) -> Iterable[str]:
    """Return the persons at the other end of the user's delegations."""
    for each in ties:
        if each.stand_in_id == user.pk:
            yield person_of(each.delegator)
        if each.delegator_id == user.pk:
            yield person_of(each.stand_in)


def _able(keys: Iterable[Any], row: ApprovalRequest) -> set[Any]:
    """Return which of the users (keys) have authority of their own over the request. One query."""
    alias, user_model = database(), get_user_model()
    keys = list(dict.fromkeys(keys))
    quote = connections[alias].ops.quote_name
    users, key = quote(user_model._meta.db_table), quote(str(user_model._meta.pk.column))
    places = ", ".join(["%s"] * len(keys))
    condition = authority.able_sql(alias, user_model)
    params = [user_model._meta.pk.get_db_prep_value(each, connections[alias]) for each in keys]
    params += authority.able_params(alias, row.policy_id, row.object_permission, row.object_pk)
    sql = f"SELECT u.{key} FROM {users} u WHERE u.{key} IN ({places}) AND {condition}"  # noqa: S608
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return {user_model._meta.pk.to_python(found) for (found,) in cursor.fetchall()}


# --- enough of them ----------------------------------------------------------------------------------------


def has_quorum(approval_request: ApprovalRequest) -> bool:
    """Tell whether the approvals given by deciders of this moment suffice, groups and stand-ins considered."""
    row = approval_request
    groups = {key: count for key, _name, count in row.group_requirements}
    return quorum.is_met(valid_votes(row), row.required_approvals, groups)


def valid_votes(approval_request: ApprovalRequest) -> list[quorum.Vote]:
    """Return the approvals given by deciders of this moment, with whom each could stand for."""
    row = approval_request
    votes = [
        vote
        for vote in row.decisions.select_related("decider")
        if vote.verdict == Verdict.APPROVE and vote.decider is not None
    ]
    if not votes:
        return []
    ties = delegations.touching(vote.decider_id for vote in votes)
    lenders = {vote.pk: _lenders(vote, ties, row) for vote in votes}
    keys = [vote.decider_id for vote in votes]
    able = _able([*keys, *(key for each in lenders.values() for key in each)], row)
    members = memberships(able, [key for key, _name, _count in row.group_requirements])
    barred = {
        each.stand_in_id
        for each in ties
        if is_behind(each.delegator, row.requester_id, row.persons)
    }
    counted = []
    for vote in votes:
        sources = {vote.decider_id, *lenders[vote.pk]} & able
        if not sources or vote.decider_id in barred:
            continue
        represented = frozenset().union(*(members.get(key, frozenset()) for key in sources))
        lent = frozenset(lenders[vote.pk][key] for key in sources - {vote.decider_id})
        # As they were tied when they voted: who names a stand-in later takes no vote back.
        counted.append(quorum.Vote(vote.person, represented, frozenset(vote.linked), lent))
    return counted


def _lenders(vote: Decision, ties: list[Delegation], row: ApprovalRequest) -> dict[Any, str]:
    """Return the persons (by user key) who lend to the vote still. Who did not when it was cast, does not now."""
    return {
        each.delegator_id: person_of(each.delegator)
        for each in ties
        if each.stand_in_id == vote.decider_id
        and delegations.lends(each, row.policy_id)
        and visible(each.delegator.get_username())[:254] in vote.on_behalf_of
        and person_of(each.delegator) in vote.linked
    }


def quorum_is_reachable(terms: Terms, persons: Iterable[str] = (), *, object_pk: str = "") -> bool:
    """Tell whether persons other than those behind the call could approve it now. One query, as a rule."""
    behind = set(persons)
    if (
        conf.get().PERSON_KEY == "pk"
        and not terms.group_requirements
        and (terms.object_permission is None)
    ):
        some = _some_deciders(terms.policy_id, terms.required_approvals + len(behind))
        if len(some) < terms.required_approvals or not some[0].delegates:
            return len({person_of(user) for user in some} - behind) >= terms.required_approvals
    return _could_meet(terms, behind, object_pk)


def _could_meet(terms: Terms, behind: set[str], object_pk: str) -> bool:
    """Count everyone who could vote as if they had. Who only stands in adds nobody to who lends."""
    users = get_user_model()._base_manager.using(database())
    own = users.filter(_own(terms.policy_id, terms.object_permission, object_pk)).order_by()
    able = {user.pk: person_of(user) for user in own}
    links: dict[Any, set[str]] = {}
    barred = set()
    for each in delegations.in_force():
        if person_of(each.delegator) in behind:
            barred.add(each.stand_in_id)
        if delegations.covers(each, terms.policy_id):
            links.setdefault(each.stand_in_id, set()).add(person_of(each.delegator))
    groups = {key: count for key, _name, count in terms.group_requirements}
    members = memberships(able, groups)
    votes = [
        quorum.Vote(person, members.get(key, frozenset()), linked=frozenset(links.get(key, ())))
        for key, person in able.items()
        if person not in behind and key not in barred
    ]
    return quorum.is_met(votes, terms.required_approvals, groups)


def memberships(users: Iterable[Any], groups: Iterable[int]) -> dict[Any, frozenset[int]]:
    """Return, by user key, which of the groups each is a member of."""
    wanted = list(groups)
    if not wanted:
        return {}
    through: Any = get_user_model().groups.through
    user_column = get_user_model().groups.field.m2m_field_name()
    rows = through._base_manager.using(database()).filter(group__in=wanted)
    found: dict[Any, set[int]] = {}
    keys = set(users)
    for user, group in rows.values_list(f"{user_column}_id", "group_id"):
        if user in keys:
            found.setdefault(user, set()).add(group)
    return {user: frozenset(held) for user, held in found.items()}


def _some_deciders(policy_id: int | None, count: int) -> list[Any]:
    alias, user_model = database(), get_user_model()
    return _users(user_model).rows(
        using=alias,
        where={},
        guards=(authority.is_decider_sql(alias, user_model),),
        tail=f"LIMIT {int(count)}",
        params=(policy_id, policy_id),
    )


@cache
def _users(user_model: Any) -> prepared.Select[Any]:
    fields = [field.name for field in user_model._meta.concrete_fields if not field.primary_key]
    return prepared.Select(
        user_model,
        extras=lambda alias: (("delegates", delegations.any_sql(alias), models.IntegerField()),),
        without=tuple(fields),
    )

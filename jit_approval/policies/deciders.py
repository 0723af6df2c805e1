"""Who may decide a request now."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, models
from django.db.models import Q
from django.db.models.expressions import RawSQL

from jit_approval.exceptions import MayNotDecide, SelfApprovalForbidden
from jit_approval.models import ApprovalRequest, Delegation
from jit_approval.policies import authority, delegations, holders
from jit_approval.policies.persons import database, is_behind, person_of
from jit_approval.querysets import ApprovalRequestQuerySet

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
    policy_id: int | None,
    *,
    permission: int | None = None,
    object_pk: str = "",
    request: Any = None,
) -> models.QuerySet[Any]:
    """Return the users who may decide requests of this policy now (of no policy: None). One query.

    `permission` is the key of the permission on the object, where the policy names one; `request` that of an
    open request, whose ladder may have let others decide. Stand-ins are among them; who stands behind a
    particular call is not left out.
    """
    users = get_user_model()._base_manager.using(database())
    own = own_authority(policy_id, permission, object_pk, request)
    lent = delegations.in_force().filter(Q(policy=None) | Q(policy=policy_id))
    stand_ins = lent.filter(delegator__in=users.filter(own)).values("stand_in")
    return users.filter(own | Q(pk__in=stand_ins), is_active=True)


def deciders_of(approval_request: ApprovalRequest) -> list[Any]:
    """Return the users who may decide this request now, nobody who stands behind it among them."""
    row = approval_request
    able = deciders(
        row.policy_id, permission=row.object_permission, object_pk=row.object_pk, request=row.pk
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


def own_authority(
    policy_id: int | None, permission: int | None, object_pk: str, request: Any = None
) -> Q:
    """Return the condition for users with authority of their own."""
    alias, user_model = database(), get_user_model()
    of_permission = RawSQL(  # noqa: S611 - names alone
        holders.holders_sql(alias, user_model), (policy_id, policy_id)
    )
    able = Q(is_superuser=True) | Q(pk__in=of_permission)
    if permission is not None:
        params = holders.object_params(permission, object_pk)
        of_object = RawSQL(holders.object_holders_sql(alias, user_model), params)  # noqa: S611
        able |= Q(pk__in=of_object)
    if request is not None:
        key = authority.request_key(request, alias)
        able |= Q(pk__in=RawSQL(holders.escalated_sql(alias, user_model), (key, key)))  # noqa: S611
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
    able = able_among([user.pk, *lenders], row)
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


def able_among(keys: Iterable[Any], row: ApprovalRequest) -> set[Any]:
    """Return which of the users (keys) have authority of their own over the request. One query."""
    alias, user_model = database(), get_user_model()
    keys = list(dict.fromkeys(keys))
    quote = connections[alias].ops.quote_name
    users, key = quote(user_model._meta.db_table), quote(str(user_model._meta.pk.column))
    places = ", ".join(["%s"] * len(keys))
    condition = authority.able_sql(alias, user_model)
    params = [user_model._meta.pk.get_db_prep_value(each, connections[alias]) for each in keys]
    params += authority.able_params(alias, row)
    sql = f"SELECT u.{key} FROM {users} u WHERE u.{key} IN ({places}) AND {condition}"  # noqa: S608
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return {user_model._meta.pk.to_python(found) for (found,) in cursor.fetchall()}


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

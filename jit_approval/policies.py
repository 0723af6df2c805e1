"""Which terms a call is held on, and who may decide it. One place, used by gate, services, admin and API."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models, router
from django.db.models import Q
from django.db.models.expressions import RawSQL

from jit_approval import conf, prepared
from jit_approval.calls import Terms
from jit_approval.exceptions import MayNotDecide, SelfApprovalForbidden
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    Decision,
    PolicyGroupPermission,
    PolicyUserPermission,
)
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import Verdict

DECIDE = "jit_approval.decide"


def database() -> str:
    """Return the alias every read and write of this app uses: the writer, never a replica."""
    return router.db_for_write(ApprovalRequest)


# --- terms -----------------------------------------------------------------------------------------------


_POLICIES = prepared.Select(ApprovalPolicy, without=("description",))


def match(action: str) -> ApprovalPolicy | None:
    """Return the first enabled policy, by (priority, id), that names the action. One query."""
    enabled = _POLICIES.rows(
        using=database(), where={"enabled": True}, tail="ORDER BY priority, id"
    )
    return next((policy for policy in enabled if policy.names(action)), None)


def terms(policy: ApprovalPolicy | None) -> Terms:
    """Return the terms of a policy, or those of the settings where none matches: held all the same."""
    if policy is None:
        return _default_terms()
    return Terms(
        policy_id=policy.pk,
        policy_slug=policy.slug,
        policy_version=policy.version,
        required_approvals=policy.required_approvals,
        decide_within=policy.decide_within,
        usable_within=policy.usable_within,
        rejection_cooldown=policy.rejection_cooldown,
        require_reason=policy.require_reason,
    )


def _default_terms() -> Terms:
    config = conf.get()
    return Terms(
        policy_id=None,
        policy_slug="",
        policy_version=0,
        required_approvals=config.REQUIRED_APPROVALS,
        decide_within=config.DECIDE_WITHIN,
        usable_within=config.USABLE_WITHIN,
        rejection_cooldown=config.REJECTION_COOLDOWN,
        require_reason=config.REQUIRE_REASON,
    )


def still_covers(approval_request: ApprovalRequest, now_terms: Terms) -> bool:
    """Tell whether a grant still satisfies the terms that hold now.

    False when another policy matches by now, or the same one has become stricter. Loosening changes nothing.
    """
    return (
        approval_request.policy_id == now_terms.policy_id
        and approval_request.required_approvals >= now_terms.required_approvals
        and approval_request.usable_within <= now_terms.usable_within
        and (bool(approval_request.reason) or not now_terms.require_reason)
    )


# --- persons ---------------------------------------------------------------------------------------------


def person_of(user: Any) -> str:
    """Return who stands behind an account: the value at `PERSON_KEY`, else the account itself.

    Separation of duties compares these, not accounts.
    """
    value: Any = user
    for name in conf.get().PERSON_KEY.split("__"):
        value = getattr(value, name, None)
    return str(value) if value not in (None, "") else f"account {user.pk}"


# --- authority -------------------------------------------------------------------------------------------


def deciders(policy_id: int | None) -> models.QuerySet[Any]:
    """Return the users who may decide requests of this policy now (of no policy: None)."""
    holders = RawSQL(_holders_sql(database(), get_user_model()), (policy_id, policy_id))  # noqa: S611
    users = get_user_model()._base_manager.using(database())
    return users.filter(Q(is_superuser=True) | Q(pk__in=holders), is_active=True)


def decidable_by(user: Any) -> ApprovalRequestQuerySet:
    """Return the requests this user has authority over, own ones excluded, whatever the state."""
    requests = ApprovalRequest.objects.using(database())
    if not user.is_active or user.pk is None:
        return requests.none()
    own = Q(requester=user.pk) | Q(requester_person=person_of(user))
    authority = RawSQL(  # noqa: S611
        authority_of_user_sql(), (user.pk,), output_field=models.IntegerField()
    )
    return requests.exclude(own).annotate(_authority=authority).filter(_authority=1)


def may_decide(user: Any, approval_request: ApprovalRequest) -> bool:
    """Tell whether this user may decide this request now: authority, and not behind the call."""
    try:
        ensure_may_decide(user, approval_request)
    except MayNotDecide:
        return False
    return True


def ensure_may_decide(
    user: Any, approval_request: ApprovalRequest, *, authority: bool | None = None
) -> str:
    """Return the person behind `user`, who may decide the request. `authority`: when already read.

    Raises:
        SelfApprovalForbidden: the user's person stands behind the call.
        MayNotDecide: the user is inactive, or holds no permission that covers this policy.
    """
    person = person_of(user)
    if person in approval_request.persons or user.pk == approval_request.requester_id:
        raise SelfApprovalForbidden("A call is decided by somebody else than who made it.")
    if authority is None:
        authority = decidable_by(user).filter(pk=approval_request.pk).exists()
    if not (user.is_active and authority):
        raise MayNotDecide("You are not among the deciders of this request.")
    return person


def quorum_is_reachable(policy_id: int | None, required: int, persons: Iterable[str]) -> bool:
    """Tell whether enough persons other than those behind the call could approve it now. One query."""
    behind = set(persons)
    if conf.get().PERSON_KEY == "pk":
        able: Iterable[Any] = _some_deciders(policy_id, required + len(behind))
    else:
        able = deciders(policy_id).order_by()
    others = {person_of(user) for user in able} - behind
    return len(others) >= required


def _some_deciders(policy_id: int | None, count: int) -> list[Any]:
    alias, user_model = database(), get_user_model()
    return _users(user_model).rows(
        using=alias,
        where={},
        guards=(_is_decider_sql(alias, user_model),),
        tail=f"LIMIT {int(count)}",
        params=(policy_id, policy_id),
    )


@cache
def _users(user_model: Any) -> prepared.Select[Any]:
    fields = [field.name for field in user_model._meta.concrete_fields if not field.primary_key]
    return prepared.Select(user_model, without=tuple(fields))


# --- SQL -------------------------------------------------------------------------------------------------
# By hand, for it runs inside every decision and every consuming UPDATE: 0.4 ms against 2.9 ms through the ORM.


def authority_of_user_sql() -> str:
    """Return SQL that is 1 where user `%s` has authority over the outer approval request."""
    return _authority_of_user_sql(database(), get_user_model())


@cache
def _authority_of_user_sql(alias: str, user_model: Any) -> str:
    quote = connections[alias].ops.quote_name
    users, key = quote(user_model._meta.db_table), quote(_pk_column(user_model))
    requests = quote(ApprovalRequest._meta.db_table)
    condition = authority_sql(alias, "u", f"{requests}.{quote('policy_id')}")
    exists = f"EXISTS (SELECT 1 FROM {users} u WHERE u.{key} = %s AND {condition})"  # noqa: S608
    return f"CASE WHEN {exists} THEN 1 ELSE 0 END"


def user_key(user: Any, alias: str) -> Any:
    """Return the user's primary key as a parameter of this SQL."""
    return user._meta.pk.get_db_prep_value(user.pk, connections[alias])


def valid_votes_sql() -> str:
    """Return SQL for the number of approvals of the outer request whose givers are deciders still."""
    return _valid_votes_sql(database(), get_user_model())


@cache
def _valid_votes_sql(alias: str, user_model: Any) -> str:
    quote = connections[alias].ops.quote_name
    users, key = quote(user_model._meta.db_table), quote(_pk_column(user_model))
    requests = quote(ApprovalRequest._meta.db_table)
    votes = quote(Decision._meta.db_table)
    condition = authority_sql(alias, "u", f"{requests}.{quote('policy_id')}")
    return (
        f"(SELECT COUNT(*) FROM {votes} v JOIN {users} u ON u.{key} = v.{quote('decider_id')} "  # noqa: S608
        f"WHERE v.{quote('approval_request_id')} = {requests}.{quote('id')} "
        f"AND v.{quote('verdict')} = '{Verdict.APPROVE.value}' AND {condition})"
    )


def authority_sql(alias: str, user: str, policy: str) -> str:
    """Return a condition on the user row `user`: active, and may decide for the policy `policy`.

    `policy` is SQL that appears twice: a column, or `%s`.
    """
    return _authority_template(alias, get_user_model()).format(user=user, policy=policy)


@cache
def _authority_template(alias: str, user_model: Any) -> str:
    return _AUTHORITY.format(u="{user}", policy="{policy}", **_names(alias, user_model))


@cache
def _holders_sql(alias: str, user_model: Any) -> str:
    """Return SQL for the keys of all who hold the permission: model-wide, or on the policy `%s` (twice)."""
    return _HOLDERS.format(**_names(alias, user_model))


@cache
def _is_decider_sql(alias: str, user_model: Any) -> str:
    names = _names(alias, user_model)
    holders = _holders_sql(alias, user_model)
    return (
        f"is_active = {names['true']} AND (is_superuser = {names['true']} "
        f"OR {names['pk']} IN ({holders}))"
    )


def _names(alias: str, user_model: Any) -> dict[str, str]:
    quote = connections[alias].ops.quote_name
    return {
        "permission": quote(Permission._meta.db_table),
        "types": quote(ContentType._meta.db_table),
        "by_user": quote(user_model.user_permissions.through._meta.db_table),
        "by_user_user": quote(user_model.user_permissions.field.m2m_column_name()),
        "members": quote(user_model.groups.through._meta.db_table),
        "members_user": quote(user_model.groups.field.m2m_column_name()),
        "by_group": quote(Group.permissions.through._meta.db_table),
        "policy_user": quote(PolicyUserPermission._meta.db_table),
        "policy_group": quote(PolicyGroupPermission._meta.db_table),
        "pk": quote(_pk_column(user_model)),
        "true": "TRUE" if connections[alias].vendor == "postgresql" else "1",
    }


# From one user to the permission. `(SELECT 1 … LIMIT 1) = 1`, for PostgreSQL plans each EXISTS under an OR twice.
_AUTHORITY = """{u}.is_active = {true} AND ({u}.is_superuser = {true} OR (
SELECT 1 FROM {permission} p JOIN {types} t ON t.id = p.content_type_id
WHERE t.app_label = 'jit_approval' AND t.model = 'approvalpolicy' AND p.codename = 'decide' AND (
(SELECT 1 FROM {by_user} x WHERE x.{by_user_user} = {u}.{pk} AND x.permission_id = p.id LIMIT 1) = 1
OR (SELECT 1 FROM {policy_user} x WHERE x.user_id = {u}.{pk}
AND x.content_object_id = {policy} AND x.permission_id = p.id LIMIT 1) = 1
OR (SELECT 1 FROM {members} m
LEFT JOIN {by_group} x ON x.group_id = m.group_id AND x.permission_id = p.id
LEFT JOIN {policy_group} y ON y.group_id = m.group_id
AND y.content_object_id = {policy} AND y.permission_id = p.id
WHERE m.{members_user} = {u}.{pk} AND (x.id IS NOT NULL OR y.id IS NOT NULL) LIMIT 1) = 1
) LIMIT 1) = 1)"""

# From the permission to its holders, each branch by index: never all memberships, nor all users with any permission.
_HOLDERS = """WITH d AS (SELECT p.id FROM {permission} p JOIN {types} t ON t.id = p.content_type_id
WHERE t.app_label = 'jit_approval' AND t.model = 'approvalpolicy' AND p.codename = 'decide')
SELECT x.{by_user_user} FROM {by_user} x WHERE x.permission_id = (SELECT d.id FROM d)
UNION ALL SELECT m.{members_user} FROM {by_group} x JOIN {members} m ON m.group_id = x.group_id
WHERE x.permission_id = (SELECT d.id FROM d)
UNION ALL SELECT x.user_id FROM {policy_user} x
WHERE x.content_object_id = %s AND x.permission_id = (SELECT d.id FROM d)
UNION ALL SELECT m.{members_user} FROM {policy_group} x JOIN {members} m ON m.group_id = x.group_id
WHERE x.content_object_id = %s AND x.permission_id = (SELECT d.id FROM d)"""


def _pk_column(model: Any) -> str:
    column: str = model._meta.pk.column
    return column

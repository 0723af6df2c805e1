"""Everybody who holds a permission, as SQL for their keys: from the permission to its holders, each branch by index."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import connections

from jit_approval.policies import tables


@cache
def holders_sql(alias: str, user_model: Any, *, of_policy: bool = True) -> str:
    """Return SQL for the keys of all who hold the permission: model-wide, or on the policy `%s` (twice).

    Without `of_policy`, model-wide alone, and no parameters: less to plan, on the way of every held call.
    """
    sql = f"{_HOLDERS} {_POLICY_HOLDERS}" if of_policy else _HOLDERS
    return sql.format(**tables.names(alias, user_model))


@cache
def escalated_sql(alias: str, user_model: Any) -> str:
    """Return SQL for the keys of all who may decide the request `%s` (twice) for a step of its ladder was taken."""
    return _ESCALATED_HOLDERS.format(**tables.names(alias, user_model))


@cache
def object_holders_sql(alias: str, user_model: Any) -> str:
    """Return SQL for the keys of all who hold a permission on an object.

    Parameters: as `object_params` lays them out.
    """
    names = tables.names(alias, user_model)
    parts = [_OBJECT_HOLDERS.format(**names)]
    for model, of_user in tables.object_models():
        parts.append(_holders_of(alias, model, of_user).format(**names))
    return " UNION ALL ".join(parts)


@cache
def is_decider_sql(alias: str, user_model: Any, *, of_policy: bool = True) -> str:
    """Return a condition on rows of the user table: a decider by permission. Parameters as `holders_sql`."""
    names = tables.names(alias, user_model)
    keys = holders_sql(alias, user_model, of_policy=of_policy)
    return (
        f"is_active = {names['true']} AND (is_superuser = {names['true']} "
        f"OR {names['pk']} IN ({keys}))"
    )


def object_params(permission: Any, object_pk: str) -> tuple[Any, ...]:
    """Return the parameters of `object_holders_sql`, in order."""
    pairs = len(tables.object_models())
    return (permission, permission, *((permission, object_pk) * pairs))


def _holders_of(alias: str, model: Any, of_user: bool) -> str:
    table = connections[alias].ops.quote_name(model._meta.db_table)
    is_it = tables.is_this_object(alias, model, "%s")
    where = f"WHERE x.permission_id = %s AND {is_it}"
    if of_user:
        return f"SELECT x.user_id FROM {table} x {where}"  # noqa: S608
    return (
        f"SELECT m.{{members_user}} FROM {table} x "  # noqa: S608
        f"JOIN {{members}} m ON m.group_id = x.group_id {where}"
    )


# From the permission to its holders, each branch by index: never all memberships, nor all users with any permission.
_HOLDERS = """WITH d AS (SELECT p.id FROM {permission} p WHERE p.codename = 'decide' AND p.content_type_id = (
SELECT t.id FROM {types} t WHERE t.app_label = 'jit_approval' AND t.model = 'approvalpolicy'))
SELECT x.{by_user_user} FROM {by_user} x WHERE x.permission_id = (SELECT d.id FROM d)
UNION ALL SELECT m.{members_user} FROM {by_group} x JOIN {members} m ON m.group_id = x.group_id
WHERE x.permission_id = (SELECT d.id FROM d)"""

_POLICY_HOLDERS = """UNION ALL SELECT x.user_id FROM {policy_user} x
WHERE x.content_object_id = %s AND x.permission_id = (SELECT d.id FROM d)
UNION ALL SELECT m.{members_user} FROM {policy_group} x JOIN {members} m ON m.group_id = x.group_id
WHERE x.content_object_id = %s AND x.permission_id = (SELECT d.id FROM d)"""

_ESCALATED_HOLDERS = """SELECT e.user_id FROM {escalated} e
WHERE e.approval_request_id = %s AND e.user_id IS NOT NULL
UNION ALL SELECT m.{members_user} FROM {escalated} e JOIN {members} m ON m.group_id = e.group_id
WHERE e.approval_request_id = %s"""

_OBJECT_HOLDERS = """SELECT x.{by_user_user} FROM {by_user} x WHERE x.permission_id = %s
UNION ALL SELECT m.{members_user} FROM {by_group} x JOIN {members} m ON m.group_id = x.group_id
WHERE x.permission_id = %s"""

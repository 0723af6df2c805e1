"""The tables that say who holds a permission, by the names the SQL gives them: Django's, guardian's and ours."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase

from jit_approval.models import EscalatedDecider, PolicyGroupPermission, PolicyUserPermission


def names(alias: str, user_model: Any) -> dict[str, str]:
    """Return table and column names, quoted, by what the templates call them."""
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
        "escalated": quote(EscalatedDecider._meta.db_table),
        "pk": quote(pk_column(user_model)),
        "true": "TRUE" if connections[alias].vendor == "postgresql" else "1",
    }


def pk_column(model: Any) -> str:
    """Return the column of the primary key, whatever the project calls it."""
    column: str = model._meta.pk.column
    return column


@cache
def object_models() -> tuple[tuple[Any, bool], ...]:
    """Return guardian's tables of this project, generic and direct, and whether each is of users."""
    ours = (PolicyUserPermission, PolicyGroupPermission)
    return tuple(
        (model, issubclass(model, UserObjectPermissionBase))
        for model in apps.get_models()
        if issubclass(model, UserObjectPermissionBase | GroupObjectPermissionBase)
        and model not in ours
    )


def is_this_object(alias: str, model: Any, object_pk: str) -> str:
    """Return a condition on the row `x` of one of those tables: it is about the object."""
    quote = connections[alias].ops.quote_name
    names = {field.name for field in model._meta.concrete_fields}
    if "object_pk" in names:
        return f"x.object_pk = {object_pk}"
    column = model._meta.get_field("content_object")
    text = {"mysql": "CHAR", "sqlite": "TEXT"}.get(connections[alias].vendor, "VARCHAR")
    key = f"CAST(x.{quote(column.column)} AS {text})"
    if isinstance(column.target_field, models.UUIDField):
        # Without a type of their own, some databases keep the hyphens and some do not.
        return f"REPLACE({key}, '-', '') = REPLACE({object_pk}, '-', '')"
    return f"{key} = {object_pk}"

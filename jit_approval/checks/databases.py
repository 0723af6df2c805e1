"""Checks of what the SQL of the package relies on. They look at settings and models, never at data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models, router

from jit_approval import models as ours
from jit_approval import policies

_VENDORS = ("postgresql", "mysql", "sqlite")
_SERIALISED = ("IMMEDIATE", "EXCLUSIVE")
_UTC = ("UTC", "Etc/UTC")
_COLUMNS = ("is_active", "is_superuser")
_RELATIONS: dict[str, type[models.Model]] = {"groups": Group, "user_permissions": Permission}


def check() -> list[CheckMessage]:
    """Return what is wrong with the database, the routing and the user model."""
    return [*_vendor(), *_zone(), *_routing(), *_user_model()]


def _vendor() -> Iterator[CheckMessage]:
    alias = policies.database()
    connection = connections[alias]
    if connection.vendor not in _VENDORS:
        yield Error(
            f"Database {alias!r} is of a kind that the gate does not know: {connection.vendor}.",
            hint="Approvals work on PostgreSQL, MySQL, MariaDB and SQLite; route the app to one of them.",
            id="jit_approval.E011",
        )
    if connection.vendor == "sqlite" and not _is_serialised(connection.settings_dict):
        yield Warning(
            f"SQLite database {alias!r} is used without transaction_mode IMMEDIATE: transactions that "
            "read and then write fail when several run at once, and calls are refused.",
            hint='Add "OPTIONS": {"transaction_mode": "IMMEDIATE"}, and journal_mode=WAL.',
            id="jit_approval.W001",
        )


def _zone() -> Iterator[CheckMessage]:
    """PostgreSQL keeps moments; the others keep what a clock on the wall shows, and are asked for it in UTC."""
    alias = policies.database()
    connection = connections[alias]
    zone = connection.settings_dict.get("TIME_ZONE")
    if connection.vendor == "postgresql" or zone is None or zone in _UTC:
        return
    yield Error(
        f"Database {alias!r} keeps times in the zone {zone}: deadlines and delegations would end hours "
        "early, or late.",
        hint="Leave TIME_ZONE out of the database's settings. That of the project may be any.",
        id="jit_approval.E015",
    )


def _is_serialised(database: Any) -> bool:
    mode = (database.get("OPTIONS") or {}).get("transaction_mode")
    return str(mode).upper() in _SERIALISED


def _routing() -> Iterator[CheckMessage]:
    """The deciders of a request are found, and votes counted, in one statement over all of these."""
    alias = policies.database()
    joined: tuple[type[models.Model], ...] = (
        get_user_model(),
        Group,
        Permission,
        ContentType,
        *(getattr(ours, name) for name in ours.__all__),
    )
    elsewhere = [model._meta.label for model in joined if router.db_for_write(model) != alias]
    if elsewhere:
        yield Error(
            f"Approval requests are written to database {alias!r}, but these are not: "
            f"{', '.join(elsewhere)}.",
            hint="Route jit_approval, auth, contenttypes and the user model to the same database.",
            id="jit_approval.E012",
        )


def _user_model() -> Iterator[CheckMessage]:
    user_model = get_user_model()
    missing = [name for name in _COLUMNS if not _is_column(user_model, name)]
    missing += [
        name for name, target in _RELATIONS.items() if _related(user_model, name) is not target
    ]
    if missing:
        yield Error(
            f"The user model {user_model._meta.label} lacks: {', '.join(missing)}.",
            hint="Derive it from PermissionsMixin and give it a BooleanField is_active.",
            id="jit_approval.E013",
        )


def _is_column(model: type[models.Model], name: str) -> bool:
    field = _field(model, name)
    return isinstance(field, models.Field) and field.column == name


def _related(model: type[models.Model], name: str) -> Any:
    field = _field(model, name)
    return field.related_model if isinstance(field, models.ManyToManyField) else None


def _field(model: type[models.Model], name: str) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        return None

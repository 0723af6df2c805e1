"""The Django application."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class JitApprovalConfig(AppConfig):
    """Registers the system checks and, after `migrate`, the schedules."""

    name = "jit_approval"
    verbose_name = _("Just-in-time approval")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what waits for a signal, and register the checks."""
        from jit_approval import checks, departures, erasure, membership, policy_changes
        from jit_approval.policies import receivers

        checks.register_all()
        receivers.connect()
        membership.connect()
        departures.connect()
        policy_changes.connect()
        erasure.connect()
        post_migrate.connect(_schedule, sender=self, dispatch_uid="jit_approval.schedule")
        post_migrate.connect(_protect, sender=self, dispatch_uid="jit_approval.appendonly")


def _schedule(*, using: str, **_: Any) -> None:
    from jit_approval import tasks

    tasks.ensure_schedule(using)


def _protect(*, using: str, plan: Any = (), **_: Any) -> None:
    """Make the trail's triggers anew where a migration of ours may have taken them: SQLite copies tables."""
    from django.db import connections

    from jit_approval import appendonly

    is_ours = any(migration.app_label == "jit_approval" for migration, _ in plan or ())
    connection = connections[using]
    if not is_ours or appendonly.is_lifted():
        return
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
    if set(appendonly.TABLES) <= set(tables) and appendonly.missing(connection):
        appendonly.install(connection)

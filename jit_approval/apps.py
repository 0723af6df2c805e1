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
        from jit_approval import checks, departures, membership, policy_changes
        from jit_approval.policies import receivers

        checks.register_all()
        receivers.connect()
        membership.connect()
        departures.connect()
        policy_changes.connect()
        post_migrate.connect(_schedule, sender=self, dispatch_uid="jit_approval.schedule")


def _schedule(*, using: str, **_: Any) -> None:
    from jit_approval import tasks

    tasks.ensure_schedule(using)

"""Who sweeps, and on the admin's front page whatever `health` finds: deadlines unrecorded, people not told."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib import admin, messages
from django.db import Error, transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from jit_approval import health, policies
from jit_approval.admin import access
from jit_approval.admin.trail import ReadOnlyAdmin
from jit_approval.health import Level
from jit_approval.models import Heartbeat

logger = logging.getLogger(__name__)

_VIEW = "jit_approval.view_heartbeat"
_ASKED = "_jit_approval_health_asked"
_LEVELS = {Level.WARNING: messages.WARNING, Level.CRITICAL: messages.ERROR}


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """Signs of life, the newest first. Nothing is edited."""

    list_display = ("at", "kind", "host", "pid", "started_at", "sweeps", "counts", "late")
    list_select_related = ()  # type: ignore[assignment]
    ordering = ("-at",)

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Return what the user may do; while the front page is made, say on it what is not as it should be."""
        # The front page has no hook of its own, and a template of ours would be shadowed by the admin's wherever
        # that is installed first.
        match = request.resolver_match
        if match is not None and match.view_name == f"{self.admin_site.name}:index":
            _say(request)
        return super().get_model_perms(request)

    @admin.display(description=_("worst lateness (s)"))
    def late(self, row: Any) -> str:
        """Return the seconds from a deadline to its record, at worst, of the last sweep that had any."""
        return "" if row.lateness is None else f"{row.lateness:.2f}"


def _say(request: HttpRequest) -> None:
    """Add a message for each trouble, once; to those who may see all calls, or who sweeps."""
    if getattr(request, _ASKED, False):
        return
    setattr(request, _ASKED, True)
    user: Any = request.user
    if not (access.sees_all(user) or user.has_perm(_VIEW)):
        return
    try:
        # Under ATOMIC_REQUESTS an error must not spoil the page's own transaction.
        with transaction.atomic(using=policies.database()):
            troubles = health.report().troubles
    except Error as error:
        logger.warning("The admin's front page cannot say how the approvals are: %s", error)
        return
    for finding in troubles:
        text = f"{finding.message} {finding.hint}".strip()
        messages.add_message(request, _LEVELS[finding.level], text, fail_silently=True)

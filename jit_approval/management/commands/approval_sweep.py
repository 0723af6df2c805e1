"""`manage.py approval_sweep`: one sweep now, for cron or by hand where no django-q2 cluster runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from jit_approval import tasks


class Command(BaseCommand):
    """Runs `tasks.sweep_here` in this process and says what it did."""

    help = _("Expire what is overdue, close runs without an end, send what was not sent. Once.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print how many of each."""
        counts = tasks.sweep_here()
        self.stdout.write(" ".join(f"{name}={count}" for name, count in counts.items()))

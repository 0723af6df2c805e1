"""That somebody still looks after deadlines: one row per process that sweeps, renewed while it lives."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Heartbeat(models.Model):
    """The last sign of life of one process that sweeps. Old ones are removed by whoever sweeps next."""

    class Kind(models.TextChoices):
        """What made the process sweep."""

        CLOCK = "clock", _("clock")
        SCHEDULE = "schedule", _("schedule")

    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    host = models.CharField(_("host"), max_length=200)
    pid = models.PositiveBigIntegerField(_("process"))
    # By the database's clock, as everything that is compared.
    started_at = models.DateTimeField(_("started at"))
    at = models.DateTimeField(_("last seen at"))
    # Since `started_at`: sweeps, and by name what they did.
    sweeps = models.PositiveBigIntegerField(_("sweeps"), default=0)
    counts = models.JSONField(_("counts"), default=dict)
    # Seconds from a deadline to its being recorded: the worst of the last sweep that recorded any.
    lateness = models.FloatField(_("lateness"), null=True)

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")
        ordering = ("-at",)
        constraints = [
            models.UniqueConstraint(fields=["kind", "host", "pid"], name="jit_heartbeat_once"),
        ]

    def __str__(self) -> str:
        """Return which process it is."""
        return f"{self.kind} {self.host}:{self.pid}"

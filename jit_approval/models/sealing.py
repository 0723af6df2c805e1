"""Which place each event has in the signed trail, and what was signed of it."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval.models.trail import AuditEvent


class TreeHead(models.Model):
    """How far the trail is sealed: one row. It moves on by a conditional UPDATE on `size` alone."""

    # Always 1: there is one trail.
    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    size = models.PositiveBigIntegerField(_("events"), default=0)
    # Where to begin to look for what is not sealed. It saves work, and is not believed: see audit/marks.py.
    settled = models.BigIntegerField(default=0)
    # Whoever seals says so, lest others try in vain; nothing depends on it. See audit/leases.py.
    leased_until = models.DateTimeField(null=True)
    leased_by = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name = _("tree head")
        verbose_name_plural = _("tree heads")

    def __str__(self) -> str:
        """Return how far it is."""
        return f"{self.size}"


class Seal(models.Model):
    """The place of one event in the tree, with the hashes of the subtrees that it completes."""

    index = models.PositiveBigIntegerField(primary_key=True)
    # Sealed once: whoever seals it a second time fails.
    event = models.OneToOneField(AuditEvent, on_delete=models.PROTECT, related_name="seal")
    # 32 bytes for each level, the leaf's own first: any proof is made of a few of these rows.
    nodes = models.BinaryField()

    class Meta:
        verbose_name = _("seal")
        verbose_name_plural = _("seals")

    def __str__(self) -> str:
        """Return the place."""
        return f"{self.index}"


class Checkpoint(models.Model):
    """One statement of the signer: a checkpoint, or the name of the next key. Never changed."""

    class Kind(models.TextChoices):
        """What is stated."""

        CHECKPOINT = "checkpoint", _("checkpoint")
        ROTATION = "rotation", _("new key")

    # From 0. A second one of the same number fails, whoever signed it.
    number = models.PositiveBigIntegerField(primary_key=True)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    size = models.PositiveBigIntegerField(_("events"))
    at = models.DateTimeField(_("at"))
    note = models.TextField(_("signed note"))

    class Meta:
        verbose_name = _("checkpoint")
        verbose_name_plural = _("checkpoints")
        ordering = ("number",)

    def __str__(self) -> str:
        """Return how far it goes, and when."""
        return f"{self.size} {self.at:%Y-%m-%d %H:%M:%S}"


class TrailTask(models.Model):
    """A standing task of the trail: to seal it, to write it to a directory, to send it somewhere, to verify it.

    How far it is, and what stands in its way. Nobody's permission depends on it.
    """

    # `sealer`, `directory`, `verifier`; `webhook:` and `log:` with what tells one target from another.
    name = models.CharField(_("task"), max_length=100, primary_key=True)
    # Of a target, what is next: the statement, and of the events before it the place, moved on only together.
    statement = models.PositiveBigIntegerField(_("next statement"), default=0)
    index = models.PositiveBigIntegerField(_("next event"), default=0)
    # Of a target that has events before they are sealed: all up to this key were sent, but for `gaps`, the keys
    # that were not there then, and when that was: who took one may commit late. See streaming/early.py.
    early = models.BigIntegerField(default=0)
    gaps = models.JSONField(default=list)
    done_at = models.DateTimeField(_("last done at"), null=True)
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    failing_since = models.DateTimeField(_("failing since"), null=True)
    error = models.TextField(_("error"), blank=True)
    # Nobody tries again before this, nor while somebody else is at it.
    retry_at = models.DateTimeField(_("next attempt"), null=True)
    claimed_until = models.DateTimeField(null=True)
    claimed_by = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name = _("task of the trail")
        verbose_name_plural = _("tasks of the trail")

    def __str__(self) -> str:
        """Return its name."""
        return self.name


class Verification(models.Model):
    """What came out when the trail in this database was verified. Who writes to the database can write this too."""

    class Source(models.TextChoices):
        """Who verified."""

        COMMAND = "command", _("by hand")
        SCHEDULE = "schedule", _("by the clock")

    source = models.CharField(_("verified"), max_length=10, choices=Source.choices)
    # By the database's clock, when it began: what happened later was not looked at.
    at = models.DateTimeField(_("at"))
    # As the exit status of `approval_audit verify`.
    status = models.PositiveSmallIntegerField(_("status"))
    events = models.PositiveBigIntegerField(_("events"), default=0)
    verified = models.PositiveBigIntegerField(_("verified"), default=0)
    erased = models.PositiveBigIntegerField(_("erased"), default=0)
    # Of the last checkpoint that was verified; NULL where none was.
    checkpoint_at = models.DateTimeField(_("checkpoint"), null=True)
    root = models.CharField(max_length=64, blank=True)
    # Whether keys were given, or that in use was trusted; and whether a checkpoint kept elsewhere was.
    key_given = models.BooleanField(default=False)
    truncation_checked = models.BooleanField(default=False)
    first = models.TextField(_("first finding"), blank=True)

    class Meta:
        verbose_name = _("verification")
        verbose_name_plural = _("verifications")
        ordering = ("-id",)

    def __str__(self) -> str:
        """Return when, and what came out."""
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.status}"

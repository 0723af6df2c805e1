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
    # Every event up to this key is sealed; those that commit late have a higher one. See audit/places.py.
    settled = models.BigIntegerField(default=0)
    # The next `settled`, once everybody who was writing at `candidate_at` has long ended.
    candidate = models.BigIntegerField(default=0)
    candidate_at = models.DateTimeField(null=True)
    # Whoever seals says so, lest others try in vain; nothing depends on it.
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

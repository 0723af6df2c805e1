"""What a policy said, and when; and what it shall say once another person agrees."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval.models.policy import ApprovalPolicy
from jit_approval.models.request import ApprovalRequest


class PolicyVersion(models.Model):
    """One numbered state of a policy, its deciders included, with who made it so, when and why."""

    # A policy that never held a call may be deleted; what it said stays.
    policy = models.ForeignKey(
        ApprovalPolicy,
        verbose_name=_("policy"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="versions",
    )
    slug = models.CharField(_("slug"), max_length=100)
    number = models.PositiveIntegerField(_("version"))
    at = models.DateTimeField(_("at"))
    # NULL and no label: changed past the admin and the command.
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("by"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    author_label = models.CharField(_("by"), max_length=254, blank=True)
    reason = models.TextField(_("why"), blank=True)
    # As `versions.snapshot` makes it.
    data = models.JSONField(default=dict)

    class Meta:
        verbose_name = _("policy version")
        verbose_name_plural = _("policy versions")
        ordering = ("policy", "-number")
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="jit_version_once"),
        ]

    def __str__(self) -> str:
        """Return the policy and the number."""
        return f"{self.slug} v{self.number}"


class PolicyChange(models.Model):
    """A change of policies that waits for another person's approval; then it is made, once."""

    approval_request = models.OneToOneField(
        ApprovalRequest, on_delete=models.PROTECT, related_name="policy_change"
    )
    # Snapshots by slug: as it was when the change was proposed, and as the change makes it. None: no policy.
    base = models.JSONField(default=dict)
    proposed = models.JSONField(default=dict)
    applied_at = models.DateTimeField(_("applied at"), null=True)

    class Meta:
        verbose_name = _("policy change")
        verbose_name_plural = _("policy changes")

    def __str__(self) -> str:
        """Return the policies it is about."""
        return ", ".join(sorted(self.proposed))

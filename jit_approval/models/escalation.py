"""What happens on silence: the steps of a policy, and who may decide a request because one was taken."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval import conf
from jit_approval.models.channel import Channel
from jit_approval.models.policy import ApprovalPolicy
from jit_approval.models.request import ApprovalRequest
from jit_approval.models.validators import validate_addresses


def validate_after(value: timedelta) -> None:
    """Refuse a step at the very beginning, or after the longest window there is."""
    if not conf.MIN_WINDOW <= value < conf.MAX_WINDOW:
        raise ValidationError(_("A step comes 1 second to 30 days after the call."), code="after")


class EscalationStep(models.Model):
    """If nobody has decided by then: whom to tell, where, and whether they may decide from then on."""

    policy = models.ForeignKey(ApprovalPolicy, on_delete=models.CASCADE, related_name="steps")
    after = models.DurationField(
        _("after"),
        null=True,
        blank=True,
        validators=[validate_after],
        help_text=_("Since the call was held. hh:mm:ss"),
    )
    share = models.PositiveSmallIntegerField(
        _("or at percent"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(99)],
        help_text=_("Of the time to decide: 50 is half of it."),
    )
    deciders = models.BooleanField(
        _("deciders again"), default=False, help_text=_("Those who have not decided yet.")
    )
    users = models.ManyToManyField(
        settings.AUTH_USER_MODEL, verbose_name=_("users"), blank=True, related_name="+"
    )
    groups = models.ManyToManyField(Group, verbose_name=_("groups"), blank=True, related_name="+")
    addresses = models.TextField(
        _("addresses"),
        blank=True,
        validators=[validate_addresses],
        help_text=_("E-mail, one per line."),
    )
    channels = models.ManyToManyField(
        Channel, verbose_name=_("channels"), blank=True, related_name="steps"
    )
    may_decide = models.BooleanField(
        _("may decide from then on"),
        default=False,
        help_text=_("The users and the members of the groups; the quorum stays as it is."),
    )

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps on silence")
        ordering = ("policy", "id")
        constraints = [
            models.CheckConstraint(
                condition=(
                    models.Q(after__isnull=False, share__isnull=True)
                    | models.Q(after__isnull=True, share__isnull=False)
                ),
                name="jit_step_has_one_moment",
            ),
            models.CheckConstraint(
                condition=models.Q(share__isnull=True) | models.Q(share__range=(1, 99)),
                name="jit_step_share_lies_within",
            ),
        ]

    def __str__(self) -> str:
        """Return when it is taken."""
        return f"{self.share} %" if self.share is not None else str(self.after)

    def clean(self) -> None:
        """Ask for one moment, in words."""
        if (self.after is None) == (self.share is None):
            raise ValidationError(_("Say when: after a time, or at a share of the time to decide."))


class EscalatedDecider(models.Model):
    """May decide this request because a step of its ladder was taken. Who is in the group is read live."""

    approval_request = models.ForeignKey(
        ApprovalRequest, on_delete=models.PROTECT, related_name="escalated_deciders"
    )
    step = models.PositiveSmallIntegerField(_("step"))
    # One of the two. With the account, or the group, its authority goes; the audit event stays.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="+"
    )
    group = models.ForeignKey(Group, null=True, on_delete=models.CASCADE, related_name="+")

    class Meta:
        verbose_name = _("escalated decider")
        verbose_name_plural = _("escalated deciders")
        constraints = [
            models.CheckConstraint(
                condition=(
                    models.Q(user__isnull=False, group__isnull=True)
                    | models.Q(user__isnull=True, group__isnull=False)
                ),
                name="jit_escalated_user_or_group",
            ),
        ]

    def __str__(self) -> str:
        """Return who, and of which request."""
        return f"{self.user or self.group}: {self.approval_request_id}"

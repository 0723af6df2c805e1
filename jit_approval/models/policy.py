"""Which actions need whose approval, how many, and for how long it holds."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase

from jit_approval import conf


def validate_window(value: timedelta) -> None:
    """Refuse a window shorter than one second or longer than thirty days."""
    if not conf.MIN_WINDOW <= value <= conf.MAX_WINDOW:
        raise ValidationError(_("A window lies between 1 second and 30 days."), code="window")


def validate_globs(value: str) -> None:
    """Refuse an empty list of actions, and globs that cannot match an action label."""
    globs = value.split("\n")
    if not any(glob.strip() for glob in globs):
        raise ValidationError(_("Name at least one action, for example customers.*"), code="empty")
    for glob in globs:
        if len(glob.split()) > 1:
            raise ValidationError(
                _("One action per line; %(glob)r has a space in it."),
                code="glob",
                params={"glob": glob},
            )


class ApprovalPolicy(models.Model):
    """A rule of the security team. The first enabled one that matches, by (priority, id), wins."""

    name = models.CharField(_("name"), max_length=200)
    slug = models.SlugField(_("slug"), max_length=100, unique=True)
    description = models.TextField(_("description"), blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    priority = models.IntegerField(
        _("priority"), default=100, help_text=_("The lowest number is asked first.")
    )
    actions = models.TextField(
        _("actions"),
        validators=[validate_globs],
        help_text=_("One per line; * and ? are wildcards: customers.destroy, transfers.*"),
    )
    required_approvals = models.PositiveSmallIntegerField(
        _("required approvals"), default=1, validators=[MinValueValidator(1)]
    )
    decide_within = models.DurationField(
        _("decide within"),
        default=timedelta(minutes=15),
        validators=[validate_window],
        help_text=_("How long a held call waits for a decision. hh:mm:ss"),
    )
    usable_within = models.DurationField(
        _("usable within"),
        default=timedelta(minutes=5),
        validators=[validate_window],
        help_text=_("How long an approval may be used, from the moment it is given. hh:mm:ss"),
    )
    rejection_cooldown = models.DurationField(
        _("rejection cool-down"),
        default=timedelta(minutes=5),
        help_text=_("How long the same requester may not ask again for the same object."),
    )
    require_reason = models.BooleanField(
        _("require a reason"),
        default=False,
        help_text=_("Refuse calls without a meaningful Approval-Reason header."),
    )
    version = models.PositiveIntegerField(_("version"), default=0, editable=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    updated_at = models.DateTimeField(_("updated at"), auto_now=True)

    class Meta:
        verbose_name = _("approval policy")
        verbose_name_plural = _("approval policies")
        ordering = ("priority", "id")
        permissions = [("decide", _("Can decide approval requests"))]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(required_approvals__gte=1),
                name="jit_policy_at_least_one_approval",
            ),
        ]
        indexes = [
            # The match: enabled policies in the order they are asked.
            models.Index(fields=["enabled", "priority", "id"], name="jit_policy_match"),
        ]

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save as a new version: requests remember under which one they were opened."""
        self.version += 1
        if kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {*kwargs["update_fields"], "version", "updated_at"}
        super().save(*args, **kwargs)

    def names(self, action: str) -> bool:
        """Tell whether one of the globs matches the action label, case and all."""
        globs = (line.strip() for line in self.actions.split("\n"))
        return any(fnmatchcase(action, glob) for glob in globs if glob)


class PolicyUserPermission(UserObjectPermissionBase):
    """A user who may decide, change or view one policy's requests (guardian, direct foreign key)."""

    content_object = models.ForeignKey(ApprovalPolicy, on_delete=models.CASCADE)

    class Meta(UserObjectPermissionBase.Meta):
        verbose_name = _("policy permission of a user")
        verbose_name_plural = _("policy permissions of users")


class PolicyGroupPermission(GroupObjectPermissionBase):
    """A group whose members may decide, change or view one policy's requests."""

    content_object = models.ForeignKey(ApprovalPolicy, on_delete=models.CASCADE)

    class Meta(GroupObjectPermissionBase.Meta):
        verbose_name = _("policy permission of a group")
        verbose_name_plural = _("policy permissions of groups")

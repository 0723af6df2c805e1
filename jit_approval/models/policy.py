"""Which actions need whose approval, how many, and for how long it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from fnmatch import translate
from functools import lru_cache

from django.contrib.auth.models import Group
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from guardian.models import GroupObjectPermissionBase, UserObjectPermissionBase

from jit_approval import conf
from jit_approval.models.channel import Channel
from jit_approval.models.validators import (
    validate_addresses,
    validate_condition,
    validate_cooldown,
    validate_globs,
    validate_object_permission,
    validate_pattern,
    validate_wait,
    validate_window,
)
from jit_approval.states import Effect, Execution, Severity


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
    effect = models.CharField(
        _("effect"), max_length=10, choices=Effect.choices, default=Effect.REQUIRE
    )
    condition = models.TextField(
        _("condition"),
        blank=True,
        validators=[validate_condition],
        help_text=_(
            'CEL; empty means always: request.data.amount > 10000 && !("treasury" in user.groups)'
        ),
    )
    severity = models.CharField(
        _("severity"), max_length=10, choices=Severity.choices, default=Severity.NORMAL
    )
    execution = models.CharField(
        _("run by"),
        max_length=10,
        choices=Execution.choices,
        default=Execution.CALLER,
        help_text=_(
            "The server keeps the call encrypted until it is decided, which needs SECRET_KEYS; "
            "what it cannot keep, the requester repeats."
        ),
    )
    required_approvals = models.PositiveSmallIntegerField(
        _("required approvals"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(conf.MAX_APPROVALS)],
        help_text=_("Distinct persons in all, those of the groups below among them."),
    )
    object_permission = models.CharField(
        _("permission on the object"),
        max_length=200,
        blank=True,
        validators=[validate_object_permission],
        help_text=_(
            "Who holds it on the very object that is called may decide too: bank.approve_account"
        ),
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
        validators=[validate_cooldown],
        help_text=_("How long the same requester may not ask again for the same object."),
    )
    max_wait = models.DurationField(
        _("wait on the line"),
        default=conf.MAX_ON_THE_LINE,
        validators=[validate_wait],
        help_text=_(
            "How long a caller that asks to wait is kept on the line at most; the setting MAX_WAIT, 0 unless "
            "set, may be shorter. 0: never. hh:mm:ss"
        ),
    )
    require_reason = models.BooleanField(
        _("require a reason"),
        default=False,
        help_text=_("Refuse calls without a meaningful Approval-Reason header."),
    )
    reason_pattern = models.CharField(
        _("reason pattern"),
        max_length=200,
        blank=True,
        validators=[validate_pattern],
        help_text=_(r"The reason must contain this regular expression: \b(INC|CHG)-\d{4,}\b"),
    )
    require_approval_id = models.BooleanField(
        _("require the approval id"),
        default=False,
        help_text=_("The repeated call runs only if its Approval-Id header names the approval."),
    )
    fallback = models.TextField(
        _("fallback"),
        blank=True,
        validators=[validate_addresses],
        help_text=_("E-mail addresses, one per line, told when nobody is left who could decide."),
    )
    channels = models.ManyToManyField(
        Channel,
        verbose_name=_("channels"),
        blank=True,
        related_name="policies",
        help_text=_(
            "Who is told here. With none, or none that is enabled: each decider by e-mail."
        ),
    )
    # Kept for its requests, out of force for good.
    archived = models.BooleanField(_("archived"), default=False, editable=False)
    # The number of the newest `PolicyVersion`; `versions.record` alone advances it.
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
            models.CheckConstraint(
                condition=models.Q(archived=False) | models.Q(enabled=False),
                name="jit_policy_archived_is_out_of_force",
            ),
        ]
        indexes = [
            # The match: enabled policies in the order they are asked.
            models.Index(fields=["enabled", "priority", "id"], name="jit_policy_match"),
        ]

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def names(self, action: str) -> bool:
        """Tell whether one of the globs matches the action label, case and all."""
        return matcher(self.actions)(action)

    @property
    def globs(self) -> list[str]:
        """The action globs, one per line of `actions`."""
        return _globs(self.actions)


def _globs(actions: str) -> list[str]:
    return [line.strip() for line in actions.split("\n") if line.strip()]


@lru_cache(maxsize=4096)
def matcher(actions: str) -> Callable[[str], bool]:
    """Return what tells whether a label is named by one of the globs, one per line. As `fnmatch.fnmatchcase`."""
    pattern = re.compile("|".join(f"(?:{translate(glob)})" for glob in _globs(actions)) or r"(?!)")
    return lambda action: pattern.match(action) is not None


class PolicyGroupRequirement(models.Model):
    """So many of a policy's approvals must come from members of this group. One person fills one place."""

    policy = models.ForeignKey(
        ApprovalPolicy, on_delete=models.CASCADE, related_name="group_requirements"
    )
    # A group that vanished would lower the bar: it stays while a policy counts on it.
    group = models.ForeignKey(Group, on_delete=models.PROTECT, related_name="+")
    count = models.PositiveSmallIntegerField(
        _("approvals"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(conf.MAX_APPROVALS)],
    )

    class Meta:
        verbose_name = _("group requirement")
        verbose_name_plural = _("group requirements")
        ordering = ("group__name", "id")
        constraints = [
            models.UniqueConstraint(fields=["policy", "group"], name="jit_requirement_once"),
            models.CheckConstraint(
                condition=models.Q(count__gte=1), name="jit_requirement_at_least_one"
            ),
        ]

    def __str__(self) -> str:
        """Return the count and the group."""
        return f"{self.count} of {self.group}"


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

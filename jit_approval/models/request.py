"""One held call."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import Execution, Outcome, Severity, Status, Verdict

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

    from jit_approval.models.trail import Decision

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class ApprovalRequest(models.Model):
    """A call that waits, waited, or ran. Only `services` writes `status`, and only by one UPDATE."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(
        _("status"), max_length=10, choices=Status.choices, default=Status.PENDING
    )
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome.choices, blank=True)
    response_status = models.PositiveSmallIntegerField(_("response status"), null=True)
    exception = models.CharField(_("exception class"), max_length=200, blank=True)

    # What the approval is bound to.
    action = models.CharField(_("action"), max_length=200)
    fingerprint = models.CharField(_("fingerprint"), max_length=64)
    # The fingerprint while open, NULL when closed: one open request per call, on every database.
    open_key = models.CharField(  # noqa: DJ001 - NULLs are what a unique column may repeat
        max_length=64, null=True, editable=False
    )
    parts = models.JSONField(default=dict, editable=False)
    state_digest = models.CharField(max_length=64, editable=False)
    state_parts = models.JSONField(default=dict, editable=False)
    idempotent = models.BooleanField(default=False, editable=False)

    # Who asks. The label and persons stay when the account is deleted.
    requester = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("requester"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
    )
    requester_label = models.CharField(_("requester"), max_length=254)
    requester_person = models.CharField(max_length=254, editable=False)
    persons = models.JSONField(default=list, editable=False)
    credential = models.CharField(_("credential kind"), max_length=200, blank=True)

    # The terms, pinned when the request opened.
    policy = models.ForeignKey(
        "jit_approval.ApprovalPolicy",
        verbose_name=_("policy"),
        null=True,
        on_delete=models.PROTECT,
        related_name="approval_requests",
        db_index=False,
    )
    policy_slug = models.CharField(_("policy"), max_length=100, blank=True)
    policy_version = models.PositiveIntegerField(default=0)
    required_approvals = models.PositiveSmallIntegerField(_("required approvals"), default=1)
    # [[group's key, name, count], …]: so many of the approvals come from its members.
    group_requirements = models.JSONField(default=list, editable=False)
    # Key and name of the permission whose holders on the object itself may decide too.
    object_permission = models.BigIntegerField(null=True, editable=False)
    object_permission_label = models.CharField(max_length=200, blank=True, editable=False)
    require_approval_id = models.BooleanField(default=False, editable=False)
    severity = models.CharField(
        _("severity"), max_length=10, choices=Severity.choices, default=Severity.NORMAL
    )
    execution = models.CharField(
        _("run by"), max_length=10, choices=Execution.choices, default=Execution.CALLER
    )
    # Votes cannot be counted by SQL alone: groups are to be represented, or a stand-in has voted.
    weighed = models.BooleanField(default=False, editable=False)
    # [{"after": ms, "deciders": true, "users": [key, …], …}, …]: see `policies.ladder`.
    ladder = models.JSONField(default=list, editable=False)
    usable_within = models.DurationField(_("usable within"))
    rejection_cooldown = models.DurationField()
    max_wait = models.DurationField(default=timedelta(0), editable=False)

    # Times, by the database clock.
    created_at = models.DateTimeField(_("asked at"))
    decide_by = models.DateTimeField(_("decide by"))
    decided_at = models.DateTimeField(_("decided at"), null=True)
    usable_until = models.DateTimeField(_("usable until"), null=True)
    consumed_at = models.DateTimeField(_("run at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    cooldown_until = models.DateTimeField(null=True)
    # The one deadline in force: `decide_by` while pending, `usable_until` while approved, the run
    # limit while running, NULL when nothing more can fall due.
    due_at = models.DateTimeField(null=True)

    # Steps of the ladder that were taken, and whether the end of the deadline in force was announced.
    steps_taken = models.PositiveSmallIntegerField(default=0, editable=False)
    warned = models.BooleanField(default=False, editable=False)
    # When people are to be told next, before the deadline in force; NULL when nothing is left to tell.
    wake_at = models.DateTimeField(null=True, editable=False)

    # What the decider is shown: escaped and redacted when written, never executed.
    method = models.CharField(_("method"), max_length=32)
    path = models.TextField(_("path"))
    object_model = models.CharField(max_length=200, blank=True)
    object_pk = models.CharField(max_length=200, blank=True)
    object_label = models.CharField(_("object"), max_length=200, blank=True)
    payload = models.TextField(_("payload"), blank=True)
    payload_truncated = models.BooleanField(default=False)
    context = models.JSONField(_("context"), default=dict)
    reason = models.TextField(_("reason"), blank=True)
    ip = models.CharField(_("address"), max_length=64, blank=True)
    user_agent = models.CharField(_("user agent"), max_length=300, blank=True)
    # Who acts for the requester: a claim, unless the credential proved it.
    agent = models.CharField(_("agent"), max_length=200, blank=True)
    agent_proven = models.BooleanField(default=False, editable=False)

    # Head of this request's audit chain; every write of status compares and advances it.
    audit_seq = models.PositiveIntegerField(default=0, editable=False)
    audit_head = models.CharField(max_length=64, default="", editable=False)

    # Set by `with_now()`.
    now: datetime
    objects: ClassVar[ApprovalRequestQuerySet] = ApprovalRequestQuerySet.as_manager()  # type: ignore[assignment]

    if TYPE_CHECKING:
        decisions: RelatedManager[Decision]

    class Meta:
        verbose_name = _("approval request")
        verbose_name_plural = _("approval requests")
        ordering = ("-created_at",)
        constraints = [
            # Not `unique=True`, for which PostgreSQL gets a second index that nothing here reads.
            models.UniqueConstraint(fields=["open_key"], name="jit_request_one_open_per_call"),
        ]
        indexes = [
            # The gate: the newest request for this very call.
            models.Index(fields=["fingerprint", "created_at"], name="jit_request_call"),
            # Limits: open ones of a requester, and rejections still cooling down.
            models.Index(
                fields=["requester", "status", "cooldown_until"], name="jit_request_requester"
            ),
            # Limits: openings over time, per requester and per policy.
            models.Index(fields=["requester", "created_at"], name="jit_request_openings"),
            models.Index(fields=["policy", "created_at"], name="jit_request_policy"),
            # The sweeper and the inbox: what falls due, soonest first.
            models.Index(fields=["due_at"], name="jit_request_due"),
            # The sweeper: steps of ladders, and ends to be announced.
            models.Index(fields=["wake_at"], name="jit_request_wake"),
            # Health and the inbox: runs whose outcome nobody knows.
            models.Index(fields=["outcome", "finished_at"], name="jit_request_outcome"),
        ]

    def __str__(self) -> str:
        """Return action, object and match code, as a decider would say it."""
        return f"{self.action} {self.object_label} [{self.match_code}]".replace("  ", " ")

    @property
    def match_code(self) -> str:
        """Four letters to compare by voice or eye: Crockford base 32 of SHA-256(id), 20 bits.

        It tells two requests apart for people; it is no secret.
        """
        number = int.from_bytes(hashlib.sha256(str(self.pk).encode()).digest()[:3], "big") >> 4
        return "".join(_CROCKFORD[(number >> shift) & 31] for shift in (15, 10, 5, 0))

    @property
    def approvals_given(self) -> int:
        """Number of persons who have approved so far."""
        return sum(decision.verdict == Verdict.APPROVE for decision in self.decisions.all())

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether the deadline in force has passed at `now`, the database's time."""
        return self.due_at is not None and self.due_at <= now

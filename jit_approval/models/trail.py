"""What was decided, what happened, and whom to tell."""

from __future__ import annotations

from django.conf import settings
from django.db import models, router
from django.utils.translation import gettext_lazy as _

from jit_approval.models.request import ApprovalRequest
from jit_approval.states import Verdict


class DecisionManager(models.Manager["Decision"]):
    """Reads decisions where they are written: `approval_request.decisions` would ask a router's replica."""

    def get_queryset(self) -> models.QuerySet[Decision]:
        """Return all decisions, in the writing database."""
        return super().get_queryset().using(router.db_for_write(self.model))


class Decision(models.Model):
    """One person's verdict on one request. Never changed, never withdrawn."""

    approval_request = models.ForeignKey(
        ApprovalRequest, on_delete=models.PROTECT, related_name="decisions", db_index=False
    )
    decider = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("decider"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    decider_label = models.CharField(_("decider"), max_length=254)
    person = models.CharField(max_length=254, editable=False)
    verdict = models.CharField(_("verdict"), max_length=10, choices=Verdict.choices)
    comment = models.TextField(_("comment"), blank=True)
    # Names of those on whose authority a stand-in voted; empty where the decider's own sufficed.
    on_behalf_of = models.JSONField(_("on behalf of"), default=list)
    # Persons tied to the decider by a delegation at that moment: of such a pair, one counts.
    linked = models.JSONField(default=list, editable=False)
    created_at = models.DateTimeField(_("decided at"))

    objects = DecisionManager()

    class Meta:
        verbose_name = _("decision")
        verbose_name_plural = _("decisions")
        ordering = ("created_at", "id")
        constraints = [
            # One vote per person; its index also serves a request's votes.
            models.UniqueConstraint(
                fields=["approval_request", "person"], name="jit_decision_one_per_person"
            ),
        ]

    def __str__(self) -> str:
        """Return who decided what."""
        return f"{self.decider_label}: {self.verdict}"


class AuditEvent(models.Model):
    """One thing that happened to a request, chained to the one before by hash.

    `body` is the canonical JSON (RFC 8785) whose SHA-256, after `previous_hash`, is `hash`. What happened
    outside any request (a call allowed or denied by policy, a policy changed) is a chain of one.
    """

    approval_request = models.ForeignKey(
        ApprovalRequest,
        null=True,
        on_delete=models.PROTECT,
        related_name="audit_events",
        db_index=False,
    )
    sequence = models.PositiveIntegerField(_("number"))
    kind = models.CharField(_("event"), max_length=32)
    at = models.DateTimeField(_("at"))
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("by"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    actor_label = models.CharField(_("by"), max_length=254, blank=True)
    source = models.CharField(_("from"), max_length=10, blank=True)
    target = models.CharField(_("to"), max_length=10, blank=True)
    body = models.TextField(_("body"))
    # From where, as the body's `by.origin` commits to it: see audit/origins.py. Empty where nothing was known.
    origin = models.TextField(_("from where"), blank=True, default="")
    previous_hash = models.CharField(max_length=64, blank=True)
    hash = models.CharField(max_length=64)

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ("id",)
        permissions = (("erase_auditevent", _("Can erase contents of the audit trail")),)
        constraints = [
            models.UniqueConstraint(
                fields=["approval_request", "sequence"], name="jit_audit_one_per_number"
            ),
        ]
        # The list of events, page by page, by time alone, by kind, by account: streaming/selecting.py.
        indexes = [
            models.Index(fields=["at", "id"], name="jit_audit_time"),
            models.Index(fields=["kind", "at", "id"], name="jit_audit_kind"),
            models.Index(fields=["actor_label", "at", "id"], name="jit_audit_actor"),
        ]

    def __str__(self) -> str:
        """Return the kind and number."""
        return f"{self.sequence} {self.kind}"


class Notification(models.Model):
    """The outbox. A row without recipient stands for one transition; the worker makes one per recipient."""

    class State(models.TextChoices):
        """Where a message stands."""

        WAITING = "waiting", _("waiting")
        SENT = "sent", _("sent")
        FAILED = "failed", _("failed")
        # The request moved on before anybody was told, so there was nothing left to tell.
        DROPPED = "dropped", _("not needed any more")

    class Event(models.TextChoices):
        """What a message tells."""

        HELD = "held", _("held")
        REMINDER = "reminder", _("reminder")
        ESCALATED = "escalated", _("escalated")
        EXPIRING = "expiring", _("expiring soon")
        DECIDED = "decided", _("decided")
        EXPIRED = "expired", _("expired")
        CANCELLED = "cancelled", _("cancelled")
        REVOKED = "revoked", _("revoked")
        CONSUMED = "consumed", _("consumed")
        UNKNOWN = "unknown", _("outcome unknown")
        UNAVAILABLE = "unavailable", _("nobody could decide")

    # NULL: about no request, for none could be opened; `facts` says what happened.
    approval_request = models.ForeignKey(
        ApprovalRequest,
        null=True,
        on_delete=models.PROTECT,
        related_name="notifications",
        db_index=False,
    )
    facts = models.JSONField(default=dict)
    event = models.CharField(_("event"), max_length=12, choices=Event.choices)
    # Which, where an event may come more than once: the step of the ladder; 1 for the end of an approval.
    occasion = models.PositiveSmallIntegerField(_("occasion"), default=0)
    # "" on the outbox row itself, "*" for a whole channel, else the user's primary key, or a bare address.
    recipient = models.CharField(_("recipient"), max_length=254, blank=True)
    address = models.CharField(_("address"), max_length=254, blank=True)
    # "email", or the slug of a `Channel`.
    channel = models.CharField(_("channel"), max_length=50, blank=True)
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.WAITING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    error = models.TextField(_("error"), blank=True)
    created_at = models.DateTimeField(_("created at"))
    # Nobody sends before this. Whoever sends moves it on first: that is the claim on the row.
    next_attempt_at = models.DateTimeField(_("next attempt"))
    sent_at = models.DateTimeField(_("sent at"), null=True)

    class Meta:
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        ordering = ("id",)
        constraints = [
            # A doubled task tells nobody twice.
            models.UniqueConstraint(
                fields=["approval_request", "event", "occasion", "recipient", "channel"],
                name="jit_notification_told_once",
            ),
        ]
        indexes = [
            # The sweeper: what is still to be sent.
            models.Index(fields=["state", "next_attempt_at"], name="jit_notification_waiting"),
        ]

    def __str__(self) -> str:
        """Return the event and whom it is for."""
        return f"{self.event} → {self.recipient or '*'}"

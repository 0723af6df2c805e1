"""A call that the server runs itself: what is kept of it until it is decided, and of its answer afterwards."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from jit_approval.models.request import ApprovalRequest


class StoredCall(models.Model):
    """The very bytes that are bound, encrypted, for as long as they may still run.

    The row goes in the transaction that spends the approval, or ends it otherwise: what is not here cannot be
    run, and what ran is not here.
    """

    approval_request = models.OneToOneField(
        ApprovalRequest, primary_key=True, on_delete=models.CASCADE, related_name="+"
    )
    # Bound to the request's id; the keys are in the settings, never here.
    sealed = models.TextField(editable=False)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    # NULL until it is approved. Who runs it moves it on first: that is the claim on the row.
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True)

    class Meta:
        verbose_name = _("stored call")
        verbose_name_plural = _("stored calls")
        indexes = [
            # The sweeper: approved calls that nobody has run.
            models.Index(fields=["next_attempt_at"], name="jit_call_due"),
        ]

    def __str__(self) -> str:
        """Return the id of its request."""
        return str(self.pk)


class StoredAnswer(models.Model):
    """What the view answered, encrypted, for the requester to fetch until it is deleted."""

    approval_request = models.OneToOneField(
        ApprovalRequest, primary_key=True, on_delete=models.CASCADE, related_name="+"
    )
    sealed = models.TextField(editable=False)
    delete_at = models.DateTimeField(_("delete at"))

    class Meta:
        verbose_name = _("stored answer")
        verbose_name_plural = _("stored answers")
        indexes = [
            # The sweeper: answers whose time is over.
            models.Index(fields=["delete_at"], name="jit_answer_over"),
        ]

    def __str__(self) -> str:
        """Return the id of its request."""
        return str(self.pk)

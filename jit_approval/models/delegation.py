"""Who stands in for whom, and until when."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, router
from django.utils.translation import gettext_lazy as _

from jit_approval.persons import person_of


class Delegation(models.Model):
    """For a period, `stand_in` may decide what `delegator` may. The two fill one place together.

    It lends the delegator's own authority only: what was delegated to the delegator does not pass on.
    """

    delegator = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("delegator"),
        on_delete=models.CASCADE,
        related_name="+",
    )
    stand_in = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("stand-in"),
        on_delete=models.CASCADE,
        related_name="+",
    )
    policy = models.ForeignKey(
        "jit_approval.ApprovalPolicy",
        verbose_name=_("policy"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text=_("Empty: every policy the delegator decides under."),
    )
    starts_at = models.DateTimeField(_("from"))
    ends_at = models.DateTimeField(_("until"))
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    revoked_at = models.DateTimeField(_("ended early at"), null=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("entered by"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        editable=False,
    )
    created_at = models.DateTimeField(_("entered at"), auto_now_add=True)

    class Meta:
        verbose_name = _("delegation")
        verbose_name_plural = _("delegations")
        ordering = ("-starts_at", "-id")
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(delegator=models.F("stand_in")),
                name="jit_delegation_to_another",
            ),
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("starts_at")),
                name="jit_delegation_ends_after_start",
            ),
        ]
        indexes = [
            # Asked in every decision: what is in force for this user, on either side.
            models.Index(fields=["stand_in", "ends_at"], name="jit_delegation_stand_in"),
            models.Index(fields=["delegator", "ends_at"], name="jit_delegation_delegator"),
        ]

    def __str__(self) -> str:
        """Return who stands in for whom."""
        return f"{self.stand_in} for {self.delegator}"

    def clean(self) -> None:
        """Refuse what the rules of delegation exclude, in words."""
        if self.starts_at and self.ends_at and self.ends_at <= self.starts_at:
            raise ValidationError({"ends_at": _("It ends after it starts.")})
        if self.delegator_id is None or self.stand_in_id is None:
            return
        if person_of(self.delegator) == person_of(self.stand_in):
            raise ValidationError({"stand_in": _("Nobody stands in for themselves.")})
        if self.starts_at and self.ends_at and self._closes_a_circle():
            raise ValidationError(
                {"stand_in": _("In this time they are represented, in the end, by the delegator.")}
            )

    def _closes_a_circle(self) -> bool:
        """Tell whether the delegator stands in for the stand-in meanwhile, be it through others."""
        others = Delegation.objects.using(router.db_for_write(Delegation)).exclude(pk=self.pk)
        meanwhile = others.filter(
            revoked_at=None, starts_at__lt=self.ends_at, ends_at__gt=self.starts_at
        )
        stand_ins: dict[str, set[str]] = {}
        for each in meanwhile.select_related("delegator", "stand_in"):
            stand_ins.setdefault(person_of(each.delegator), set()).add(person_of(each.stand_in))
        met, further = set[str](), {person_of(self.stand_in)}
        while further:
            met |= further
            further = {one for person in further for one in stand_ins.get(person, ())} - met
        return person_of(self.delegator) in met

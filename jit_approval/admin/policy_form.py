"""The form of a policy: what is asked, in which order, and with which words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from jit_approval import conf, secrets
from jit_approval.admin import gating
from jit_approval.models import ApprovalPolicy

if TYPE_CHECKING:
    _Form = forms.ModelForm[ApprovalPolicy]
else:
    _Form = forms.ModelForm

FIELDSETS: Any = (
    (None, {"fields": ("name", "slug", "description", "enabled")}),
    (
        _("Which calls"),
        {
            "description": _(
                "Policies are asked in order of priority; the first that names the action and whose "
                "condition holds decides. A condition that cannot be evaluated never lowers the bar."
            ),
            "fields": ("actions", "condition", "priority"),
        },
    ),
    (
        _("What happens to them"),
        {
            "description": _(
                "Require approval: the call is held. Allow: it runs at once, and is recorded. Deny: it "
                "never runs. Observe only: nothing is held; what would have been is recorded."
            ),
            "fields": ("effect", "execution", "severity"),
        },
    ),
    (
        _("Whose approval"),
        {
            "description": _(
                "Deciders, and groups that must be represented, are chosen at the foot of this page. "
                "Nobody ever decides a call of their own, superusers included."
            ),
            "fields": ("required_approvals", "object_permission", "fallback", "deciders_now"),
        },
    ),
    (
        _("Who is told"),
        {
            "description": _(
                "The requester is told in person in any case. When a channel does not work, deciders are "
                "told in person after all."
            ),
            "fields": ("channels",),
        },
    ),
    (
        _("How long"),
        {"fields": ("decide_within", "usable_within", "rejection_cooldown", "max_wait")},
    ),
    (
        _("What the caller must say"),
        {"fields": ("require_reason", "reason_pattern", "require_approval_id")},
    ),
    (
        _("History"),
        {"classes": ("collapse",), "fields": ("version", "created_at", "updated_at")},
    ),
    (_("This change"), {"classes": ("jit-why",), "fields": (gating.WHY,)}),
)


class PolicyForm(_Form):
    """A policy, and why it is changed."""

    why = forms.CharField(
        label=_("Why"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 80, "class": "vLargeTextField"}),
        help_text=_("Recorded with this version, and shown to who approves the change."),
    )

    # The HTTP request's attempt, where changes are only proposed; set by the page.
    attempt: gating.Attempt | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, rows in (("description", 2), ("actions", 3), ("condition", 3), ("fallback", 2)):
            if name in self.fields:
                self.fields[name].widget.attrs["rows"] = rows
        for name in ("actions", "condition", "reason_pattern", "object_permission"):
            if name in self.fields:
                attrs = self.fields[name].widget.attrs
                attrs["class"] = f"{attrs.get('class', '')} jit-code-field".strip()
                attrs["spellcheck"] = "false"

        if "execution" in self.fields:
            self.fields["execution"].help_text = _run_by()

    def _clean_fields(self) -> None:
        """Take line ends as they are stored: browsers send others, and every save would be a change."""
        super()._clean_fields()  # type: ignore[misc]
        for name in ("description", "actions", "condition", "fallback"):
            if isinstance(self.cleaned_data.get(name), str):
                text = self.cleaned_data[name]
                self.cleaned_data[name] = text.replace("\r\n", "\n").replace("\r", "\n")

    def clean_rejection_cooldown(self) -> timedelta:
        """Refuse a cool-down of less than nothing."""
        value: timedelta = self.cleaned_data["rejection_cooldown"]
        if value < timedelta(0):
            raise ValidationError(_t("A cool-down is not negative."), code="negative")
        return value

    def clean_why(self) -> str:
        """Refuse more than can be stored."""
        limit = conf.get().MAX_REASON_LENGTH
        value: str = self.cleaned_data["why"]
        if len(value) > limit:
            raise ValidationError(_t("At most %(limit)d characters."), params={"limit": limit})
        return value

    def clean(self) -> dict[str, Any]:
        """Say why the change was not even proposed, where it was tried and refused."""
        data = super().clean() or self.cleaned_data
        if self.attempt is not None and self.attempt.refusal:
            field = gating.WHY if self.attempt.lacks_reason else None
            self.add_error(field, self.attempt.refusal)
        return data


def _run_by() -> str:
    """Return what it means that the server runs a call, and whether it could here."""
    text = _t(
        "By the server: the last approval sets the call off, with no time to take it back; its requester fetches the "
        "answer. What the server cannot keep, the requester repeats."
    )
    if secrets.is_ready():
        return text
    lacks = _t("The server can run nothing yet: there is no SECRET_KEYS, so requesters repeat it.")
    return f"{text} {lacks}"

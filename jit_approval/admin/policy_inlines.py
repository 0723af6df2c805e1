"""Who decides under a policy, edited on the policy's own page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from jit_approval import policies
from jit_approval.models import (
    ApprovalPolicy,
    EscalationStep,
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)
from jit_approval.policies import rungs

if TYPE_CHECKING:
    _Inline = admin.TabularInline[Any, ApprovalPolicy]
    _FormSet = forms.BaseInlineFormSet[Any, Any, Any]
    _Form = forms.ModelForm[EscalationStep]
else:
    _Inline, _FormSet = admin.TabularInline, forms.BaseInlineFormSet
    _Form = forms.ModelForm


class DecidersFormSet(_FormSet):
    """Holders of the `decide` permission, and of no other: the permission is not the editor's to choose."""

    # "user" or "group": what is picked.
    holder = ""

    def save_new(self, form: Any, commit: bool = True) -> Any:
        """Grant `decide`, whatever was posted."""
        form.instance.permission = _decide_permission()
        return super().save_new(form, commit=commit)

    def clean(self) -> None:
        """Refuse the same holder twice: the unique constraint spans a column the form does not show."""
        super().clean()
        seen: set[Any] = set()
        for form in self.forms:
            data = getattr(form, "cleaned_data", {})
            chosen = data.get(self.holder)
            if chosen is None or data.get("DELETE"):
                continue
            if chosen.pk in seen:
                form.add_error(self.holder, _t("Named twice."))
            seen.add(chosen.pk)


class UserDecidersFormSet(DecidersFormSet):
    """Users who may decide."""

    holder = "user"


class GroupDecidersFormSet(DecidersFormSet):
    """Groups whose members may decide."""

    holder = "group"


class StepForm(_Form):
    """One step on silence."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "addresses" in self.fields:
            self.fields["addresses"].widget.attrs.update(rows=2, cols=40)

    def clean(self) -> dict[str, Any]:
        """Refuse a step that tells nobody, or says that somebody may decide and names none."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if isinstance(data.get("addresses"), str):
            # Browsers send other line ends, and every save would be a change.
            data["addresses"] = data["addresses"].replace("\r\n", "\n").strip()
        if not data.get("DELETE"):
            rungs.ensure_meaningful({**rungs.nothing(), **data})
        return data


class StepsFormSet(_FormSet):
    """The steps of a policy, each before the time to decide is over."""

    def clean(self) -> None:
        """Refuse a step that would never be taken."""
        super().clean()
        window = self.instance.decide_within
        for form in self.forms:
            data = getattr(form, "cleaned_data", {})
            after = data.get("after")
            if after is not None and not data.get("DELETE") and after >= window:
                form.add_error("after", rungs.never_taken(after, window))


class PolicyInline(_Inline):
    """Rows that belong to a policy, edited by whoever may edit the policy."""

    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read from the database the gate reads."""
        return super().get_queryset(request).using(policies.database())

    # Fields that name rows of which there may be many.
    searched: tuple[str, ...] = ()

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Search instead of a long select, where the project's admin can search users and groups."""
        return tuple(field for field in self.searched if self._can_search(field, request))

    def _can_search(self, field: str, request: HttpRequest) -> bool:
        related = self.model._meta.get_field(field).related_model
        known = self.admin_site._registry.get(related)
        return bool(
            known is not None and known.search_fields and known.has_view_permission(request)
        )

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "view") or _may(request, "change")

    def has_add_permission(self, request: HttpRequest, obj: Any) -> bool:  # type: ignore[override]
        """Follow the policy's own permission."""
        return _may(request, "change" if obj else "add") and not _is_archived(obj)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "change") and not _is_archived(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "change") and not _is_archived(obj)


class RequirementsInline(PolicyInline):
    """Groups of which so many must be among those who approve."""

    model = PolicyGroupRequirement
    fields = ("group", "count")
    searched = ("group",)
    verbose_name = _("group that must be represented")
    verbose_name_plural = _("groups that must be represented: so many approvals of each")


class DecidersInline(PolicyInline):
    """Holders of the `decide` permission on this policy."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Show the `decide` permission only; others of the policy are left alone."""
        return super().get_queryset(request).filter(permission__codename="decide")


class UserDecidersInline(DecidersInline):
    """Users who may decide this policy's requests."""

    model = PolicyUserPermission
    formset = UserDecidersFormSet
    fields = ("user",)
    searched = ("user",)
    verbose_name = _("decider")
    verbose_name_plural = _("deciders by name")


class GroupDecidersInline(DecidersInline):
    """Groups whose members may decide this policy's requests."""

    model = PolicyGroupPermission
    formset = GroupDecidersFormSet
    fields = ("group",)
    searched = ("group",)
    verbose_name = _("group of deciders")
    verbose_name_plural = _("deciders by group")


class StepsInline(PolicyInline):
    """What happens on silence: whom to tell next, and whether they may decide then."""

    model = EscalationStep
    form = StepForm
    formset = StepsFormSet
    template = "admin/edit_inline/stacked.html"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("after", "share"),
                    "deciders",
                    ("users", "groups"),
                    "may_decide",
                    ("addresses", "channels"),
                )
            },
        ),
    )
    searched = ("users", "groups")
    classes = ("jit-steps",)
    verbose_name = _("step on silence")
    verbose_name_plural = _(
        "steps on silence: whom to tell if nobody has decided. Without any, deciders are reminded once"
    )


def _may(request: HttpRequest, verb: str) -> bool:
    return request.user.has_perm(f"jit_approval.{verb}_approvalpolicy")


def _is_archived(policy: Any) -> bool:
    return bool(getattr(policy, "archived", False))


def _decide_permission() -> Permission:
    content_type = {
        "content_type__app_label": "jit_approval",
        "content_type__model": "approvalpolicy",
    }
    found = Permission.objects.using(policies.database())
    return found.get(codename="decide", **content_type)

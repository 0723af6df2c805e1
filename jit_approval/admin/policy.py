"""Policies and who decides under them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from jit_approval import policies
from jit_approval.models import ApprovalPolicy, PolicyGroupPermission, PolicyUserPermission

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ApprovalPolicy]
    _Inline = admin.TabularInline[Any, ApprovalPolicy]
    _Form = forms.ModelForm[ApprovalPolicy]
    _FormSet = forms.BaseInlineFormSet[Any, Any, Any]
else:
    _ModelAdmin, _Inline, _Form = admin.ModelAdmin, admin.TabularInline, forms.ModelForm
    _FormSet = forms.BaseInlineFormSet

_MAX_NAMES = 30
_MAX_COUNTED = 1000


class PolicyForm(_Form):
    """A policy, with the one rule the model does not carry."""

    def clean_rejection_cooldown(self) -> timedelta:
        """Refuse a cool-down of less than nothing."""
        value: timedelta = self.cleaned_data["rejection_cooldown"]
        if value < timedelta(0):
            raise ValidationError(_t("A cool-down is not negative."), code="negative")
        return value


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


class DecidersInline(_Inline):
    """Deciders, edited by whoever may edit the policy."""

    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Show the `decide` permission only; others of the policy are left alone."""
        return super().get_queryset(request).filter(permission__codename="decide")

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Search instead of a long select, where the project's admin can search users and groups."""
        field = self.fields[0]  # type: ignore[index]
        related = self.model._meta.get_field(field).related_model
        site = self.admin_site
        known = site._registry.get(related)
        return (str(field),) if known is not None and known.search_fields else ()

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "view") or _may(request, "change")

    def has_add_permission(self, request: HttpRequest, obj: Any) -> bool:  # type: ignore[override]
        """Follow the policy's own permission."""
        return _may(request, "change" if obj else "add")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "change")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Follow the policy's own permission."""
        return _may(request, "change")


class UserDecidersInline(DecidersInline):
    """Users who may decide this policy's requests."""

    model = PolicyUserPermission
    formset = UserDecidersFormSet
    fields = ("user",)
    verbose_name = _("decider")
    verbose_name_plural = _("deciders by name")


class GroupDecidersInline(DecidersInline):
    """Groups whose members may decide this policy's requests."""

    model = PolicyGroupPermission
    formset = GroupDecidersFormSet
    fields = ("group",)
    verbose_name = _("group of deciders")
    verbose_name_plural = _("deciders by group")


@admin.register(ApprovalPolicy)
class ApprovalPolicyAdmin(_ModelAdmin):
    """Which actions need whose approval."""

    form = PolicyForm
    inlines = (UserDecidersInline, GroupDecidersInline)
    list_display = (
        "name",
        "slug",
        "enabled",
        "priority",
        "globs",
        "required_approvals",
        "decide_within",
        "usable_within",
    )
    list_filter = ("enabled",)
    search_fields = ("name", "slug", "actions", "description")
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("deciders_now", "version", "created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ("name", "slug", "description", "enabled", "priority", "actions")}),
        (_("Approval"), {"fields": ("required_approvals", "deciders_now", "require_reason")}),
        (_("Times"), {"fields": ("decide_within", "usable_within", "rejection_cooldown")}),
        (_("History"), {"fields": ("version", "created_at", "updated_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApprovalPolicy]:
        """Read from the database the gate reads."""
        return super().get_queryset(request).using(policies.database())

    def has_delete_permission(
        self, request: HttpRequest, obj: ApprovalPolicy | None = None
    ) -> bool:
        """Allow it while no request refers to the policy; then it is disabled, not deleted."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and not (obj is not None and obj.approval_requests.exists())

    def save_related(self, request: Any, form: Any, formsets: Any, change: bool) -> None:
        """Save, and say at once when nobody could give the approvals this asks for."""
        super().save_related(request, form, formsets, change)
        policy: ApprovalPolicy = form.instance
        if policy.enabled and not _is_reachable(policy):
            self.message_user(request, _out_of_reach(policy), messages.WARNING)

    @admin.display(description=_("actions"))
    def globs(self, policy: ApprovalPolicy) -> str:
        """Return the globs on one line."""
        return ", ".join(policy.actions.split())

    @admin.display(description=_("deciders now"))
    def deciders_now(self, policy: ApprovalPolicy) -> str:
        """Name who may decide at this moment, superusers and holders of the model-wide permission included."""
        if policy.pk is None:
            return _t("Save the policy first; then everyone who may decide is listed here.")
        able = list(policies.deciders(policy.pk).order_by("pk")[: _MAX_COUNTED + 1])
        names = ", ".join(_name(user) for user in able[:_MAX_NAMES])
        if len(able) > _MAX_COUNTED:
            names = _t("%(names)s and more than %(count)d others") % {
                "names": names,
                "count": _MAX_COUNTED - _MAX_NAMES,
            }
        elif len(able) > _MAX_NAMES:
            others = len(able) - _MAX_NAMES
            text = ngettext(
                "%(names)s and %(count)d other", "%(names)s and %(count)d others", others
            )
            names = text % {"names": names, "count": others}
        if _is_reachable(policy):
            return names
        return f"{names or '-'} — {_out_of_reach(policy)}"


def _name(user: Any) -> str:
    name = str(user.get_username())
    return name if getattr(user, "is_staff", True) else _t("%(name)s (no admin)") % {"name": name}


def _is_reachable(policy: ApprovalPolicy) -> bool:
    return policies.quorum_is_reachable(policies.terms(policy))


def _out_of_reach(policy: ApprovalPolicy) -> str:
    return _t(
        "Fewer than %(needed)d people may decide: calls under this policy will be refused as unavailable."
    ) % {"needed": policy.required_approvals}


def _may(request: HttpRequest, verb: str) -> bool:
    return request.user.has_perm(f"jit_approval.{verb}_approvalpolicy")


def _decide_permission() -> Permission:
    content_type = {
        "content_type__app_label": "jit_approval",
        "content_type__model": "approvalpolicy",
    }
    found = Permission.objects.using(policies.database())
    return found.get(codename="decide", **content_type)

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
    PolicyGroupPermission,
    PolicyGroupRequirement,
    PolicyUserPermission,
)

if TYPE_CHECKING:
    _Inline = admin.TabularInline[Any, ApprovalPolicy]
    _FormSet = forms.BaseInlineFormSet[Any, Any, Any]
else:
    _Inline, _FormSet = admin.TabularInline, forms.BaseInlineFormSet


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


class PolicyInline(_Inline):
    """Rows that belong to a policy, edited by whoever may edit the policy."""

    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read from the database the gate reads."""
        return super().get_queryset(request).using(policies.database())

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Search instead of a long select, where the project's admin can search users and groups."""
        field = self.fields[0]  # type: ignore[index]
        related = self.model._meta.get_field(field).related_model
        known = self.admin_site._registry.get(related)
        can = known is not None and known.search_fields and known.has_view_permission(request)
        return (str(field),) if can else ()

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
    verbose_name = _("decider")
    verbose_name_plural = _("deciders by name")


class GroupDecidersInline(DecidersInline):
    """Groups whose members may decide this policy's requests."""

    model = PolicyGroupPermission
    formset = GroupDecidersFormSet
    fields = ("group",)
    verbose_name = _("group of deciders")
    verbose_name_plural = _("deciders by group")


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

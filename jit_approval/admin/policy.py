"""Policies and who decides under them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from jit_approval import conf, policies, policy_changes
from jit_approval.admin import explain, gating, policy_actions, policy_list, policy_versions
from jit_approval.admin.policy_form import FIELDSETS, PolicyForm
from jit_approval.admin.policy_inlines import (
    GroupDecidersInline,
    RequirementsInline,
    StepsInline,
    UserDecidersInline,
)
from jit_approval.models import ApprovalPolicy
from jit_approval.policies import audience, reachability

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ApprovalPolicy]
else:
    _ModelAdmin = admin.ModelAdmin

_AS_NEW = "_saveasnew"
_MAX_NAMES = 30
_MAX_COUNTED = 1000


@admin.register(ApprovalPolicy)
class ApprovalPolicyAdmin(policy_list.Columns, _ModelAdmin):
    """Which actions need whose approval. What a POST here changes is a version, or a proposal."""

    form = PolicyForm
    inlines = (RequirementsInline, UserDecidersInline, GroupDecidersInline, StepsInline)
    list_display = (
        "order",
        "name",
        "globs",
        "short_condition",
        "what",
        "how_severe",
        "approvals",
        "in_force",
    )
    list_display_links = ("name",)
    list_filter = (policy_list.StateFilter, "effect", "severity")
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("name", "slug", "actions", "description")
    readonly_fields = ("deciders_now", "version", "created_at", "updated_at")
    fieldsets = FIELDSETS
    actions = (policy_actions.enable, policy_actions.disable, policy_actions.archive)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    change_form_template = "admin/jit_approval/policy_form.html"
    delete_confirmation_template = "admin/jit_approval/policy_delete.html"

    class Media:
        css = {"all": ("jit_approval/admin.css", "jit_approval/policies.css")}

    # --- pages -------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add the page of versions, and guard every page of this model: see `gating`."""
        view = self.admin_site.admin_view(self.versions_view)
        name = "jit_approval_approvalpolicy_versions"
        urls = [path("<int:object_id>/versions/", view, name=name), *super().get_urls()]
        return [*explain.urls(self), *gating.guard(self, urls)]

    def versions_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Show what the policy said, when, and who made it so."""
        return policy_versions.view(self, request, object_id)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the versions: the framework's own history knows of the admin alone."""
        return policy_versions.lead_to(self, request, object_id)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show or save a policy; the page says when changes wait for approval."""
        if not self.save_as and _AS_NEW in request.POST:
            # The framework would make another policy of it all the same.
            data = request.POST.copy()
            del data[_AS_NEW]
            request.POST = data  # type: ignore[assignment]
        return super().changeform_view(request, object_id, form_url, _told(extra_context))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show the policies, or do what was asked of the selected ones."""
        titles = {"title": _("Approval policies"), **(extra_context or {})}
        return super().changelist_view(request, titles)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Ask why, and delete a policy no request refers to."""
        return super().delete_view(request, object_id, _told(extra_context))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list that knows whether deciders suffice."""
        return policy_list.PolicyList

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApprovalPolicy]:
        """Read from the database the gate reads."""
        rows = super().get_queryset(request).using(policies.database())
        return rows.prefetch_related("group_requirements__group")

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, which knows whether this HTTP request's change was refused."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.attempt = gating.of(request)  # a class of its own, made for this HTTP request
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask why of those alone who may change something."""
        found = super().get_fieldsets(request, obj)
        allowed = self.has_change_permission(request, obj) if obj else True
        return found if allowed else [each for each in found if gating.WHY not in each[1]["fields"]]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> tuple[str, ...]:
        """Keep the slug once it is saved: requests, versions and files name the policy by it."""
        fixed = ("slug",) if obj is not None else ()
        return (*super().get_readonly_fields(request, obj), *fixed)

    def get_prepopulated_fields(self, request: Any, obj: Any = None) -> dict[str, Any]:
        """Suggest a slug for a new policy."""
        return {} if obj is not None else {"slug": ("name",)}

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Leave out deleting several: that is archiving, or one by one."""
        # Django 6.1 asks for a place; before, there was only one.
        place = {} if action_location is None else {"action_location": action_location}
        found: dict[str, Any] = super().get_actions(request, **place)
        found.pop("delete_selected", None)
        return found

    # --- who may ----------------------------------------------------------------------------------------

    def has_change_permission(
        self, request: HttpRequest, obj: ApprovalPolicy | None = None
    ) -> bool:
        """Leave what is archived as it was."""
        allowed = super().has_change_permission(request, obj)
        return allowed and not (obj is not None and obj.archived)

    def has_delete_permission(
        self, request: HttpRequest, obj: ApprovalPolicy | None = None
    ) -> bool:
        """Allow it while no request refers to the policy; then it is archived, not deleted."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and not (obj is not None and obj.approval_requests.exists())

    # --- saving -----------------------------------------------------------------------------------------

    def save_related(self, request: Any, form: Any, formsets: Any, change: bool) -> None:
        """Save, and say at once when nobody could give the approvals this asks for."""
        super().save_related(request, form, formsets, change)
        self.warn(request, form.instance)

    def warn(self, request: HttpRequest, policy: ApprovalPolicy) -> None:
        """Tell who saved it that calls under it would be refused, if so."""
        if not policy.enabled:
            return
        if _is_out_of_reach(policy):
            self.message_user(request, _out_of_reach(policy), messages.WARNING)
        for text in audience.too_many([policy]).get(policy.pk, ()):
            self.message_user(request, text, messages.WARNING)

    def message_user(
        self,
        request: HttpRequest,
        message: Any,
        level: int | str = messages.INFO,
        extra_tags: str = "",
        fail_silently: bool = False,
    ) -> None:
        """Tell, but never of the success of what is only tried."""
        attempt = gating.of(request)
        if attempt is None:
            super().message_user(request, message, level, extra_tags, fail_silently)
        elif level == messages.SUCCESS:
            attempt.told.append(message)
        elif not attempt.refusal:
            super().message_user(request, message, level, extra_tags, fail_silently)

    # --- deciders ---------------------------------------------------------------------------------------

    @admin.display(description=_("deciders now"))
    def deciders_now(self, policy: ApprovalPolicy) -> str:
        """Name who may decide at this moment, superusers and holders of the model-wide permission included."""
        if policy.pk is None:
            return _t("Save the policy first; then everyone who may decide is listed here.")
        names = _names(list(policies.deciders(policy.pk).order_by("pk")[: _MAX_COUNTED + 1]))
        return f"{names or '-'} — {_out_of_reach(policy)}" if _is_out_of_reach(policy) else names


def _told(extra_context: dict[str, Any] | None) -> dict[str, Any]:
    limit = conf.get().MAX_REASON_LENGTH
    return {"is_gated": policy_changes.is_gated(), "max_why": limit, **(extra_context or {})}


def _names(able: list[Any]) -> str:
    names = ", ".join(_name(user) for user in able[:_MAX_NAMES])
    if len(able) > _MAX_COUNTED:
        return _t("%(names)s and more than %(count)d others") % {
            "names": names,
            "count": _MAX_COUNTED - _MAX_NAMES,
        }
    others = len(able) - _MAX_NAMES
    if others <= 0:
        return names
    text = ngettext("%(names)s and %(count)d other", "%(names)s and %(count)d others", others)
    return text % {"names": names, "count": others}


def _name(user: Any) -> str:
    name = str(user.get_username())
    return name if getattr(user, "is_staff", True) else _t("%(name)s (no admin)") % {"name": name}


def _is_out_of_reach(policy: ApprovalPolicy) -> bool:
    return bool(reachability.out_of_reach([policy]))


def _out_of_reach(policy: ApprovalPolicy) -> str:
    # Read again: the inline has just been saved.
    rows = policy.group_requirements.select_related("group")
    groups = {each.group.name: each.count for each in rows}
    needed = max(policy.required_approvals, sum(groups.values()))
    if policy.object_permission:
        return _t(
            "Fewer people than needed (%(needed)d) may decide, unless somebody holds %(permission)s on "
            "the object of the call: without them it is refused as unavailable."
        ) % {"needed": needed, "permission": policy.object_permission}
    if groups:
        named = ", ".join(f"{name} {count}" for name, count in sorted(groups.items()))
        text = ngettext(
            "Nobody could meet this: %(needed)d person, of %(groups)s. Calls "
            "under this policy will be refused as unavailable.",
            "Nobody could meet this: %(needed)d people, of them %(groups)s, each for one place. Calls "
            "under this policy will be refused as unavailable.",
            needed,
        )
        return text % {"needed": needed, "groups": named}
    text = ngettext(
        "Nobody may decide: calls under this policy will be refused as unavailable.",
        "Fewer than %(needed)d people may decide: calls under this policy will be refused as unavailable.",
        needed,
    )
    return text % {"needed": needed}

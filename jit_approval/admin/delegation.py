"""Delegations: who stands in for whom. Entered and ended here, never edited: what was in force stays readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from jit_approval import clock, delegating, policies
from jit_approval.admin import access
from jit_approval.capture import origin_of
from jit_approval.clock import DatabaseNow
from jit_approval.exceptions import IllegalTransition
from jit_approval.models import ApprovalPolicy, Delegation
from jit_approval.redaction import visible

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Delegation]
    _Form = forms.ModelForm[Delegation]
else:
    _ModelAdmin, _Form = admin.ModelAdmin, forms.ModelForm

_CHANGELIST = "admin:jit_approval_delegation_changelist"
_SEES_ALL = ("jit_approval.view_delegation", "jit_approval.change_delegation")


class UserByName(forms.CharField):
    """An active user by their user name: typed, for who enters it may not be allowed to list users."""

    def prepare_value(self, value: Any) -> Any:
        """Show a user as their name."""
        return value.get_username() if hasattr(value, "get_username") else value

    def clean(self, value: Any) -> Any:
        """Return the user."""
        name = super().clean(value)
        model = get_user_model()
        users = model._base_manager.using(policies.database())
        found = users.filter(**{model.USERNAME_FIELD: name}, is_active=True).first()
        if name and found is None:
            raise ValidationError(_t("There is no active user of this name."), code="unknown")
        return found


class DelegationForm(_Form):
    """A new delegation."""

    delegator = UserByName(
        label=_("Delegator"), max_length=254, help_text=_("User name: whose authority is lent.")
    )
    stand_in = UserByName(
        label=_("Stand-in"), max_length=254, help_text=_("User name: who decides meanwhile.")
    )
    policy = forms.ModelChoiceField(
        label=_("Policy"),
        queryset=ApprovalPolicy.objects.none(),
        required=False,
        empty_label=_("every policy the delegator decides under"),
    )

    # Who enters it; set by the page.
    by: Any = None

    class Meta:
        model = Delegation
        fields = ("delegator", "stand_in", "policy", "starts_at", "ends_at", "reason")
        widgets = {"reason": forms.TextInput(attrs={"class": "vTextField"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "policy" in self.fields:
            current = ApprovalPolicy.objects.using(policies.database()).filter(archived=False)
            self.fields["policy"].queryset = current  # type: ignore[attr-defined]
        if "starts_at" in self.fields:
            self.fields["starts_at"].required = False
            self.fields["starts_at"].help_text = _("Empty: from now on.")
            days = delegating.MAX_PERIOD.days
            text = _t("At most %(days)d days after it starts.") % {"days": days}
            self.fields["ends_at"].help_text = text
        if self.instance.pk is None and not self.by.has_perm(delegating.FOR_OTHERS):
            del self.fields["delegator"]  # whatever is posted under this name
            self.instance.delegator = self.by

    def clean_reason(self) -> str:
        """Make one line of it, with nothing hidden."""
        return visible(" ".join(self.cleaned_data["reason"].split()))

    def clean(self) -> dict[str, Any]:
        """Check what the service will check again, so that it is told beside the fields."""
        data = super().clean() or self.cleaned_data
        now = clock.now(policies.database())
        if "starts_at" in self.fields and "starts_at" not in self.errors:
            data["starts_at"] = max(data.get("starts_at") or now, now)
        if not self.errors and self.by is not None:
            draft = Delegation(delegator=self.by)
            for name in self.fields:
                setattr(draft, name, data[name])
            delegating.ensure_allowed(draft, by=self.by, now=now)
        return data


@admin.register(Delegation)
class DelegationAdmin(_ModelAdmin):
    """Who decides in whose place, and until when."""

    form = DelegationForm
    list_display = ("parties", "what", "starts_at", "ends_at", "state", "reason")
    list_select_related = ("delegator", "stand_in", "policy", "created_by")
    list_per_page = 50
    show_full_result_count = False
    actions = None
    change_form_template = "admin/jit_approval/delegation_form.html"

    class Media:
        css = {"all": ("jit_approval/admin.css", "jit_approval/policies.css")}

    # --- who may ----------------------------------------------------------------------------------------

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show it to whoever can do something here."""
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Delegation | None = None) -> bool:
        """Let the two see theirs, and holders of the permission all."""
        if _sees_all(request.user):
            return True
        if obj is not None:
            return request.user.pk in (obj.delegator_id, obj.stand_in_id)
        return self.has_add_permission(request) or self.get_queryset(request).exists()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let deciders lend their own authority, and holders of the permission enter for others."""
        return (
            access.is_decider(request.user)
            or request.user.has_perm(delegating.FOR_OTHERS)
            or super().has_add_permission(request)
        )

    def has_change_permission(self, request: HttpRequest, obj: Delegation | None = None) -> bool:
        """Say no: a delegation is ended and another entered."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Delegation | None = None) -> bool:
        """Say no: it shows on whose authority was voted."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delegation]:
        """Return what the user may see, with the database's time."""
        rows = super().get_queryset(request).using(policies.database()).annotate(now=DatabaseNow())
        if _sees_all(request.user):
            return rows
        return rows.filter(Q(delegator=request.user.pk) | Q(stand_in=request.user.pk))

    # --- pages ------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add the address that ends one."""
        view = self.admin_site.admin_view(self.end_view)
        name = "jit_approval_delegation_end"
        return [path("<int:object_id>/end/", view, name=name), *super().get_urls()]

    def get_fields(self, request: HttpRequest, obj: Delegation | None = None) -> Any:
        """Ask for the delegator only of who may enter for others."""
        asked = ["stand_in", "policy", "starts_at", "ends_at", "reason"]
        if obj is not None:
            return ["delegator", *asked, "state", "revoked_at", "created_by", "created_at"]
        return ["delegator", *asked] if request.user.has_perm(delegating.FOR_OTHERS) else asked

    def get_readonly_fields(self, request: HttpRequest, obj: Delegation | None = None) -> Any:
        """Leave everything as it was once it is entered."""
        return self.get_fields(request, obj) if obj is not None else ()

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, which knows who fills it in."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.by = request.user
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Suggest that one delegates one's own authority."""
        return {
            "delegator": request.user.get_username(),
            **super().get_changeform_initial_data(request),
        }

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show one, or enter one. Refused at the last moment, it is told, not an error page."""
        row = self.get_object(request, object_id) if object_id else None
        may_end = row is not None and _is_open(row) and delegating.may_end(row, request.user)
        try:
            told = {"may_end": may_end, **(extra_context or {})}
            return super().changeform_view(request, object_id, form_url, told)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Delegation, form: Any, change: bool) -> None:
        """Enter it: checked again, saved and written down in one transaction."""
        delegating.enter(obj, by=request.user, origin=origin_of(request))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show those the user may see."""
        response: HttpResponse = super().changelist_view(
            request, {"title": _("Delegations"), **(extra_context or {})}
        )
        return response

    def end_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """End one now; only a POST does."""
        row = self.get_queryset(request).filter(pk=object_id).first()
        if row is None:
            raise Http404
        if request.method == "POST":
            try:
                delegating.end(row, by=request.user, origin=origin_of(request))
            except IllegalTransition:
                self.message_user(request, _t("It is over already."), messages.WARNING)
            else:
                text = _t("Ended: %(delegation)s.") % {"delegation": self.parties(row)}
                self.message_user(request, text, messages.SUCCESS)
        elif not delegating.may_end(row, request.user):
            raise PermissionDenied
        return HttpResponseRedirect(reverse(_CHANGELIST, current_app=self.admin_site.name))

    # --- columns ----------------------------------------------------------------------------------------

    @admin.display(description=_("who for whom"))
    def parties(self, row: Delegation) -> str:
        """Return the stand-in and the delegator."""
        names = {
            "stand_in": row.stand_in.get_username(),
            "delegator": row.delegator.get_username(),
        }
        return _t("%(stand_in)s for %(delegator)s") % names

    @admin.display(description=_("policy"))
    def what(self, row: Delegation) -> str:
        """Return the policy, or that it is all of them."""
        return str(row.policy) if row.policy is not None else _t("every policy")

    @admin.display(description=_("state"))
    def state(self, row: Any) -> str:
        """Return where it stands, by the database's clock."""
        kind, word = _state(row)
        return format_html('<span class="jit-badge jit-{}">{}</span>', kind, word)


def _sees_all(user: Any) -> bool:
    return any(user.has_perm(name) for name in _SEES_ALL)


def _is_open(row: Any) -> bool:
    return row.revoked_at is None and row.ends_at > row.now


def _state(row: Any) -> tuple[str, str]:
    if row.revoked_at is not None:
        return "still", _t("ended early")
    if row.ends_at <= row.now:
        return "still", _t("over")
    if row.starts_at > row.now:
        return "pending", _t("to come")
    if not (row.delegator.is_active and row.stand_in.is_active):
        return "rejected", _t("void: an account is deactivated")
    return "approved", _t("in force")

"""The approvers' inbox: held calls, soonest deadline first. Nothing is added, edited or deleted here."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.db import connections, transaction
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jit_approval.admin import access, bulk, deadline, decide
from jit_approval.admin.filters import ActionFilter, PolicyFilter, StatusFilter
from jit_approval.admin.policy_list import severity_badge
from jit_approval.api.downloads import receipt_file
from jit_approval.audit import issuing
from jit_approval.models import ApprovalRequest
from jit_approval.policies import progress
from jit_approval.querysets import ApprovalRequestQuerySet
from jit_approval.states import OPEN, Severity, Status

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ApprovalRequest]
else:
    _ModelAdmin = admin.ModelAdmin

_MATCH_CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{4}\Z")
# How many open requests a match code is looked for in; it is computed, not stored.
_MAX_SCAN = 2000
_DECIDE = "admin:jit_approval_approvalrequest_decide"
_INBOX = "admin:jit_approval_approvalrequest_changelist"


class InboxList(ChangeList):
    """The list whose rows lead to the decision page, and know how far each is from its quorum."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page, and the groups that have yet to be represented: asked once for all."""
        super().get_results(request)
        rows = self.result_list = list(self.result_list)
        found = progress.of_page(rows)
        for row in rows:
            row.progress = found[row.pk]

    def url_for_result(self, result: Any) -> str:
        """Return the address of the decision page."""
        return reverse(_DECIDE, args=[result.pk], current_app=self.model_admin.admin_site.name)


@admin.register(ApprovalRequest)
class ApprovalRequestAdmin(_ModelAdmin):
    """Held calls: the inbox, the decision page, and decisions on several at once."""

    list_display = (
        "code",
        "asked_action",
        "asked_object",
        "how_severe",
        "requester_label",
        "short_reason",
        "time_left",
        "votes",
        "state",
    )
    list_display_links = ("code", "asked_action")
    list_filter = (StatusFilter, ActionFilter, PolicyFilter)
    search_fields = ("id", "requester_label", "action", "object_label", "object_pk")
    search_help_text = _(
        "Match code, id, requester, action or object; closed requests are found too."
    )
    ordering = (F("due_at").asc(nulls_last=True), "-created_at")
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = (bulk.approve_selected, bulk.reject_selected)

    class Media:
        css = {"all": ("jit_approval/admin.css", "jit_approval/policies.css")}
        js = ("jit_approval/countdown.js",)

    # --- who sees what -----------------------------------------------------------------------------------

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the app to everyone who has something to see here."""
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: ApprovalRequest | None = None) -> bool:
        """Allow the inbox to deciders and requesters, and a request to those who may see it."""
        if obj is not None:
            return access.visible_to(request.user).filter(pk=obj.pk).exists()
        return _Sight.of(request).anything

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Offer decisions on several to those who may decide at all."""
        return _Sight.of(request).decider

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Say no: a request is opened by a call, never by hand."""
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: ApprovalRequest | None = None
    ) -> bool:
        """Say no: a request is moved by the services, never edited."""
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: ApprovalRequest | None = None
    ) -> bool:
        """Say no: history stays."""
        return False

    def get_queryset(self, request: HttpRequest) -> ApprovalRequestQuerySet:
        """Return what the user may see, with the database's time and the votes."""
        rows: ApprovalRequestQuerySet = access.visible_to(request.user).with_now()
        return rows.prefetch_related("decisions")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApprovalRequest], search_term: str
    ) -> tuple[QuerySet[ApprovalRequest], bool]:
        """Search the columns, and the match codes of open requests."""
        found, distinct = super().get_search_results(request, queryset, search_term)
        term = search_term.strip().upper()
        if _MATCH_CODE.match(term):
            waiting = queryset.filter(status__in=OPEN).order_by("-created_at")
            keys = waiting.values_list("pk", flat=True)[:_MAX_SCAN]
            matching = [key for key in keys if ApprovalRequest(pk=key).match_code == term]
            found = queryset.filter(pk__in=matching) if matching else found
        return found, distinct

    # --- pages -------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add the decision page, and keep every page of this model outside of ATOMIC_REQUESTS.

        A decision is a durable transaction of its own: inside the view's it could be undone after it was told.
        """
        view = self.admin_site.admin_view(self.decide_view)
        name = "jit_approval_approvalrequest_decide"
        receipt = self.admin_site.admin_view(self.receipt_view)
        urls = [
            path("<path:object_id>/decide/", view, name=name),
            path(
                "<path:object_id>/receipt/",
                receipt,
                name="jit_approval_approvalrequest_receipt",
            ),
            *super().get_urls(),
        ]
        for pattern in urls:
            for alias in connections.settings:
                transaction.non_atomic_requests(using=alias)(pattern.callback)
        return urls

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list whose rows lead to the decision page."""
        return InboxList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the inbox, or do what was asked of the selected ones."""
        if not all(map(_as_uuid, request.POST.getlist(ACTION_CHECKBOX_NAME))):
            self.message_user(request, _("There is no such request."), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        titles = {"title": _("Held calls"), **(extra_context or {})}
        response: HttpResponse = super().changelist_view(request, titles)
        return response

    def decide_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one request, or decide it. A request one may not see is not there: 404."""
        return decide.view(self, request, self.find(request, object_id))

    def receipt_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Hand out the receipt of a call that ran; 409 while there is none."""
        try:
            return receipt_file(self.find(request, object_id), reader=request.user)
        except issuing.NoReceiptNow as error:
            return HttpResponse(str(error), status=409, content_type="text/plain; charset=utf-8")

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Lead to the decision page: there is one page for a request."""
        return self._to_decision_page(request, object_id)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the decision page, which shows the audit trail."""
        return self._to_decision_page(request, object_id)

    def find(self, request: HttpRequest, object_id: Any) -> ApprovalRequest:
        """Return the request as it stands in the database now.

        Raises:
            Http404: there is none by that id, or the user may not see it.
        """
        key = _as_uuid(str(object_id))
        row = self.get_queryset(request).filter(pk=key).first() if key else None
        if row is None:
            raise Http404
        return row

    def inbox_url(self) -> str:
        """Return the address of the inbox."""
        return reverse(_INBOX, current_app=self.admin_site.name)

    def _to_decision_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.find(request, object_id)
        return HttpResponseRedirect(
            reverse(_DECIDE, args=[row.pk], current_app=self.admin_site.name)
        )

    # --- columns -----------------------------------------------------------------------------------------

    @admin.display(description=_("code"))
    def code(self, row: ApprovalRequest) -> str:
        """Return the match code."""
        return row.match_code

    @admin.display(description=_("action"))
    def asked_action(self, row: ApprovalRequest) -> str:
        """Return the action."""
        return row.action

    @admin.display(description=_("object"))
    def asked_object(self, row: ApprovalRequest) -> str:
        """Return the object, or its key where it has no label."""
        return Truncator(row.object_label or row.object_pk or "-").chars(60)

    @admin.display(description=_("reason"))
    def short_reason(self, row: ApprovalRequest) -> str:
        """Return the beginning of the reason."""
        return Truncator(row.reason or "-").chars(80)

    @admin.display(description=_("time left"))
    def time_left(self, row: ApprovalRequest) -> SafeString | str:
        """Return the countdown."""
        return deadline.countdown(row)

    @admin.display(description=_("approvals"))
    def votes(self, row: Any) -> SafeString:
        """Return approvals given and needed, in all and of groups."""
        text = gettext("%(given)d of %(needed)d")
        words = text % {"given": row.progress.given, "needed": row.progress.needed}
        groups = [
            (each.group, text % {"given": each.given, "needed": each.needed})
            for each in row.progress.groups
            if row.status == Status.PENDING
        ]
        listed = format_html_join("", ' <small class="jit-group">{} {}</small>', groups)
        return format_html("{}{}", words, listed)

    @admin.display(description=_("severity"))
    def how_severe(self, row: ApprovalRequest) -> SafeString | str:
        """Return the severity as a coloured word, unless it is the usual one."""
        return "-" if row.severity == Severity.NORMAL else severity_badge(row)

    @admin.display(description=_("status"))
    def state(self, row: ApprovalRequest) -> SafeString:
        """Return the status in force."""
        return deadline.badge(row)


class _Sight:
    """What the user of one HTTP request may see at all: asked many times a page, looked up once."""

    def __init__(self, user: Any) -> None:
        self.user = user

    @classmethod
    def of(cls, request: HttpRequest) -> _Sight:
        """Return the one of this HTTP request."""
        sight: _Sight = request.__dict__.setdefault("_jit_sight", cls(request.user))
        return sight

    @cached_property
    def anything(self) -> bool:
        """Whether the inbox is of any use."""
        return access.sees_anything(self.user)

    @cached_property
    def decider(self) -> bool:
        """Whether the user may decide requests of some policy, or stands in for who may."""
        return access.acts_as_decider(self.user)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

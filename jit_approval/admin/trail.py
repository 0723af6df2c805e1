"""Decisions and audit events: lists to read, nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from jit_approval import policies
from jit_approval.admin import events
from jit_approval.models import AuditEvent, Decision

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(_ModelAdmin):
    """Rows of a request's history: seen by holders of the model's view permission, changed by nobody."""

    list_select_related = ("approval_request",)
    show_full_result_count = False
    ordering = ("-id",)
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read from the database the services write to."""
        return super().get_queryset(request).using(policies.database())

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Say no: the services write history."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Say no: history stays as it was."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Say no: history stays."""
        return False

    @admin.display(description=_("request"))
    def call(self, row: Any) -> SafeString | str:
        """Return a link to the request's page; a dash for what happened outside of any."""
        if row.approval_request_id is None:
            return "-"
        name = "admin:jit_approval_approvalrequest_decide"
        site = self.admin_site.name
        url = reverse(name, args=[row.approval_request_id], current_app=site)
        return format_html('<a href="{}">{}</a>', url, row.approval_request)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """What happened, over all requests, newest first; whether it is as it was signed; and as files."""

    class Media:
        css = {"all": ("jit_approval/admin.css", "jit_approval/events.css")}

    def get_urls(self) -> list[URLPattern]:
        """Add the download."""
        view = self.admin_site.admin_view(self.export_view)
        name = "jit_approval_auditevent_export"
        return [path("export/", view, name=name), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, which is a page of our own: the framework's counts the rows, and skips over pages."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return events.view(context, request, self._url)

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Hand out the events as they are filtered."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return events.download(request)

    def _url(self, pk: Any) -> str:
        name = "admin:jit_approval_approvalrequest_decide"
        return reverse(name, args=[pk], current_app=self.admin_site.name)


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    """Who decided what."""

    list_display = ("created_at", "call", "decider_label", "verdict", "comment")
    list_filter = ("verdict", "created_at")
    search_fields = ("approval_request__id", "decider_label", "comment")

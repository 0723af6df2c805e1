"""Decisions and audit events: lists to read, nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from jit_approval import policies
from jit_approval.admin import timeline
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
    """What happened, over all requests, newest first."""

    list_display = ("at", "call", "sequence", "kind", "actor_label", "about", "source", "target")
    list_filter = ("kind", "at")
    search_fields = ("approval_request__id", "actor_label", "hash")

    @admin.display(description=_("about"))
    def about(self, event: AuditEvent) -> str:
        """Return what an event outside of any request is about: a policy, a delegation, an action."""
        data = timeline.said(event)
        names = ("policy", "delegator", "stand_in", "action", "version")
        told = [f"{name}: {data[name]}" for name in names if data.get(name)]
        return ", ".join(told) if event.approval_request_id is None else "-"


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    """Who decided what."""

    list_display = ("created_at", "call", "decider_label", "verdict", "comment")
    list_filter = ("verdict", "created_at")
    search_fields = ("approval_request__id", "decider_label", "comment")

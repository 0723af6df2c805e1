"""Messages: whom we told, what could not be sent and why, and once more."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from jit_approval.admin.trail import ReadOnlyAdmin
from jit_approval.models import Notification
from jit_approval.notifications import delivery
from jit_approval.redaction import shorten

_SEND = "jit_approval.change_notification"


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    """Every message, newest first. Nothing is edited; what failed may be sent again."""

    list_display = (
        "created_at",
        "call",
        "event",
        "recipient",
        "channel",
        "state",
        "attempts",
        "what_went_wrong",
        "sent_at",
    )
    list_filter = ("state", "event", "channel")
    search_fields = ("approval_request__id", "recipient", "address", "error")
    actions = ("send_again",)  # type: ignore[assignment]

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Ask for the permission to change notifications: nobody else has a use for it."""
        return bool(request.user.has_perm(_SEND))

    @admin.action(description=_("Send again what failed"), permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Notification]) -> None:
        """Let the failed ones of the selection start anew."""
        failed = list(queryset.filter(state=Notification.State.FAILED))
        again = delivery.send_again(queryset)
        for row in failed:
            self.log_change(request, row, _t("Sent again."))
        text = ngettext(
            "%(count)d of the selected is sent again. A call that nobody has to decide any more is not announced.",
            "%(count)d of the selected are sent again. A call that nobody has to decide any more is not announced.",
            again,
        )
        self.message_user(request, text % {"count": again}, messages.SUCCESS)

    @admin.display(description=_("error"))
    def what_went_wrong(self, row: Any) -> str:
        """Return the last error, shortened; the page of the message has all of it."""
        return shorten(row.error, 80)

"""Channels: configured, tried out, and seen when they were disabled."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from jit_approval import clock, policies
from jit_approval.admin import channel_form
from jit_approval.models import Channel, PreferredChannel
from jit_approval.notifications import channels, routing
from jit_approval.notifications import messages as composing
from jit_approval.notifications.transport import Target
from jit_approval.redaction import visible
from jit_approval.secrets import SecretError, is_sealed_with_newest

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Channel]
    _Inline = admin.TabularInline[PreferredChannel, Channel]
else:
    _ModelAdmin, _Inline = admin.ModelAdmin, admin.TabularInline

_CHANGE = "admin:jit_approval_channel_change"


class PreferredByInline(_Inline):
    """The people who are told here, and not in their own mailbox."""

    model = PreferredChannel
    fields = ("user",)
    raw_id_fields = ("user",)
    extra = 0
    verbose_name = _("person who is told here")
    verbose_name_plural = _("people who are told here, and not in their own mailbox")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PreferredChannel]:
        """Read from the database the worker reads."""
        return super().get_queryset(request).using(policies.database())


@admin.register(Channel)
class ChannelAdmin(_ModelAdmin):
    """Ways to tell people. Two steps: name and kind, then what the kind asks for."""

    list_display = ("name", "slug", "kind", "enabled", "disabled_because", "used_by")
    list_filter = ("enabled", "kind")
    search_fields = ("name", "slug")
    inlines = (PreferredByInline,)
    actions = ("encrypt_again",)
    change_form_template = "admin/jit_approval/channel_form.html"

    class Media:
        css = {"all": ("jit_approval/admin.css", "jit_approval/policies.css")}

    # --- pages ------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Add the button that sends a test message."""
        view = require_POST(self.admin_site.admin_view(self.test_view))
        name = "jit_approval_channel_test"
        return [path("<uuid:pk>/test/", view, name=name), *super().get_urls()]

    def test_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Send one message that says that it is a test, under every rule that holds for others."""
        channel = self.get_object(request, str(pk))
        if channel is None:
            raise Http404
        if not self.has_change_permission(request, channel):
            raise PermissionDenied
        try:
            _send_test(channel, request.user)
        except Exception as error:
            # Whatever a channel raises is what an administrator wants to read here.
            text = _t("Not sent: %(error)s") % {"error": visible(str(error))[:500]}
            self.message_user(request, text, messages.ERROR)
        else:
            self.log_change(request, channel, _t("A test message was sent."))
            text = _t("The test message was taken. Look whether it arrived.")
            self.message_user(request, text, messages.SUCCESS)
        url = reverse(_CHANGE, args=[channel.pk], current_app=self.admin_site.name)
        return HttpResponseRedirect(url)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Say above the form what is wrong with the channel."""
        extra = {**(extra_context or {}), "troubles": self._troubles(request, object_id)}
        return super().change_view(request, object_id, form_url, extra)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Channel]:
        """Read from the database the worker reads."""
        rows = super().get_queryset(request).using(policies.database())
        return rows.annotate(policy_count=Count("policies"))

    # --- the form ---------------------------------------------------------------------------------------

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form of this kind of channel."""
        kwargs["form"] = channel_form.form_for(obj) if obj else channel_form.AddChannelForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        """Ask for name and kind first, and then for what the kind needs."""
        if obj is None:
            return ((None, {"fields": ("name", "slug", "kind")}),)
        # Without the permission to change it there is no form, and nothing of the configuration is shown.
        asked = channel_form.names_for(obj) if self.has_change_permission(request, obj) else []
        return (
            (None, {"fields": ("name", "slug", "kind", "enabled", *asked)}),
            (_("Use"), {"fields": ("policies_here", "created_at", "updated_at")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        """Keep slug and kind: messages name the one, secrets are bound to the other."""
        if obj is None:
            return ()
        return ("slug", "kind", "policies_here", "created_at", "updated_at")

    def get_prepopulated_fields(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        """Suggest a slug for a new channel."""
        return {} if obj else {"slug": ("name",)}

    def get_inlines(self, request: HttpRequest, obj: Channel | None) -> Any:
        """Ask for people once there is a channel."""
        return super().get_inlines(request, obj) if obj else ()

    def save_model(self, request: Any, obj: Channel, form: Any, change: bool) -> None:
        """Save it with its secrets encrypted; keep those that were made for the page after."""
        if change:
            form.apply()
            request.jit_made = form.made
        super().save_model(request, obj, form, change)

    def response_add(self, request: Any, obj: Channel, post_url_continue: Any = None) -> Any:
        """Lead to the second step."""
        request.POST = request.POST.copy()
        request.POST["_continue"] = "1"
        return super().response_add(request, obj, post_url_continue)

    def response_change(self, request: Any, obj: Channel) -> HttpResponse:
        """Show a secret that was made: here and now, for it is written down nowhere but encrypted."""
        made = getattr(request, "jit_made", {})
        if not made:
            return super().response_change(request, obj)
        context = {
            **self.admin_site.each_context(request),
            "title": _t("The secret of %(name)s") % {"name": obj.name},
            "opts": self.opts,
            "made": made.items(),
            "back": reverse(_CHANGE, args=[obj.pk], current_app=self.admin_site.name),
        }
        return TemplateResponse(request, "admin/jit_approval/channel_secret.html", context)

    # --- who may ----------------------------------------------------------------------------------------

    def has_delete_permission(self, request: HttpRequest, obj: Channel | None = None) -> bool:
        """Allow it while no policy names the channel, and nobody prefers it."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and not (
            obj is not None and (obj.policies.exists() or obj.preferred_by.exists())
        )

    @admin.action(
        description=_("Encrypt the secrets again, under the newest key"), permissions=["change"]
    )
    def encrypt_again(self, request: HttpRequest, queryset: QuerySet[Channel]) -> None:
        """Make older keys dispensable."""
        again = 0
        for channel in queryset:
            try:
                if channel.sealed and not is_sealed_with_newest(channel.sealed):
                    channel.keep_secrets(channel.open_secrets())
                    channel.save(update_fields=["sealed", "updated_at"])
                    again += 1
            except SecretError as error:
                self.message_user(request, f"{channel}: {error}", messages.ERROR)
        text = _t("%(count)d encrypted again.") % {"count": again}
        self.message_user(request, text, messages.SUCCESS)

    # --- columns ----------------------------------------------------------------------------------------

    @admin.display(description=_("policies"), ordering="policy_count")
    def used_by(self, channel: Any) -> int:
        """Count the policies that name it."""
        return int(channel.policy_count)

    @admin.display(description=_("policies"))
    def policies_here(self, channel: Channel) -> str:
        """Name the policies whose messages come here."""
        return ", ".join(channel.policies.order_by("name").values_list("name", flat=True)) or "-"

    def _troubles(self, request: HttpRequest, object_id: str) -> list[str]:
        channel = self.get_object(request, object_id)
        if channel is None:
            return []
        troubles = [channel.disabled_because] if not channel.enabled else []
        if channel.kind not in channels.kinds():
            troubles.append(_t("There is no kind of channel of this name any more."))
        try:
            channel.open_secrets()
        except SecretError as error:
            troubles.append(str(error))
        return [text for text in troubles if text]


def _send_test(channel: Channel, user: Any) -> None:
    """Raise what the channel raises."""
    kind = channels.find(channel.kind)
    target = routing.target_of(channel)
    personal = getattr(kind, "is_personal", None)
    if personal is not None and personal(target):
        target = Target(address=getattr(user, user.get_email_field_name(), ""))
    now = clock.now(policies.database())
    kind.notify(composing.compose_test(channel.name, id=uuid.uuid4().hex, now=now), target)

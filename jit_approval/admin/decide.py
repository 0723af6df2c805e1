"""The decision page: one held call, as a person needs to see it to decide."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db.models import IntegerField
from django.db.models.expressions import RawSQL
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from jit_approval import conf, policies
from jit_approval.admin import access, deadline
from jit_approval.admin.deciding import DecisionForm, Result, attempt, told
from jit_approval.audit import chain
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.states import Outcome, Status

if TYPE_CHECKING:
    from jit_approval.admin.inbox import ApprovalRequestAdmin

_METHODS = ("GET", "HEAD", "POST")
_MAX_EARLIER = 10


def view(page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest) -> HttpResponse:
    """Show the request; a POST decides it first. `row` is one the user may see."""
    if request.method not in _METHODS:
        return HttpResponseNotAllowed(_METHODS)
    if request.method != "POST":
        return _render(page, request, row)
    form = DecisionForm(request.POST)
    if not form.is_valid():
        errors = " ".join(str(text) for texts in form.errors.values() for text in texts)
        return _render(page, request, row, Result(error=errors, status=400))
    choice, comment = form.cleaned_data["verdict"], form.cleaned_data["comment"]
    result = attempt(row, choice, by=request.user, comment=comment)
    if result.row is None:
        return _render(page, request, page.find(request, row.pk), result)
    page.message_user(request, told(choice, result.row), messages.SUCCESS)
    return HttpResponseRedirect(page.inbox_url())


def _render(
    page: ApprovalRequestAdmin,
    request: HttpRequest,
    row: ApprovalRequest,
    result: Result | None = None,
) -> HttpResponse:
    result = result or Result()
    events = list(row.audit_events.order_by("sequence"))
    context = {
        **page.admin_site.each_context(request),
        "title": f"{row.action} [{row.match_code}]",
        "opts": page.opts,
        "media": page.media,
        "row": row,
        "status": deadline.badge(row),
        "countdown": deadline.countdown(row),
        "is_pending": deadline.shown_status(row) == Status.PENDING,
        "is_approved": deadline.shown_status(row) == Status.APPROVED,
        "options": access.options(request.user, row),
        "error": result.error,
        "comment": request.POST.get("comment", "") if result.error else "",
        "max_comment": conf.get().MAX_REASON_LENGTH,
        "details": [(name, _as_text(value)) for name, value in row.context.items()],
        "others_behind": [person for person in row.persons if person != row.requester_person],
        "void_votes": _void_votes(row),
        "usable_for": deadline.as_words(row.usable_within),
        "earlier": _earlier(page, request, row),
        "timeline": [_moment(event) for event in events],
        "trail_is_sound": _is_sound(row, events),
    }
    request.current_app = page.admin_site.name
    template = "admin/jit_approval/decide.html"
    return TemplateResponse(request, template, context, status=result.status)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False)


def _void_votes(row: ApprovalRequest) -> int:
    """Return how many approvals of an open request no longer count: their givers are deciders no more."""
    if deadline.left(row) is None or not row.approvals_given:
        return 0
    valid = RawSQL(policies.valid_votes_sql(), (), output_field=IntegerField())  # noqa: S611
    rows = ApprovalRequest.objects.using(policies.database()).filter(pk=row.pk)
    counted = rows.annotate(votes=valid).values_list("votes", flat=True).first()
    return max(row.approvals_given - (counted or 0), 0)


def _earlier(
    page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest
) -> list[dict[str, Any]]:
    """Return the newest identical calls before this one. Those one may not see are told without a link."""
    same = ApprovalRequest.objects.using(policies.database()).with_now()
    same = same.filter(fingerprint=row.fingerprint, created_at__lte=row.created_at)
    found = list(same.exclude(pk=row.pk).order_by("-created_at")[:_MAX_EARLIER])
    if not found:
        return []
    seen = set(
        access.visible_to(request.user)
        .filter(pk__in=[one.pk for one in found])
        .values_list("pk", flat=True)
    )
    return [
        {
            "row": one,
            "badge": deadline.badge(one),
            "is_seen": one.pk in seen,
            "may_have_run": one.outcome in (Outcome.RUNNING, Outcome.UNKNOWN),
        }
        for one in found
    ]


def _moment(event: AuditEvent) -> dict[str, Any]:
    """Return one line of the timeline."""
    try:
        data = json.loads(event.body).get("data", {})
    except (ValueError, AttributeError):
        data = {}
    return {
        "what": _kinds().get(event.kind, event.kind),
        "kind": event.kind,
        "by": event.actor_label or _("the system"),
        "at": event.at,
        "comment": data.get("comment", ""),
        "result": " ".join(
            str(data[key]) for key in ("outcome", "status", "exception") if data.get(key)
        ),
    }


def _kinds() -> dict[str, str]:
    return {
        "held": _("Call held"),
        "vote": _("Approval given"),
        "approved": _("Approved"),
        "rejected": _("Rejected"),
        "cancelled": _("Withdrawn"),
        "expired": _("Time over"),
        "revoked": _("Approval taken back"),
        "consumed": _("Run started"),
        "outcome": _("Run ended"),
        "settled": _("Outcome settled"),
    }


def _is_sound(row: ApprovalRequest, events: list[AuditEvent]) -> bool:
    """Tell whether the chain of events is unbroken and ends where the request says it does."""
    head = events[-1].hash if events else ""
    return chain.first_broken(events) is None and head == row.audit_head

"""The decision page: one held call, as a person needs to see it to decide."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse

from jit_approval import conf, policies, services
from jit_approval.admin import (
    access,
    alike,
    deadline,
    ladder,
    policy_diffs,
    policy_list,
    policy_versions,
    timeline,
)
from jit_approval.admin.deciding import DecisionForm, Result, attempt, told
from jit_approval.audit import issuing
from jit_approval.capture import origin_of
from jit_approval.models import ApprovalRequest
from jit_approval.policies import progress
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
    result = attempt(row, choice, by=request.user, comment=comment, origin=origin_of(request))
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
    # Who is asked is not for a requester to know, nor whom to ask next.
    is_own = services.stands_behind(request.user, row)
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
        "progress": _progress(row),
        "severity": policy_list.severity_badge(row),
        "newcomers": timeline.newcomers(row, events),
        "policy_diffs": policy_diffs.of(row),
        "version_url": _version_url(page, request, row),
        "usable_for": deadline.as_words(row.usable_within),
        "earlier": _earlier(page, request, row),
        "alike": alike.of_each(request.user, [row])[row.pk],
        **({} if is_own else _climbed(row)),
        "nobody_left": ladder.last_resort(row),
        "timeline": [timeline.moment(event, is_own=is_own) for event in events],
        "no_receipt": issuing.why_not(row),
        "trail_is_sound": timeline.is_sound(row, events),
        "rewritten": timeline.rewritten(row, events),
    }
    request.current_app = page.admin_site.name
    template = "admin/jit_approval/decide.html"
    return TemplateResponse(request, template, context, status=result.status)


def _climbed(row: ApprovalRequest) -> dict[str, Any]:
    return {"told": ladder.told(row), "ahead": ladder.ahead(row)}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, indent=2, ensure_ascii=False)


def _progress(row: ApprovalRequest) -> progress.Progress:
    return progress.of_closed(row) if deadline.left(row) is None else progress.of(row)


def _version_url(page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest) -> str:
    """Return the address of the policy as it was, for those who may look at policies."""
    verbs = ("view", "change")
    may = any(request.user.has_perm(f"jit_approval.{verb}_approvalpolicy") for verb in verbs)
    if not may or row.policy_id is None or not row.policy_version:
        return ""
    return policy_versions.url_of(row.policy_id, row.policy_version, page.admin_site.name)


def _earlier(
    page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest
) -> list[dict[str, Any]]:
    """Return the newest identical calls before this one. Those one may not see are told without a link."""
    same = ApprovalRequest.objects.using(policies.database()).with_now()
    same = same.filter(fingerprint=row.fingerprint, created_at__lte=row.created_at)
    found = list(same.exclude(pk=row.pk).order_by("-created_at")[:_MAX_EARLIER])
    seen = access.seen(request.user, found)
    return [
        {
            "row": one,
            "badge": deadline.badge(one),
            "is_seen": one.pk in seen,
            "may_have_run": one.outcome in (Outcome.RUNNING, Outcome.UNKNOWN),
        }
        for one in found
    ]

"""Deciding several at once: a page that shows each call, then one service call for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jit_approval import conf, policies
from jit_approval.admin import access, alike, deadline, policy_list
from jit_approval.admin.deciding import Choice, DecisionForm, Result, attempt
from jit_approval.capture import origin_of
from jit_approval.models import ApprovalRequest
from jit_approval.policies import delegations
from jit_approval.states import Status

if TYPE_CHECKING:
    from jit_approval.admin.inbox import ApprovalRequestAdmin

# More than a person reads on one page is not a decision.
MAX_AT_ONCE = 50


@admin.action(permissions=["decide"], description=gettext_lazy("Approve the selected calls"))
def approve_selected(
    page: ApprovalRequestAdmin, request: HttpRequest, queryset: QuerySet[ApprovalRequest]
) -> HttpResponse | None:
    """Approve each, after a page that shows them."""
    return _decide_selected(page, request, queryset, Choice.APPROVE)


@admin.action(permissions=["decide"], description=gettext_lazy("Reject the selected calls"))
def reject_selected(
    page: ApprovalRequestAdmin, request: HttpRequest, queryset: QuerySet[ApprovalRequest]
) -> HttpResponse | None:
    """Reject each, after a page that shows them."""
    return _decide_selected(page, request, queryset, Choice.REJECT)


def _decide_selected(
    page: ApprovalRequestAdmin,
    request: HttpRequest,
    queryset: QuerySet[ApprovalRequest],
    choice: Choice,
) -> HttpResponse | None:
    if "confirmed" not in request.POST:
        return _confirm(page, request, list(queryset[: MAX_AT_ONCE + 1]), choice)
    rows = _shown(page, request)
    form = DecisionForm({"verdict": choice, "comment": request.POST.get("comment", "")})
    if not form.is_valid():
        error = " ".join(str(text) for texts in form.errors.values() for text in texts)
        return _confirm(page, request, rows, choice, error)
    comment = form.cleaned_data["comment"]
    limit = conf.get().MAX_REASON_LENGTH
    if len(comment) > limit:
        error = _("The comment is too long: at most %(limit)d characters.") % {"limit": limit}
        return _confirm(page, request, rows, choice, error)
    if _too_many(page, request, rows):
        return None
    _decide_each(page, request, rows, choice, comment)
    return None


def _shown(page: ApprovalRequestAdmin, request: HttpRequest) -> list[ApprovalRequest]:
    """Return the rows of exactly the ids that were shown, in that order.

    Not the list's own selection: its filters would drop, untold, what has changed meanwhile.
    """
    keys = list(dict.fromkeys(map(UUID, request.POST.getlist(ACTION_CHECKBOX_NAME))))
    rows = {row.pk: row for row in page.get_queryset(request).filter(pk__in=keys)}
    if len(rows) < len(keys):
        page.message_user(request, _("Some of these calls are not there."), messages.WARNING)
    return [rows[key] for key in keys if key in rows]


def _too_many(
    page: ApprovalRequestAdmin, request: HttpRequest, rows: list[ApprovalRequest]
) -> bool:
    if len(rows) <= MAX_AT_ONCE:
        return False
    text = _("Select at most %(limit)d calls at a time.") % {"limit": MAX_AT_ONCE}
    page.message_user(request, text, messages.WARNING)
    return True


def _confirm(
    page: ApprovalRequestAdmin,
    request: HttpRequest,
    rows: list[ApprovalRequest],
    choice: Choice,
    error: str = "",
) -> HttpResponse | None:
    """Show each call with its own id in the form; those that cannot be decided are shown apart."""
    if _too_many(page, request, rows):
        return None
    if not rows:
        page.message_user(request, _("These calls are not open any more."), messages.WARNING)
        return None
    entries = _entries(request, rows)
    shown = [entry for entry in entries if entry["options"].may_decide]
    _add_alike(request, shown)
    context = {
        **page.admin_site.each_context(request),
        "title": _title(choice, len(shown)),
        "opts": page.opts,
        "media": page.media,
        "choice": choice,
        "is_approval": choice is Choice.APPROVE,
        "entries": shown,
        "left_out": [entry for entry in entries if not entry["options"].may_decide],
        "checkbox": ACTION_CHECKBOX_NAME,
        "error": error,
        "comment": request.POST.get("comment", ""),
        "max_comment": conf.get().MAX_REASON_LENGTH,
    }
    request.current_app = page.admin_site.name
    template = "admin/jit_approval/confirm_selected.html"
    return TemplateResponse(request, template, context, status=400 if error else 200)


def _title(choice: Choice, count: int) -> str:
    if choice is Choice.APPROVE:
        return ngettext("Approve this call?", "Approve these calls?", count)
    return ngettext("Reject this call?", "Reject these calls?", count)


def _entries(request: HttpRequest, rows: list[ApprovalRequest]) -> list[dict[str, Any]]:
    """Return what is shown of each; the authority over all of them is one query.

    Who takes part in a delegation is looked at row by row: for whom they decide depends on the policy.
    """
    if delegations.touching([request.user.pk]):
        return [_entry(row, access.options(request.user, row)) for row in rows]
    decidable = policies.decidable_by(request.user).filter(pk__in=[row.pk for row in rows])
    keys = set(decidable.values_list("pk", flat=True))
    return [
        _entry(row, access.options(request.user, row, authority=row.pk in keys)) for row in rows
    ]


def _entry(row: ApprovalRequest, options: access.Options) -> dict[str, Any]:
    return {
        "row": row,
        "countdown": deadline.countdown(row),
        "severity": policy_list.severity_badge(row),
        "options": options,
    }


def _add_alike(request: HttpRequest, entries: list[dict[str, Any]]) -> None:
    """Say of each that is to be decided which other calls look like it, on this page or not."""
    rows = [entry["row"] for entry in entries]
    found = alike.of_each(request.user, rows, among=rows)
    for entry in entries:
        entry["alike"] = found[entry["row"].pk]


def _decide_each(
    page: ApprovalRequestAdmin,
    request: HttpRequest,
    rows: list[ApprovalRequest],
    choice: Choice,
    comment: str,
) -> None:
    """Decide in the order shown; after a database error nothing more is tried."""
    done: list[ApprovalRequest] = []
    failed = False
    for row in rows:
        if failed:
            _tell_refusal(page, request, row, _("not tried after the database failed"))
            continue
        result = attempt(row, choice, by=request.user, comment=comment, origin=origin_of(request))
        if result.row is not None:
            done.append(result.row)
            continue
        failed = result.database_failed
        _tell_refusal(page, request, row, _explained(page, request, row, result))
    _tell_done(page, request, done, choice)


def _explained(
    page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest, result: Result
) -> str:
    """Return the refusal with the row's true state, read again."""
    now = deadline.shown_status(page.find(request, row.pk)).label
    return _("%(error)s It is now: %(status)s.") % {"error": result.error, "status": now}


def _tell_refusal(
    page: ApprovalRequestAdmin, request: HttpRequest, row: ApprovalRequest, text: str
) -> None:
    page.message_user(request, f"[{row.match_code}] {row.action}: {text}", messages.WARNING)


def _tell_done(
    page: ApprovalRequestAdmin, request: HttpRequest, done: list[ApprovalRequest], choice: Choice
) -> None:
    waiting = [row for row in done if row.status == Status.PENDING]
    moved = [row for row in done if row.status != Status.PENDING]
    if moved and choice is Choice.APPROVE:
        text = ngettext("%(count)d call approved", "%(count)d calls approved", len(moved))
        _tell(page, request, text, moved)
    elif moved:
        text = ngettext("%(count)d call rejected", "%(count)d calls rejected", len(moved))
        _tell(page, request, text, moved)
    if waiting:
        text = ngettext(
            "%(count)d approval recorded, more are needed",
            "%(count)d approvals recorded, more are needed",
            len(waiting),
        )
        _tell(page, request, text, waiting)


def _tell(
    page: ApprovalRequestAdmin, request: HttpRequest, text: str, rows: list[ApprovalRequest]
) -> None:
    codes = ", ".join(f"[{row.match_code}]" for row in rows)
    page.message_user(request, f"{text % {'count': len(rows)}}: {codes}", messages.SUCCESS)

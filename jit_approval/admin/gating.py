"""Every POST to the policies' pages: recorded with who and why; where changes are gated, proposed, not made.

The pages themselves know nothing of it. Whatever way a page, or a project's subclass of it, changes policies
(saving, saving as new, inlines, actions, deleting, a popup), the POST is tried, taken back, and what it would
have changed is held until another person approves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from jit_approval import conf, policy_changes
from jit_approval.capture import origin_of
from jit_approval.exceptions import (
    ApprovalError,
    ApprovalUnavailable,
    CoolingDown,
    ReasonRequired,
    TooManyPending,
)
from jit_approval.models import ApprovalPolicy, ApprovalRequest
from jit_approval.policies import versions
from jit_approval.redaction import visible

if TYPE_CHECKING:
    from jit_approval.admin.policy import ApprovalPolicyAdmin

View = Callable[..., Any]
WHY = "why"
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_MAY_CHANGE = "jit_approval.change_approvalpolicy"


@dataclass
class Attempt:
    """One POST that is only tried, kept on its HTTP request as `jit_attempt`."""

    # What the page would have said of its success.
    told: list[Any] = field(default_factory=list)
    # Why the change was not even proposed, for the form that is shown again, and whether a reason is missing.
    refusal: str = ""
    lacks_reason: bool = False


def of(request: HttpRequest) -> Attempt | None:
    """Return the attempt this HTTP request is, or None where changes are made at once."""
    return getattr(request, "jit_attempt", None)


def guard(page: ApprovalPolicyAdmin, patterns: list[URLPattern]) -> list[URLPattern]:
    """Make every POST to these addresses recorded, or proposed; keep them outside of ATOMIC_REQUESTS.

    Opening a request is a durable transaction: inside the view's it could be undone after it was told.
    """
    for pattern in patterns:
        pattern.callback = _guarded(page, pattern.callback)
        for alias in connections.settings:
            transaction.non_atomic_requests(using=alias)(pattern.callback)
    return patterns


def _guarded(page: ApprovalPolicyAdmin, view: View) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        call = partial(view, request, *args, **kwargs)
        if request.method in _SAFE:
            return call()
        if policy_changes.is_gated():
            return _propose(page, request, call)
        with versions.authored(request.user, why(request), origin=origin_of(request)):
            return call()

    return guarded


def why(request: HttpRequest) -> str:
    """Return the reason that was posted along, fit to be stored and shown on one line."""
    text = " ".join(request.POST.get(WHY, "").split())
    return visible(text)[: conf.get().MAX_REASON_LENGTH]


# --- gated -------------------------------------------------------------------------------------------------


def _propose(page: ApprovalPolicyAdmin, request: HttpRequest, call: View) -> HttpResponse:
    attempt = Attempt()
    trial, response = _tried(request, call, attempt)
    if not trial.proposed:
        if attempt.told:
            text = _("Nothing to approve: the policies would be as they are.")
            page.message_user(request, text, messages.INFO)
        return response
    try:
        row = _held(request, trial)
    except (ApprovalError, ObjectDoesNotExist) as error:
        refused = Attempt(refusal=_refusal(error), lacks_reason=isinstance(error, ReasonRequired))
        return _refuse(page, request, call, refused)
    page.message_user(request, _waits(page, row), messages.WARNING)
    return _back(page, request)


def _tried(
    request: HttpRequest, call: View, attempt: Attempt
) -> tuple[policy_changes.Trial, HttpResponse]:
    """Let the page do it, and take it back."""
    request.jit_attempt = attempt  # type: ignore[attr-defined]
    try:
        with policy_changes.trial() as trial, versions.authored(request.user, why(request)):
            response: HttpResponse = call()
    finally:
        del request.jit_attempt  # type: ignore[attr-defined]
    return trial, response


def _held(request: HttpRequest, trial: policy_changes.Trial) -> ApprovalRequest:
    # Else it would be approved, and then not made.
    if not request.user.has_perm(_MAY_CHANGE):
        raise ApprovalError(
            _("You may not propose this: it takes the permission to change policies.")
        )
    origin = origin_of(request)
    return policy_changes.propose(trial, by=request.user, reason=why(request), origin=origin)


def _refuse(
    page: ApprovalPolicyAdmin, request: HttpRequest, call: View, refused: Attempt
) -> HttpResponse:
    """Show the form as it was filled in, with the refusal; where there is no form, tell and go back."""
    name = str(getattr(request.resolver_match, "url_name", ""))
    if name.endswith(("_add", "_change")):
        _trial, response = _tried(request, call, refused)
        if not isinstance(response, HttpResponseRedirect):
            return response
    page.message_user(request, refused.refusal, messages.ERROR)
    return _back(page, request)


def _refusal(error: Exception) -> str:
    nothing = _("Nothing has changed, and nothing was proposed.")
    texts: dict[type[Exception], str] = {
        ApprovalUnavailable: _("Nobody but you could approve it now."),
        TooManyPending: _("Too many requests are open, or were opened lately."),
        CoolingDown: _("A like change was rejected moments ago; wait before you propose it again."),
        ReasonRequired: _("Say why here. In the policy's words: %(error)s") % {"error": error},
        ObjectDoesNotExist: _("The same change was being decided just now; look, and try again."),
    }
    for kind, text in texts.items():
        if isinstance(error, kind):
            return f"{text} {nothing}"
    return f"{error} {nothing}"


def _waits(page: ApprovalPolicyAdmin, row: ApprovalRequest) -> str:
    name = "admin:jit_approval_approvalrequest_decide"
    url = reverse(name, args=[row.pk], current_app=page.admin_site.name)
    text = _("Nothing has changed yet. The change waits for another person's approval:")
    link = f"{row.object_label} [{row.match_code}]"
    return format_html('{} <a href="{}">{}</a>', text, url, link)


def _back(page: ApprovalPolicyAdmin, request: HttpRequest) -> HttpResponse:
    response = page.response_post_save_change(request, ApprovalPolicy())
    if IS_POPUP_VAR in request.POST:
        url = reverse(
            "admin:jit_approval_approvalpolicy_changelist", current_app=page.admin_site.name
        )
        return HttpResponseRedirect(f"{url}?{IS_POPUP_VAR}=1")
    return HttpResponseRedirect(response["Location"])

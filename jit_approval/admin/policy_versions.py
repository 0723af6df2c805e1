"""The versions of a policy: what it said, who made it so, when and why, and what that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from jit_approval import policies
from jit_approval.admin import diffs
from jit_approval.models import ApprovalPolicy, PolicyVersion
from jit_approval.policies import versions

if TYPE_CHECKING:
    from jit_approval.admin.policy import ApprovalPolicyAdmin

_PER_PAGE = 25
_VERSIONS = "admin:jit_approval_approvalpolicy_versions"


def view(page: ApprovalPolicyAdmin, request: HttpRequest, object_id: Any) -> HttpResponse:
    """Show the versions, newest first, from the one named by `?upto=` down."""
    policy = _find(page, request, object_id)
    upto = _number(request.GET.get("upto", "")) or policy.version
    rows = PolicyVersion.objects.using(policies.database()).filter(policy=policy)
    found = list(rows.filter(number__lte=upto).order_by("-number")[: _PER_PAGE + 1])
    shown = found[:_PER_PAGE]
    context = {
        **page.admin_site.each_context(request),
        "title": _("Versions of %(policy)s") % {"policy": policy},
        "opts": page.opts,
        "media": page.media,
        "policy": policy,
        "versions": [
            _entry(row, before) for row, before in zip(shown, [*found[1:], None], strict=False)
        ],
        "older": shown[-1].number - 1 if len(found) > len(shown) else 0,
        "is_newest": upto >= policy.version,
        # Changed by SQL, `update()` or a fixture: the newest version is not what the gate goes by.
        "unrecorded": _unrecorded(policy),
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/jit_approval/versions.html", context)


def lead_to(page: ApprovalPolicyAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
    """Lead from where the framework shows its history."""
    policy = _find(page, request, object_id)
    return HttpResponseRedirect(
        reverse(_VERSIONS, args=[policy.pk], current_app=page.admin_site.name)
    )


def url_of(policy_id: Any, number: int, site: str) -> str:
    """Return the address at which one version stands on top."""
    return f"{reverse(_VERSIONS, args=[policy_id], current_app=site)}?upto={number}#v{number}"


def _find(page: ApprovalPolicyAdmin, request: HttpRequest, object_id: Any) -> ApprovalPolicy:
    policy = page.get_object(request, str(object_id))
    if policy is None:
        raise Http404
    if not page.has_view_or_change_permission(request, policy):
        raise PermissionDenied
    return policy


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _entry(row: PolicyVersion, before: PolicyVersion | None) -> dict[str, Any]:
    return {
        "row": row,
        "is_first": before is None,
        "changes": diffs.between(before.data if before else None, row.data),
    }


def _unrecorded(policy: ApprovalPolicy) -> list[diffs.Change]:
    newest = PolicyVersion.objects.using(policies.database()).filter(policy=policy)
    found = newest.order_by("-number").first()
    return diffs.between(found.data if found else None, versions.snapshot(policy))

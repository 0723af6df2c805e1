"""Enabling, disabling and archiving several policies: a page that asks why, then one version of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jit_approval import conf, policy_changes
from jit_approval.models import ApprovalPolicy

if TYPE_CHECKING:
    from jit_approval.admin.policy import ApprovalPolicyAdmin

_Result = HttpResponse | None


@dataclass(frozen=True)
class Move:
    """What becomes of each selected policy, and the words for it."""

    name: str
    question: Any
    button: Any
    consequence: Any
    fields: dict[str, bool]

    def concerns(self, policy: ApprovalPolicy) -> bool:
        """Tell whether it would change this policy. What is archived stays so."""
        return not policy.archived and any(
            getattr(policy, name) != value for name, value in self.fields.items()
        )


ARCHIVE = Move(
    "archive",
    gettext_lazy("Archive these policies?"),
    gettext_lazy("Archive"),
    gettext_lazy("Out of force for good, kept for its requests. It cannot be enabled again."),
    {"enabled": False, "archived": True},
)
DISABLE = Move(
    "disable",
    gettext_lazy("Disable these policies?"),
    gettext_lazy("Disable"),
    gettext_lazy(
        "Out of force at once. What it holds now may go on under another policy, or freely where "
        "none names it; unused approvals under it are void."
    ),
    {"enabled": False},
)
ENABLE = Move(
    "enable",
    gettext_lazy("Enable these policies?"),
    gettext_lazy("Enable"),
    gettext_lazy("In force at once."),
    {"enabled": True},
)


def _action(move: Move, description: Any) -> Callable[..., _Result]:
    def act(
        page: ApprovalPolicyAdmin, request: HttpRequest, queryset: QuerySet[ApprovalPolicy]
    ) -> _Result:
        return _move(page, request, queryset, move)

    act.__name__ = move.name
    decorated: Callable[..., _Result] = admin.action(
        act, permissions=["change"], description=description
    )
    return decorated


archive = _action(ARCHIVE, gettext_lazy("Archive the selected policies"))
enable = _action(ENABLE, gettext_lazy("Enable the selected policies"))
disable = _action(DISABLE, gettext_lazy("Disable the selected policies"))


def _move(
    page: ApprovalPolicyAdmin,
    request: HttpRequest,
    queryset: QuerySet[ApprovalPolicy],
    move: Move,
) -> _Result:
    rows = [row for row in queryset if move.concerns(row)]
    if not rows:
        page.message_user(request, _("There is nothing to do for these."), messages.INFO)
        return None
    if "confirmed" not in request.POST:
        return _ask(page, request, rows, move)
    for row in rows:
        for name, value in move.fields.items():
            setattr(row, name, value)
        # Not the other columns: somebody may be editing them.
        row.save(update_fields=[*move.fields, "updated_at"])
        page.log_change(request, row, str(move.button))
        page.warn(request, row)
    text = ngettext("%(count)d policy changed.", "%(count)d policies changed.", len(rows))
    page.message_user(request, text % {"count": len(rows)}, messages.SUCCESS)
    return None


def _ask(
    page: ApprovalPolicyAdmin, request: HttpRequest, rows: list[ApprovalPolicy], move: Move
) -> HttpResponse:
    context = {
        **page.admin_site.each_context(request),
        "title": move.question,
        "opts": page.opts,
        "media": page.media,
        "move": move,
        "rows": rows,
        "checkbox": ACTION_CHECKBOX_NAME,
        "is_gated": policy_changes.is_gated(),
        "max_why": conf.get().MAX_REASON_LENGTH,
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/jit_approval/move_policies.html", context)

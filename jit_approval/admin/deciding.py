"""One decision by one service call, and what to tell the person who made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.db import DatabaseError, connections
from django.db.models import TextChoices
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jit_approval import conf, policies, policy_changes, services
from jit_approval.calls import Origin
from jit_approval.exceptions import (
    AlreadyDecided,
    ApprovalError,
    CommentTooLong,
    IllegalTransition,
    MayNotDecide,
    NotDurable,
    RequestRewritten,
    SelfApprovalForbidden,
)
from jit_approval.models import ApprovalRequest
from jit_approval.policies import progress
from jit_approval.states import Execution, Outcome, Status


class Choice(TextChoices):
    """What the decision page's buttons say."""

    APPROVE = "approve", gettext_lazy("Approve")
    REJECT = "reject", gettext_lazy("Reject")
    REVOKE = "revoke", gettext_lazy("Take the approval back")
    RAN = "ran", gettext_lazy("It ran")
    DID_NOT_RUN = "did_not_run", gettext_lazy("It did not run")


_SERVICES: dict[str, Callable[..., ApprovalRequest]] = {
    Choice.APPROVE: services.approve,
    Choice.REJECT: services.reject,
    Choice.REVOKE: services.revoke,
    Choice.RAN: partial(services.settle, outcome=Outcome.SUCCEEDED),
    Choice.DID_NOT_RUN: partial(services.settle, outcome=Outcome.FAILED),
}


class DecisionForm(forms.Form):
    """A verdict and a comment."""

    verdict = forms.ChoiceField(
        choices=Choice.choices,
        error_messages={
            "required": gettext_lazy("Choose to approve or to reject."),
            "invalid_choice": gettext_lazy("Choose to approve or to reject."),
        },
    )
    comment = forms.CharField(required=False, label=gettext_lazy("Comment"))

    def clean_comment(self) -> str:
        """Make one line of it: the services show line breaks as escapes."""
        return " ".join(self.cleaned_data["comment"].split())


@dataclass(frozen=True)
class Result:
    """What became of an attempt. `row` is what the service returned; `status` an HTTP status."""

    row: ApprovalRequest | None = None
    error: str = ""
    status: int = 200
    database_failed: bool = False


def attempt(
    row: ApprovalRequest, choice: str, *, by: Any, comment: str, origin: Origin | None = None
) -> Result:
    """Ask the one service that decides. Errors come back as text, never as a guess about the row."""
    try:
        return Result(row=_SERVICES[choice](row, by=by, comment=comment, origin=origin))
    except ApprovalError as error:
        if isinstance(error, SelfApprovalForbidden) and not _is_behind(by, row):
            text = _("You stand in for who made this call. Somebody else has to decide it.")
            return Result(error=text, status=403)
        return _refused(error)
    except DatabaseError:
        # The commit may have gone through: only a new connection tells what is true.
        connections[policies.database()].close()
        text = _(
            "The database failed while this was being decided. What is shown is its state now."
        )
        return Result(error=text, status=503, database_failed=True)


def _is_behind(by: Any, row: ApprovalRequest) -> bool:
    return policies.is_behind(by, row.requester_id, row.persons)


def _refused(error: ApprovalError) -> Result:
    texts: list[tuple[type[ApprovalError], str, int]] = [
        (SelfApprovalForbidden, _("This is your own call. Somebody else has to decide it."), 403),
        (MayNotDecide, _("You are not among the deciders of this request."), 403),
        (
            RequestRewritten,
            _("What is shown is not what was asked: it was rewritten in the database."),
            409,
        ),
        (AlreadyDecided, _("You have decided this request before."), 409),
        (IllegalTransition, _("Too late: it has moved on, or its time is over."), 409),
        (CommentTooLong, _too_long(), 400),
        (NotDurable, _("Nothing was decided: a decision needs a transaction of its own."), 503),
    ]
    for kind, text, status in texts:
        if isinstance(error, kind):
            return Result(error=text, status=status)
    return Result(error=str(error), status=409)


def _too_long() -> str:
    limit = conf.get().MAX_REASON_LENGTH
    return _("The comment is too long: at most %(limit)d characters.") % {"limit": limit}


def told(choice: str, row: ApprovalRequest) -> str:
    """Return what the person who decided reads of it. `row` is what the service returned."""
    call = {"code": row.match_code, "call": f"{row.action} {row.object_label}".strip()}
    if choice == Choice.REJECT:
        return _("Rejected: %(call)s [%(code)s]. It will not run.") % call
    if choice in (Choice.RAN, Choice.DID_NOT_RUN):
        return _("Settled: %(call)s [%(code)s]. An identical call is held anew.") % call
    if choice == Choice.REVOKE:
        return _("Approval taken back: %(call)s [%(code)s]. It will not run.") % call
    if row.status == Status.APPROVED and row.action == policy_changes.ACTION:
        return _told_of_change(row) % call
    if row.status == Status.APPROVED and row.execution == Execution.SERVER:
        return _("Approved: %(call)s [%(code)s]. The server runs it now.") % call
    if row.status == Status.APPROVED:
        return _("Approved: %(call)s [%(code)s]. The requester may run it once now.") % call
    text = _("Your approval of %(call)s [%(code)s] is recorded. Still needed: %(missing)s.")
    return text % {**call, "missing": still_needed(progress.of(row))}


def _told_of_change(row: ApprovalRequest) -> str:
    """Return what became of a change of policies, which is made as soon as it is approved."""
    now = ApprovalRequest.objects.using(policies.database()).get(pk=row.pk)
    if now.outcome == Outcome.SUCCEEDED:
        return _("Approved: %(call)s [%(code)s]. The change is made.")
    if now.status == Status.APPROVED:
        return _("Approved: %(call)s [%(code)s]. The change will be made in a moment.")
    return _("Approved: %(call)s [%(code)s], but the change was not made; its page says why.")


def still_needed(where: progress.Progress) -> str:
    """Return who has yet to approve: how many persons, and of which groups."""
    count = max(where.missing, 1)
    text = ngettext("%(count)d approval", "%(count)d approvals", count) % {"count": count}
    groups = ", ".join(f"{each.group} {each.missing}" for each in where.groups if each.missing)
    if not groups:
        return text
    return _("%(approvals)s, of them %(groups)s") % {"approvals": text, "groups": groups}

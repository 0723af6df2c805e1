"""Refusals as RFC 9457 problem details. Held is 403, never 2xx: a naive client must not take it for done."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any

from jit_approval import conf
from jit_approval.audit import issuing
from jit_approval.exceptions import ApprovalError, TooManyPending, UnbindableCall
from jit_approval.links import result_url, status_url, timestamp
from jit_approval.models import ApprovalRequest
from jit_approval.refusals import TITLES, Problem
from jit_approval.states import Execution, Status, Verdict

# Seconds. A checkpoint is signed every minute.
_RECEIPT_INTERVAL = 30


class ApprovalRequired(Problem):
    """The call is held: nothing ran, and repeating it identically once approved will run it."""

    approval_request: ApprovalRequest
    now: datetime


class Over(Problem):
    """The call's approval request is closed: nothing ran now."""

    approval_request: ApprovalRequest


def held(
    approval_request: ApprovalRequest, *, now: datetime, detail: str = "", accepted: bool = False
) -> ApprovalRequired:
    """Return the answer to a call that waits. `now` is the database's time.

    `accepted`: the server will run it, and the client asked for an answer at once; 202 if there is a place to ask.
    """
    interval = conf.get().POLL_INTERVAL
    deadline = approval_request.due_at or approval_request.decide_by
    link = status_url(approval_request)
    headers = {"Approval-Id": str(approval_request.pk), "Retry-After": str(interval)}
    if link:
        headers |= {"Location": link, "Link": f'<{link}>; rel="status"'}
    if accepted and link:
        headers["Preference-Applied"] = "respond-async"
    by_server = approval_request.execution == Execution.SERVER
    required = ApprovalRequired(
        "approval_pending",
        detail or (_SERVER_WILL if by_server else _REPEAT_IT),
        status=HTTPStatus.ACCEPTED if accepted and link else None,
        headers=headers,
        executed=False,
        retryable=not by_server,
        approval_id=str(approval_request.pk),
        status_url=link,
        action=approval_request.action,
        policy=approval_request.policy_slug or None,
        expires_at=timestamp(deadline),
        expires_in=max(0, int((deadline - now).total_seconds())),
        interval=interval,
        match_code=approval_request.match_code,
        **(
            {"next": "server_runs", "result_url": result_url(approval_request)} if by_server else {}
        ),
    )
    required.approval_request, required.now = approval_request, now
    return required


_REPEAT_IT = (
    "Not executed. The call waits for approval; repeat the identical call once it is approved."
)
_SERVER_WILL = (
    "Not executed. The call waits for approval; the server runs it once it is approved. Do not repeat it: read "
    "status_url, and fetch the answer at result_url."
)


_OVER = {
    Status.REJECTED: "Not executed. The call was rejected{comment}.",
    Status.EXPIRED: "Not executed. The time ran out{when}. Repeat the call without Approval-Id to ask anew.",
    Status.CANCELLED: "Not executed. The request was cancelled. Repeat the call without Approval-Id to ask anew.",
    Status.REVOKED: "Not executed. The approval was revoked. Repeat the call without Approval-Id to ask anew.",
    Status.CONSUMED: "Not executed again. The approval was used for one run, whose outcome is: {outcome}.",
}


def over(approval_request: ApprovalRequest, *, of_this_call: bool = True) -> Over:
    """Return the answer to a call whose approval request is closed, or to one like a rejected one."""
    status = Status(approval_request.status)
    comment = rejection_comment(approval_request) if status is Status.REJECTED else ""
    detail = _OVER[status].format(
        comment=f": {comment.rstrip('.')}" if comment else "",
        when=" before anybody decided" if approval_request.decided_at is None else " unused",
        outcome=approval_request.outcome,
    )
    if not of_this_call:
        detail += " That was another call with the same action and object; such calls cool down."
    members: dict[str, Any] = {"executed": False, "retryable": False}
    if status is Status.REJECTED:
        members["comment"] = comment
    if status is Status.CONSUMED:
        members["outcome"] = approval_request.outcome
        if approval_request.execution == Execution.SERVER:
            members |= {"next": "fetch_result", "result_url": result_url(approval_request)}
    problem = Over(
        f"approval_{status.value}",
        detail,
        headers={"Approval-Id": str(approval_request.pk)},
        approval_id=str(approval_request.pk),
        status_url=status_url(approval_request),
        action=approval_request.action,
        policy=approval_request.policy_slug or None,
        **members,
    )
    problem.approval_request = approval_request
    return problem


def slow_down() -> Problem:
    """Return 429: nothing has changed since this was asked, less than an interval ago. As RFC 8628 §3.5 has it."""
    interval = conf.get().POLL_INTERVAL
    return Problem(
        "slow_down",
        f"Nothing has changed. Wait {interval} s between two looks, or ask with Prefer: wait.",
        headers={"Retry-After": str(interval)},
        executed=False,
        retryable=True,
        interval=interval,
    )


def not_found(what: str = "approval request") -> Problem:
    """Return the one answer to an id that is unknown, malformed or somebody else's."""
    return Problem("not_found", f"There is no such {what}.", executed=False)


def invalid(detail: str) -> Problem:
    """Return 400: the approval API was asked in a way it does not understand."""
    return Problem("invalid_request", detail, executed=False)


def result_pending(approval_request: ApprovalRequest) -> Problem:
    """Return the answer to who fetches the result of a call that has not ended."""
    return Problem(
        "result_pending",
        "The call has not ended. Ask again later.",
        headers={"Retry-After": str(conf.get().POLL_INTERVAL)},
        approval_id=str(approval_request.pk),
        outcome=approval_request.outcome or None,
    )


def result_gone(approval_request: ApprovalRequest) -> Problem:
    """Return the answer where the call ended, and what it answered is deleted, or was never written down."""
    return Problem(
        "result_gone",
        f"The call ran; its outcome is: {approval_request.outcome}. Its answer is not kept, or not any more.",
        approval_id=str(approval_request.pk),
        outcome=approval_request.outcome,
    )


def mismatch(approval_request: ApprovalRequest, names: list[str]) -> Problem:
    """Return the answer to a call that names a request but differs from it: names of parts, no values."""
    return Problem(
        "approval_mismatch",
        f"Not executed. The call differs from the one that was held in: {', '.join(names)}.",
        executed=False,
        retryable=False,
        approval_id=str(approval_request.pk),
        differs=names,
    )


def stale(approval_request: ApprovalRequest, names: list[str]) -> Problem:
    """Return the answer where what the approvers saw has changed since."""
    return Problem(
        "approval_stale",
        f"Not executed. What was approved has changed since, in: {', '.join(names)}. "
        "The approval is void; repeat the call to ask anew.",
        executed=False,
        retryable=True,
        approval_id=str(approval_request.pk),
        differs=names,
    )


def unavailable(detail: str = "The approval gate could not do its work; nothing ran.") -> Problem:
    """Return 503: an error before the handler started."""
    return Problem("gate_unavailable", detail, executed=False, retryable=True)


def from_error(error: ApprovalError) -> Problem:
    """Return the answer for a broken rule."""
    headers, status = {}, None
    if isinstance(error, UnbindableCall):
        status = error.status
    if isinstance(error, TooManyPending) and error.retry_after:
        headers = {"Retry-After": str(error.retry_after)}
    detail = str(error) or TITLES[error.code]
    return Problem(error.code, detail, status=status, headers=headers, executed=False)


def no_receipt(error: issuing.NoReceiptNow) -> Problem:
    """Return the answer where there is no receipt, or none yet."""
    headers = {"Retry-After": str(_RECEIPT_INTERVAL)} if error.why.is_for_now else {}
    return Problem(
        "receipt_unavailable",
        str(error),
        headers=headers,
        reason=error.why.value,
        retryable=error.why.is_for_now,
    )


def has_answer(approval_request: ApprovalRequest) -> bool:
    """Tell whether the server ran this a while ago at most: its answer can be fetched, and it is not asked anew.

    The row must have been read with the database's time.
    """
    row = approval_request
    if row.execution != Execution.SERVER or row.finished_at is None:
        return False
    return row.now < row.finished_at + conf.get().RESULT_KEPT_FOR


def rejection_comment(approval_request: ApprovalRequest) -> str:
    """Return what the decider who rejected had to say."""
    decisions = approval_request.decisions.filter(verdict=Verdict.REJECT)
    return str(decisions.values_list("comment", flat=True).first() or "")

"""Refusals as RFC 9457 problem details. Held is 403, never 2xx: a naive client must not take it for done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, reverse
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from jit_approval import advice, conf, waiting
from jit_approval.audit import issuing
from jit_approval.exceptions import ApprovalError, TooManyPending, UnbindableCall
from jit_approval.models import ApprovalRequest
from jit_approval.states import Execution, Status, Verdict

_STATUSES = {
    "approval_mismatch": HTTPStatus.UNPROCESSABLE_ENTITY,
    "approval_stale": HTTPStatus.PRECONDITION_FAILED,
    "too_many_pending": HTTPStatus.TOO_MANY_REQUESTS,
    "slow_down": HTTPStatus.TOO_MANY_REQUESTS,
    "approval_reason_required": HTTPStatus.BAD_REQUEST,
    "comment_too_long": HTTPStatus.BAD_REQUEST,
    "gate_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "not_found": HTTPStatus.NOT_FOUND,
    "illegal_transition": HTTPStatus.CONFLICT,
    "already_decided": HTTPStatus.CONFLICT,
    "request_rewritten": HTTPStatus.CONFLICT,
    "receipt_unavailable": HTTPStatus.CONFLICT,
    "result_pending": HTTPStatus.CONFLICT,
    "result_gone": HTTPStatus.GONE,
    "too_many_callbacks": HTTPStatus.CONFLICT,
}
_TITLES = {
    "approval_pending": "Approval required",
    "approval_rejected": "Approval rejected",
    "approval_expired": "Approval expired",
    "approval_cancelled": "Approval request cancelled",
    "approval_revoked": "Approval revoked",
    "approval_consumed": "Approval already used",
    "approval_denied": "Denied by policy",
    "approval_unavailable": "Nobody can approve this call",
    "approval_mismatch": "The call is not the one that was held",
    "approval_stale": "The object has changed",
    "too_many_pending": "Too many approval requests",
    "slow_down": "Polled too often",
    "payload_too_large": "Payload too large",
    "approval_reason_required": "Reason required",
    "unbindable_call": "The call cannot be bound to an approval",
    "gate_unavailable": "The approval gate is unavailable",
    "invalid_request": "Invalid request",
    "not_found": "Not found",
    "illegal_transition": "Not possible in this state",
    "already_decided": "Already decided",
    "request_rewritten": "Not what was asked",
    "self_approval_forbidden": "Own calls are decided by others",
    "may_not_decide": "Not a decider of this request",
    "not_the_requester": "Not the requester of this call",
    "comment_too_long": "Comment too long",
    "receipt_unavailable": "No receipt",
    "result_pending": "No answer yet",
    "result_gone": "The answer is not kept any more",
    "too_many_callbacks": "Too many callbacks",
}

# Seconds. A checkpoint is signed every minute.
_RECEIPT_INTERVAL = 30


class Answer(APIException):
    """An answer of the gate's own, whatever the project's EXCEPTION_HANDLER would have made of it."""

    def response(self, request: Request) -> HttpResponseBase:
        """Return it."""
        raise NotImplementedError


class Problem(Answer):
    """A refusal with its own body."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Compose the body. `members` are added to it as they are."""
        super().__init__(detail, code)
        self.code = code
        self.status_code = int(status or _STATUSES.get(code, HTTPStatus.FORBIDDEN))
        self.headers = {"Cache-Control": "no-store", **(headers or {})}
        self.body = {
            "type": f"urn:jit-approval:{code.replace('_', '-')}",
            "title": _TITLES[code],
            "status": self.status_code,
            "code": code,
            "detail": detail,
            **({"next": advice.NEXT[code]} if code in advice.NEXT else {}),
            **members,
        }
        if text := advice.instructions(self.body):
            self.body["instructions"] = text
        # Set afterwards: APIException would turn every leaf of a dict into a string.
        self.detail = self.body
        # What the caller may wait for, where it may.
        self.held: waiting.Held | None = None

    def response(self, request: Request) -> Response:
        """Return the answer. problem+json only where it is JSON that will be rendered."""
        response = Response(self.body, status=self.status_code, headers=self.headers)
        response.exception = True
        if self.held is not None:
            waiting.mark(response, self.held)
        is_json = isinstance(vars(request).get("accepted_renderer"), JSONRenderer)
        if is_json and self.status_code >= HTTPStatus.BAD_REQUEST:
            response.content_type = "application/problem+json"
        return response


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


def not_found() -> Problem:
    """Return the one answer to an id that is unknown, malformed or somebody else's."""
    return Problem("not_found", "There is no such approval request.", executed=False)


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
    detail = str(error) or _TITLES[error.code]
    return Problem(error.code, detail, status=status, headers=headers, executed=False)


_ANSWERS = "_jit_approval_answers"


def answer_in(view: APIView) -> None:
    """Make `view` give our body for an `Answer`, and the project's own for everything else."""
    if _ANSWERS in vars(view):
        return
    vars(view)[_ANSWERS] = True
    original = view.handle_exception

    def handle_exception(exc: Exception) -> HttpResponseBase:
        if not isinstance(exc, Answer):
            return original(exc)
        set_rollback()
        return exc.response(view.request)

    view.handle_exception = handle_exception  # type: ignore[method-assign,assignment]


def status_url(approval_request: ApprovalRequest | waiting.Held) -> str | None:
    """Return where the request can be read; None where the project does not include our urls."""
    try:
        return reverse("jit_approval:request-detail", args=[approval_request.pk])
    except NoReverseMatch:
        return None


def receipt_url(approval_request: ApprovalRequest) -> str | None:
    """Return where the receipt of a call that ran is fetched; None without our urls, or while there is none."""
    if issuing.has_not_ended(approval_request) is not None:
        return None
    try:
        return reverse("jit_approval:request-receipt", args=[approval_request.pk])
    except NoReverseMatch:
        return None


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


def result_url(approval_request: ApprovalRequest) -> str | None:
    """Return where the answer to a call that the server ran is fetched; None without our urls."""
    try:
        return reverse("jit_approval:request-result", args=[approval_request.pk])
    except NoReverseMatch:
        return None


def has_answer(approval_request: ApprovalRequest) -> bool:
    """Tell whether the server ran this a while ago at most: its answer can be fetched, and it is not asked anew.

    The row must have been read with the database's time.
    """
    row = approval_request
    if row.execution != Execution.SERVER or row.finished_at is None:
        return False
    return row.now < row.finished_at + conf.get().RESULT_KEPT_FOR


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with `Z`, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rejection_comment(approval_request: ApprovalRequest) -> str:
    """Return what the decider who rejected had to say."""
    decisions = approval_request.decisions.filter(verdict=Verdict.REJECT)
    return str(decisions.values_list("comment", flat=True).first() or "")

"""An answer of the gate's own, as RFC 9457 problem details, whatever the project does with exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http.response import HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from jit_approval import advice, waiting

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
TITLES = {
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
"""What each `code` means, in a few words."""


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
            "title": TITLES[code],
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

"""What the gate tells a caller who would like to wait: that it may, or what the server's run of its call answered.

`middleware.WaitForApproval` does the waiting. What is told goes to who has met all that any call meets: the request
was found among the caller's own, and by this very call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from jit_approval import problems, refusals, repeating, waiting
from jit_approval.execution import answers
from jit_approval.models import ApprovalRequest
from jit_approval.states import Execution, Status


class RunsAnswer(refusals.Answer):
    """Not a refusal: what the view answered when the server ran the call, as if it had run now."""

    def __init__(self, approval_request: ApprovalRequest, kept: answers.Kept) -> None:
        """Keep what was kept."""
        super().__init__("The server ran the call.", "approval_consumed")
        self.status_code = kept.status
        self._row = approval_request
        self._kept = kept

    def response(self, request: Request) -> HttpResponse:
        """Return status, headers and body; of the headers those that are kept at all."""
        headers = {
            **self._kept.headers,
            "Cache-Control": "no-store",
            "Approval-Id": str(self._row.pk),
            "Approval-Status": str(self._row.status),
        }
        made = HttpResponse(self._kept.body, status=self._kept.status, headers=headers)
        if "Content-Type" not in headers:
            del made.headers["Content-Type"]  # Django's guess
        return made


@contextmanager
def answered(request: Request, view: APIView) -> Iterator[None]:
    """Note on the refusal of a call that there is something to wait for, or answer with what was waited for."""
    try:
        yield
    except (problems.ApprovalRequired, problems.Over) as problem:
        if _would_wait(request, view):
            _answer(problem, request)
        raise


def _would_wait(request: Request, view: APIView) -> bool:
    """Tell whether it is the caller of this view who would wait.

    Not where another view asked this one: that view's work would be done again with it.
    """
    match = request._request.resolver_match
    if "HTTP_PREFER" not in request.META or match is None:
        return False
    return getattr(match.func, "cls", None) is type(view)


def _answer(problem: problems.ApprovalRequired | problems.Over, request: Request) -> None:
    row = problem.approval_request
    if waiting.goes_on(row):
        now = problem.now if isinstance(problem, problems.ApprovalRequired) else row.now
        problem.held = waiting.held(row, reader=request.user.pk, now=now)
        return
    by_server = row.status == Status.CONSUMED and row.execution == Execution.SERVER
    # Who did not wait is told that it ran, and where the answer is: it may be a call of its own.
    if not by_server or not repeating.is_repeat(request._request):
        return
    kept = answers.kept_of(row) if row.requester_id == request.user.pk else None
    # Half a body must not be taken for the whole.
    if kept is not None and not kept.truncated:
        raise RunsAnswer(row, kept) from None

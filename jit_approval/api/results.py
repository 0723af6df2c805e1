"""The answer to a call that the server ran, for who made it."""

from __future__ import annotations

import base64
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from jit_approval import links, problems
from jit_approval.api import rows
from jit_approval.api.views import ApprovalView, answered
from jit_approval.execution import answers
from jit_approval.models import ApprovalRequest
from jit_approval.states import Execution, Outcome, Status


class ResultView(ApprovalView):
    """What the view answered, as data: never sent as if it were this address's own answer."""

    def get(self, request: Request, pk: str, **kwargs: Any) -> Response:
        """Return status, headers and body (base64); to the account that made the call, and nobody else."""
        with answered():
            row = rows.visible_to(request.user, pk)
            if row.requester_id != request.user.pk or row.execution != Execution.SERVER:
                raise problems.not_found()
            return Response(_result(row))


def _result(row: ApprovalRequest) -> dict[str, Any]:
    if row.status in (Status.PENDING, Status.APPROVED) or row.outcome == Outcome.RUNNING:
        raise problems.result_pending(row)
    if row.status != Status.CONSUMED:
        raise problems.over(row)
    kept = answers.kept_of(row)
    if kept is None:
        raise problems.result_gone(row)
    return {
        "id": str(row.pk),
        "outcome": row.outcome,
        "status": kept.status,
        "headers": kept.headers,
        "body": base64.b64encode(kept.body).decode(),
        "truncated": kept.truncated,
        "deleted_at": links.timestamp(kept.delete_at),
    }

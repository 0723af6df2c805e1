"""The answer to a call that the server ran, for who made it."""

from __future__ import annotations

import logging
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from jit_approval import policies, problems
from jit_approval.api import rows
from jit_approval.api.views import ApprovalView, answered
from jit_approval.execution import answers
from jit_approval.models import ApprovalRequest, StoredAnswer
from jit_approval.secrets import SecretError
from jit_approval.states import Execution, Outcome, Status

logger = logging.getLogger(__name__)


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
    kept = StoredAnswer.objects.using(policies.database()).filter(pk=row.pk).first()
    # The sweeper may be late; what is over is over.
    if kept is None or kept.delete_at <= row.now:
        raise problems.result_gone(row)
    try:
        answer = answers.opened(kept, row)
    except SecretError as error:
        logger.error("The answer to %s cannot be opened: %s", row.pk, error)
        raise problems.result_gone(row) from error
    return {
        "id": str(row.pk),
        "outcome": row.outcome,
        **answer,
        "deleted_at": problems.timestamp(kept.delete_at),
    }

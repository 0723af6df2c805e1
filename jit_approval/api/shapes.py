"""An approval request as JSON. Times are UTC with `Z`; the status is what holds now, whatever was written."""

from __future__ import annotations

from typing import Any

from jit_approval.links import receipt_url, result_url, timestamp
from jit_approval.models import ApprovalRequest
from jit_approval.notifications import told
from jit_approval.problems import has_answer
from jit_approval.states import OPEN, Execution, Outcome, Status

_NEXT = {
    Status.PENDING: "wait",
    Status.APPROVED: "repeat_call",
    Status.EXPIRED: "ask_again",
    Status.CANCELLED: "ask_again",
    Status.REVOKED: "ask_again",
    Status.REJECTED: "none",
    Status.CONSUMED: "none",
}
"""What the requester's client does: poll on; repeat the identical call; repeat it without `Approval-Id`,
which opens a new request; nothing. Of a call that the server runs: poll on until it has, and fetch its answer."""


def status_now(approval_request: ApprovalRequest) -> Status:
    """Return the status by the database clock: past its deadline an open request is expired, swept or not.

    The row must have been read `with_now()`.
    """
    status = Status(approval_request.status)
    late = status in OPEN and approval_request.is_overdue(approval_request.now)
    return Status.EXPIRED if late else status


def etag(approval_request: ApprovalRequest) -> str:
    """Return the tag of the request as it stands: what happens to it advances its trail, but for deadlines.

    Weak: the same state may be shown as JSON or as a page. The row must have been read `with_now()`.
    """
    row, status = approval_request, status_now(approval_request)
    return f'W/"{row.audit_seq}-{status.value}-{_next(row, status)}"'


def may_change(approval_request: ApprovalRequest) -> bool:
    """Tell whether there is more to come: it is open, or runs, or nobody knows how it ended."""
    unsettled = (Outcome.RUNNING, Outcome.UNKNOWN)
    return status_now(approval_request) in OPEN or approval_request.outcome in unsettled


def summary(approval_request: ApprovalRequest) -> dict[str, Any]:
    """Return one entry of a list: everything but what may be long."""
    row, status = approval_request, status_now(approval_request)
    return {
        "id": str(row.pk),
        "status": status.value,
        "outcome": row.outcome or None,
        "action": row.action,
        "policy": row.policy_slug or None,
        "requester": row.requester_label,
        "reason": row.reason,
        # Who acts for the requester: as claimed, unless the credential proved it.
        "agent": row.agent or None,
        "agent_proven": row.agent_proven,
        "method": row.method,
        "path": row.path,
        "object": _object(row),
        "match_code": row.match_code,
        "created_at": timestamp(row.created_at),
        "decide_by": timestamp(row.decide_by),
        "usable_until": timestamp(row.usable_until) if row.usable_until else None,
        # The deadline in force; null once there is nothing left to miss.
        "expires_at": timestamp(row.due_at) if status in OPEN and row.due_at else None,
        "approvals_required": row.required_approvals,
        "approvals_given": row.approvals_given,
        "decisions": _decisions(row),
        "execution": row.execution,
        "next": _next(row, status),
        "result_url": result_url(row) if row.execution == Execution.SERVER else None,
    }


def _next(row: ApprovalRequest, status: Status) -> str:
    if row.execution != Execution.SERVER or status not in (Status.APPROVED, Status.CONSUMED):
        return _NEXT[status]
    if row.outcome in ("", Outcome.RUNNING):
        return "wait"
    return "fetch_result" if has_answer(row) else "none"


def full(approval_request: ApprovalRequest) -> dict[str, Any]:
    """Return all there is to read: the summary, the redacted preview of the payload and the context."""
    return {
        **summary(approval_request),
        "payload": approval_request.payload,
        "payload_truncated": approval_request.payload_truncated,
        "context": approval_request.context,
        # Once the call has run and ended; it answers 409 until all of it is sealed.
        "receipt_url": receipt_url(approval_request),
        # Whom a message has reached, while somebody is asked.
        "told": told.names(approval_request)
        if status_now(approval_request) is Status.PENDING
        else [],
    }


def _object(row: ApprovalRequest) -> dict[str, str] | None:
    if not row.object_model:
        return None
    return {"model": row.object_model, "pk": row.object_pk, "label": row.object_label}


def _decisions(row: ApprovalRequest) -> list[dict[str, Any]]:
    return [
        {
            "by": decision.decider_label,
            # On whose authority a stand-in decided; empty where their own sufficed.
            "on_behalf_of": decision.on_behalf_of,
            "verdict": decision.verdict,
            "comment": decision.comment,
            "at": timestamp(decision.created_at),
        }
        for decision in row.decisions.all()
    ]

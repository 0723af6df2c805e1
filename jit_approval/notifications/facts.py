"""The facts of a request, for messages: for people, for machines, and where to look. All of them escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from json import loads
from typing import Any

from django.urls import NoReverseMatch, reverse

from jit_approval import conf
from jit_approval.models import ApprovalRequest
from jit_approval.redaction import visible
from jit_approval.states import Execution, Status, Verdict


def of(row: ApprovalRequest, now: datetime) -> dict[str, Any]:
    """Return what the templates of messages may say of a request. `now` is the database's time."""
    usable = row.status == Status.APPROVED and not row.is_overdue(now)
    return {
        "id": str(row.pk),
        "action": visible(row.action),
        "object": visible(row.object_label),
        "requester": visible(row.requester_label),
        "reason": visible(row.reason),
        "agent": visible(row.agent),
        "agent_proven": row.agent_proven,
        "match_code": row.match_code,
        "required": row.required_approvals,
        "decide_by": _for_people(row.decide_by),
        "usable_until": _for_people(row.usable_until),
        "pending": row.status == Status.PENDING,
        "usable": usable,
        "by_server": row.execution == Execution.SERVER,
        "used": row.status == Status.CONSUMED,
        "granted": row.usable_until is not None,
        "rejected": row.status == Status.REJECTED,
        "outcome": row.outcome,
        "decisions": _decisions(row),
        "handled_by": _handled_by(row),
        "ending": _ending(row),
    }


def for_machines(row: ApprovalRequest, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts as webhooks carry them; names and meanings are those of the status API."""
    return {
        "approval_id": facts["id"],
        "match_code": row.match_code,
        "status": row.status,
        "outcome": row.outcome or None,
        "action": facts["action"],
        "object": facts["object"],
        "policy": row.policy_slug or None,
        "severity": row.severity,
        "requester": facts["requester"],
        "claimed_reason": facts["reason"],
        "agent": facts["agent"] or None,
        "agent_proven": facts["agent_proven"],
        "approvals_required": row.required_approvals,
        "approvals_given": sum(each["code"] == Verdict.APPROVE for each in facts["decisions"]),
        "decisions": [
            {"by": each["by"], "verdict": each["code"], "comment": each["comment"]}
            for each in facts["decisions"]
        ],
        "decide_by": _for_programs(row.decide_by),
        "usable_until": _for_programs(row.usable_until),
        "links": {"decide": link(row) or None, "status": status_link(row) or None},
    }


def link(row: ApprovalRequest) -> str:
    """Return the address of the decision page, or "" where the project has no such page."""
    return _address("admin:jit_approval_approvalrequest_decide", row.pk)


def status_link(row: ApprovalRequest) -> str:
    """Return the address of the request in the API, or "" where the project does not include it."""
    return _address("jit_approval:request-detail", row.pk)


def home() -> str:
    """Return the address of the approvers' inbox, or "" where the project has no such page."""
    return _address("admin:jit_approval_approvalrequest_changelist")


def _address(name: str, *args: Any) -> str:
    # From the setting, never from the Host of the held call: that is the caller's to choose.
    try:
        return conf.get().BASE_URL.rstrip("/") + reverse(name, args=args)
    except NoReverseMatch:
        return ""


def _decisions(row: ApprovalRequest) -> list[dict[str, str]]:
    return [
        {
            "by": visible(decision.decider_label),
            "code": decision.verdict,
            "verdict": str(Verdict(decision.verdict).label),
            "comment": visible(decision.comment),
        }
        for decision in row.decisions.all()
    ]


def _handled_by(row: ApprovalRequest) -> str:
    """Return the names of those whose verdict it was in the end."""
    verdict = Verdict.REJECT if row.status == Status.REJECTED else Verdict.APPROVE
    names = [each.decider_label for each in row.decisions.all() if each.verdict == verdict]
    return ", ".join(map(visible, names))


def _ending(row: ApprovalRequest) -> dict[str, str]:
    """Return who withdrew the call or its approval, and what they said."""
    if row.status not in (Status.CANCELLED, Status.REVOKED):
        return {}
    event = row.audit_events.filter(kind=row.status).last()
    if event is None:
        return {}
    comment = loads(event.body).get("data", {}).get("comment", "")
    return {"by": visible(event.actor_label), "comment": visible(comment)}


def _for_people(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def _for_programs(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

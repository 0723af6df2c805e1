"""What holding a call writes: the request, its first event, the message to who may decide. Private to `services`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from jit_approval import limits, policies, prepared, signals, transitions, verdicts
from jit_approval.audit import chain, shown
from jit_approval.calls import Call, Terms
from jit_approval.exceptions import ApprovalUnavailable, ReasonRequired
from jit_approval.models import ApprovalRequest, Notification
from jit_approval.notifications import outbox
from jit_approval.policies import ladder
from jit_approval.policies.terms import fits_pattern, gives_reason
from jit_approval.redaction import visible
from jit_approval.states import Status


def ensure_reason(reason: str, terms: Terms) -> None:
    """Refuse what gives no reason worth the name where the terms want one."""
    if not gives_reason(reason, terms):
        raise ReasonRequired("Say why in the Approval-Reason header.")
    if not fits_pattern(reason, terms.reason_pattern):
        raise ReasonRequired(f"The Approval-Reason must contain {terms.reason_pattern}.")


def write(
    call: Call, terms: Terms, troubles: Sequence[policies.Trouble], alias: str
) -> ApprovalRequest:
    """Write them in the transaction that is open; as `services.open_request` raises."""
    terms = policies.on_object(terms, call.shown.object_model, call.shown.object_pk)
    now = limits.ensure_may_open(call, terms, using=alias)
    row = _row(call, terms, now)
    if not policies.quorum_is_reachable(terms, call.persons, object_pk=row.object_pk):
        raise ApprovalUnavailable("Nobody who could approve this call is there to ask.")
    data = verdicts.of_call(call) | {"terms": _as_data(terms)}
    data[shown.COMMITTED] = shown.commitment(vars(row))
    if troubles:
        data["troubles"] = verdicts.as_data(troubles)
    event = chain.next_event(
        row,
        "held",
        at=now,
        by=call.requester,
        target=Status.PENDING,
        data=data,
        origin=verdicts.origin_of(call),
    )
    row.audit_seq, row.audit_head = event.sequence, event.hash
    prepared.insert(row, using=alias)
    prepared.insert(event, using=alias)
    outbox.write(row, Notification.Event.HELD, at=now, using=alias)
    transitions.announce(signals.request_opened, row, alias)
    return row


def _row(call: Call, terms: Terms, now: datetime) -> ApprovalRequest:
    bound = call.bound
    decide_by = now + terms.decide_within
    row = ApprovalRequest(
        action=call.action,
        fingerprint=bound.fingerprint,
        open_key=bound.fingerprint,
        parts=dict(bound.parts),
        state_digest=bound.state_digest,
        state_parts=dict(bound.state_parts),
        idempotent=call.idempotent,
        requester_id=call.requester.pk,
        requester_label=visible(call.requester.get_username())[:254],
        requester_person=call.persons[0],
        persons=list(call.persons),
        credential=call.credential[:200],
        policy_id=terms.policy_id,
        policy_slug=terms.policy_slug,
        policy_version=terms.policy_version,
        required_approvals=terms.required_approvals,
        group_requirements=[list(each) for each in terms.group_requirements],
        object_permission=terms.object_permission,
        object_permission_label=terms.object_permission_label,
        require_approval_id=terms.require_approval_id,
        severity=terms.severity,
        execution=terms.execution,
        weighed=bool(terms.group_requirements) or terms.object_permission is not None,
        usable_within=terms.usable_within,
        rejection_cooldown=terms.rejection_cooldown,
        max_wait=terms.max_wait,
        ladder=ladder.pin(terms),
        created_at=now,
        decide_by=decide_by,
        due_at=decide_by,
        **vars(call.shown),
    )
    row.wake_at = ladder.wake_at(row)
    return row


def _as_data(terms: Terms) -> dict[str, Any]:
    said = {
        name: int(value.total_seconds() * 1000) if isinstance(value, timedelta) else value
        for name, value in vars(terms).items()
    }
    return {**said, "steps": ladder.pin(terms, with_names=True)}

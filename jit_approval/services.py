"""The life of an approval request: the one way in for each change of state, and the only writer of `status`.

Each service is one durable transaction: it has been committed when the service returns, or it raised and
nothing changed. Who moves, moves by one conditional UPDATE, so of any number that race one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, models

from jit_approval import conf, limits, policies, prepared, queue, signals, transitions, verdicts
from jit_approval.audit import beforehand, chain
from jit_approval.calls import Call, Origin, Terms
from jit_approval.exceptions import (
    AlreadyDecided,
    ApprovalUnavailable,
    IllegalTransition,
    NotTheRequester,
    ReasonRequired,
)
from jit_approval.models import ApprovalRequest, Decision, Notification, StoredCall
from jit_approval.notifications import outbox
from jit_approval.policies import delegations, ladder
from jit_approval.policies.terms import fits_pattern, gives_reason, is_meaningful
from jit_approval.redaction import visible
from jit_approval.states import OPEN, Execution, Outcome, Status, Verdict
from jit_approval.transitions import ensure_durable

__all__ = [
    "approve",
    "cancel",
    "consume",
    "ensure_durable",
    "expire",
    "find",
    "is_meaningful",
    "note",
    "open_request",
    "record_outcome",
    "reject",
    "revoke",
    "settle",
    "stands_behind",
]

RUN = "jit_approval.tasks.run"

_FOUND = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (transitions.now_extra(alias),),
    without=("payload", "context"),
)
_WITH_AUTHORITY = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (
        transitions.now_extra(alias),
        ("own", policies.authority_of_user_sql(), models.IntegerField()),
        ("delegates", delegations.touches_sql(alias), models.IntegerField()),
    ),
)
_WITH_VOTES = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (("votes", policies.valid_votes_sql(), models.IntegerField()),),
)


def open_request(
    call: Call,
    terms: Terms,
    *,
    troubles: Sequence[policies.Trouble] = (),
    also: Callable[[ApprovalRequest, str], None] | None = None,
) -> ApprovalRequest:
    """Hold a call: write the pending request, its first event and the message to its deciders.

    `troubles`: conditions that failed on the way to these terms, for the record. `also(row, alias)` writes
    what belongs to the request, in the same transaction.

    Raises:
        ReasonRequired: the terms want a reason and the call gives none worth the name.
        CoolingDown, TooManyPending: the limits leave no room (see `limits`).
        ApprovalUnavailable: nobody but the requester could decide; nothing is opened.
        django.db.IntegrityError: an identical call was opened meanwhile; read it instead.
    """
    _ensure_reason(call.shown.reason, terms)
    try:
        with transitions.durable() as alias:
            row = _open(call, terms, troubles, alias)
            if also is not None:
                also(row, alias)
            return row
    except ApprovalUnavailable:
        verdicts.alert_unavailable(call, terms)
        raise


def _open(
    call: Call, terms: Terms, troubles: Sequence[policies.Trouble], alias: str
) -> ApprovalRequest:
    terms = policies.on_object(terms, call.shown.object_model, call.shown.object_pk)
    now = limits.ensure_may_open(call, terms, using=alias)
    row = _row(call, terms, now)
    if not policies.quorum_is_reachable(terms, call.persons, object_pk=row.object_pk):
        raise ApprovalUnavailable("Nobody who could approve this call is there to ask.")
    data = verdicts.of_call(call) | {"terms": _as_data(terms)}
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


def approve(
    approval_request: ApprovalRequest,
    *,
    by: models.Model,
    comment: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Vote for the call. At the quorum, of votes that are valid still, the call may run once.

    Raises:
        SelfApprovalForbidden, MayNotDecide: `by` stands behind the call, or is not a decider of it now.
        AlreadyDecided: `by`'s person has voted.
        IllegalTransition: the request is no longer pending, or its time is up.
        CommentTooLong: the comment exceeds `MAX_REASON_LENGTH`.
    """
    with transitions.durable() as alias:
        row, standing = _locked_for(by, approval_request.pk, Status.APPROVED, alias)
        row.weighed = row.weighed or bool(standing.on_behalf_of or standing.linked)
        data = _cast(row, by, standing, Verdict.APPROVE, comment, alias)
        weighed = {"weighed": row.weighed}
        if not _quorum_is_met(row, alias):
            return transitions.advance(
                row,
                "vote",
                by=by,
                alias=alias,
                at=row.now,
                data={"verdict": Verdict.APPROVE.value, "comment": "", **data},
                where={"status": Status.PENDING},
                changes=weighed,
                origin=_as_person(origin, standing.person),
            )
        until = row.now + row.usable_within
        changes = {**weighed, "decided_at": row.now, "usable_until": until, "due_at": until}
        changes |= {"warned": False, "wake_at": ladder.use_notice(row, row.now, until)}
        if row.execution == Execution.SERVER:
            _hand_to_server(row, alias)  # first: messages are in less of a hurry
        return transitions.move(
            row,
            to=Status.APPROVED,
            by=by,
            alias=alias,
            changes=changes,
            data=data,
            origin=_as_person(origin, standing.person),
        )


def reject(
    approval_request: ApprovalRequest,
    *,
    by: models.Model,
    comment: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Refuse the call for good: one rejection ends the request, whatever the quorum.

    Raises: as `approve`.
    """
    with transitions.durable() as alias:
        row, standing = _locked_for(by, approval_request.pk, Status.REJECTED, alias)
        data = _cast(row, by, standing, Verdict.REJECT, comment, alias)
        changes = {**transitions.CLOSED, "decided_at": row.now}
        changes["cooldown_until"] = row.now + row.rejection_cooldown
        return transitions.move(
            row,
            to=Status.REJECTED,
            by=by,
            alias=alias,
            changes=changes,
            data=data,
            origin=_as_person(origin, standing.person),
        )


def cancel(
    approval_request: ApprovalRequest,
    *,
    by: models.Model | None,
    comment: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Withdraw a pending request: by its requester, or by the system (None) when it is superseded.

    Raises:
        NotTheRequester: `by` did not make the call.
        IllegalTransition: the request is no longer pending, or its time is up.
    """
    with transitions.durable() as alias:
        row = transitions.locked(approval_request.pk, alias)
        if by is not None and not stands_behind(by, row):
            raise NotTheRequester("Only who made the call may withdraw it.")
        return transitions.move(
            row,
            to=Status.CANCELLED,
            by=by,
            alias=alias,
            changes=transitions.CLOSED,
            data=transitions.said(comment, by),
            origin=_as_person(origin, row.requester_person) if by is not None else origin,
        )


def revoke(
    approval_request: ApprovalRequest,
    *,
    by: models.Model | None,
    comment: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Take back an unused approval: by a decider, by the requester, or by the system (None).

    Raises:
        MayNotDecide: `by` is neither a decider of this request nor its requester.
        IllegalTransition: the approval has been used, or is over.
    """
    with transitions.durable() as alias:
        row = transitions.locked(approval_request.pk, alias)
        if by is not None:
            person = row.requester_person
            if not stands_behind(by, row):
                person = policies.ensure_may_decide(by, row).person
            origin = _as_person(origin, person)
        return transitions.move(
            row,
            to=Status.REVOKED,
            by=by,
            alias=alias,
            changes=transitions.CLOSED,
            data=transitions.said(comment, by),
            origin=origin,
        )


def consume(
    approval_request: ApprovalRequest,
    *,
    state_digest: str,
    by: models.Model | None = None,
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Spend the approval: when this returns, this caller alone may run the call, once, now.

    One UPDATE decides: approved, in time, the audit head and the state the deciders saw unchanged, and
    enough of the votes given by persons who are deciders still. `by` is the requester, if at hand.

    Raises:
        IllegalTransition: it was not spendable, or somebody else was first. Nothing may run.
        NotSealed: `SEAL_BEFORE_EXECUTE` is on, and not all of a critical call's events are signed.
    """
    beforehand.ensure_signed(approval_request)
    with transitions.durable() as alias:
        row = approval_request
        changes = {
            "open_key": None,
            "outcome": Outcome.RUNNING,
            "consumed_at": row.now,
            "due_at": row.now + conf.get().RUN_LIMIT,
            "wake_at": None,
        }
        return transitions.move(
            row,
            to=Status.CONSUMED,
            by=by or row.requester,
            alias=alias,
            changes=changes,
            where={"state_digest": state_digest},
            guards=_enough_votes(row, alias),
            data={"execution": row.execution} if row.execution == Execution.SERVER else None,
            origin=_as_person(origin, row.requester_person),
        )


def expire(approval_request: ApprovalRequest) -> ApprovalRequest:
    """Record that the deadline in force has passed. Access ended at the deadline, not here.

    Raises:
        IllegalTransition: it is not overdue by the database's clock, or not open any more.
    """
    with transitions.durable() as alias:
        row = transitions.locked(approval_request.pk, alias)
        return transitions.move(
            row, to=Status.EXPIRED, by=None, alias=alias, changes=transitions.CLOSED
        )


def record_outcome(
    approval_request: ApprovalRequest,
    *,
    outcome: Outcome,
    response_status: int | None = None,
    exception: str = "",
    elapsed: timedelta | None = None,
    also: Callable[[ApprovalRequest, str], None] | None = None,
) -> ApprovalRequest:
    """Write down how a run ended: the HTTP status, or the class of the exception.

    `elapsed` is how long the run took by a monotonic clock: added to its start it gives the database's time
    without asking for it. None where a sweeper finds a run without an end: then `now` as read with the row.
    `also(row, alias)` writes what belongs to the end, in the same transaction.

    Raises:
        IllegalTransition: the end of this run has been recorded before.
    """
    with transitions.durable() as alias:
        row = approval_request
        at = row.now if elapsed is None else (row.consumed_at or row.now) + elapsed
        row = transitions.end(
            row,
            outcome=outcome,
            alias=alias,
            at=at,
            response_status=response_status,
            exception=exception,
        )
        if also is not None:
            also(row, alias)
        return row


def settle(
    approval_request: ApprovalRequest,
    *,
    by: models.Model,
    outcome: Outcome,
    comment: str = "",
    origin: Origin | None = None,
) -> ApprovalRequest:
    """Say what became of a run whose end nobody recorded; until then identical calls stay refused.

    `by` is a decider who has looked; never who made the call. Settled to `succeeded` or `failed`.

    Raises:
        SelfApprovalForbidden, MayNotDecide: as `approve`.
        IllegalTransition: the outcome is not `unknown`, or would be no outcome of a run that is over.
    """
    if outcome not in (Outcome.SUCCEEDED, Outcome.FAILED):
        raise IllegalTransition("A run is settled as succeeded or failed.")
    with transitions.durable() as alias:
        row = transitions.locked(approval_request.pk, alias)
        standing = policies.ensure_may_decide(by, row)
        data = {"outcome": outcome.value, "comment": transitions.fit(comment)}
        where = {"status": Status.CONSUMED, "outcome": Outcome.UNKNOWN}
        changes = {"outcome": outcome}
        return transitions.advance(
            row,
            "settled",
            by=by,
            alias=alias,
            at=row.now,
            data=data,
            where=where,
            changes=changes,
            origin=_as_person(origin, standing.person),
        )


def _ensure_reason(reason: str, terms: Terms) -> None:
    if not gives_reason(reason, terms):
        raise ReasonRequired("Say why in the Approval-Reason header.")
    if not fits_pattern(reason, terms.reason_pattern):
        raise ReasonRequired(f"The Approval-Reason must contain {terms.reason_pattern}.")


def note(approval_request: ApprovalRequest, kind: str, *, by: Any, data: Mapping[str, Any]) -> None:
    """Add an event that changes nothing to an open request.

    Raises:
        IllegalTransition: the request is not open any more.
    """
    with transitions.durable() as alias:
        row = transitions.locked(approval_request.pk, alias)
        if row.status not in OPEN:
            raise IllegalTransition("The request is closed.")
        where = {"status": row.status}
        transitions.advance(row, kind, by=by, alias=alias, at=row.now, data=data, where=where)


def find(where: Mapping[str, Any], *, tail: str = "") -> list[ApprovalRequest]:
    """Return the requests that equal `where`, with the database's time; what is only shown stays behind."""
    return _FOUND.rows(using=policies.database(), where=where, tail=tail)


def stands_behind(user: Any, approval_request: ApprovalRequest) -> bool:
    """Tell whether the user is the requester, or another account of the requester's person."""
    if user.pk is None:
        return False  # as is the requester of a row whose account was deleted
    return (
        user.pk == approval_request.requester_id
        or policies.person_of(user) == approval_request.requester_person
    )


# --- the pieces ------------------------------------------------------------------------------------------


def _row(call: Call, terms: Terms, now: datetime) -> ApprovalRequest:
    shown, bound = call.shown, call.bound
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
        **vars(shown),
    )
    row.wake_at = ladder.wake_at(row)
    return row


def _as_person(origin: Origin | None, person: str) -> Origin:
    return (origin or Origin()).of(person)


def _as_data(terms: Terms) -> dict[str, Any]:
    said = {
        name: int(value.total_seconds() * 1000) if isinstance(value, timedelta) else value
        for name, value in vars(terms).items()
    }
    return {**said, "steps": ladder.pin(terms, with_names=True)}


def _locked_for(
    by: Any, pk: UUID, target: Status, alias: str
) -> tuple[ApprovalRequest, policies.Standing]:
    """Lock the request, and read in the same statement what gives `by` authority over it."""
    key = policies.user_key(by, alias)
    row = transitions.the(
        _WITH_AUTHORITY.rows(
            using=alias,
            where={"id": pk},
            tail=transitions.for_update(alias),
            extras_params=(key, key, key),
        )
    )
    own, delegates = bool(row.own), bool(row.delegates)  # type: ignore[attr-defined]
    standing = policies.ensure_may_decide(by, row, own=own, delegates=delegates)
    transitions.ensure_legal(row, target)
    return row, standing


def _cast(
    row: ApprovalRequest,
    by: Any,
    standing: policies.Standing,
    verdict: Verdict,
    comment: str,
    alias: str,
) -> dict[str, Any]:
    """Write the vote; return what the event says of it."""
    on_behalf_of = [visible(name)[:254] for name in standing.on_behalf_of]
    decision = Decision(
        approval_request_id=row.pk,
        decider_id=by.pk,
        decider_label=visible(by.get_username())[:254],
        person=standing.person,
        verdict=verdict,
        comment=transitions.fit(comment),
        on_behalf_of=on_behalf_of,
        linked=sorted(standing.linked),
        created_at=row.now,
    )
    try:
        prepared.insert(decision, using=alias)
    except IntegrityError as error:
        # Named by PostgreSQL and MariaDB; SQLite says which columns.
        if not any(word in str(error) for word in ("jit_decision_one_per_person", "UNIQUE")):
            raise
        raise AlreadyDecided("You have decided this request before.") from error
    data = transitions.said(comment, by)
    return {**data, "on_behalf_of": on_behalf_of} if on_behalf_of else data


def _quorum_is_met(row: ApprovalRequest, alias: str) -> bool:
    """Count the votes of deciders of this moment; the one just cast was checked under the lock."""
    if row.weighed:
        return policies.has_quorum(row)
    if row.required_approvals <= 1:
        return True
    (counted,) = _WITH_VOTES.rows(using=alias, where={"id": row.pk})
    return bool(counted.votes >= row.required_approvals)  # type: ignore[attr-defined]


def _hand_to_server(row: ApprovalRequest, alias: str) -> None:
    """Let a worker run the call once this is committed; without one, or if the task is lost, the clock does."""
    due = {"next_attempt_at": row.now}
    prepared.update(StoredCall, due, using=alias, where={"pk": row.pk})
    queue.enqueue(RUN, str(row.pk), using=alias, inline=False)


def _enough_votes(row: ApprovalRequest, alias: str) -> tuple[str, ...]:
    """Return the guard that compares votes and quorum; where SQL cannot, count them under a lock.

    Raises:
        IllegalTransition: counted here, they do not suffice.
    """
    if not row.weighed:
        return (f"required_approvals <= {policies.valid_votes_sql()}",)
    if not policies.has_quorum(transitions.locked(row.pk, alias)):
        raise IllegalTransition("Who approved may not decide any more.")
    return ()

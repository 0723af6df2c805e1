"""The life of an approval request: the one way in for each change of state, and the only writer of `status`.

Each service is one durable transaction: it has been committed when the service returns, or it raised and
nothing changed. Who moves, moves by one conditional UPDATE, so of any number that race one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import models

from jit_approval import conf, opening, policies, prepared, queue, transitions, verdicts, voting
from jit_approval.audit import beforehand
from jit_approval.calls import Call, Origin, Terms
from jit_approval.exceptions import (
    ApprovalUnavailable,
    IllegalTransition,
    NotTheRequester,
)
from jit_approval.models import ApprovalRequest, StoredCall
from jit_approval.policies import ladder
from jit_approval.policies.terms import is_meaningful
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
    opening.ensure_reason(call.shown.reason, terms)
    try:
        with transitions.durable() as alias:
            row = opening.write(call, terms, troubles, alias)
            if also is not None:
                also(row, alias)
            return row
    except ApprovalUnavailable:
        verdicts.alert_unavailable(call, terms)
        raise


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
        RequestRewritten: it is not what was asked, says the trail: somebody has changed it in the database.
        CommentTooLong: the comment exceeds `MAX_REASON_LENGTH`.
    """
    with transitions.durable() as alias:
        row, standing = voting.locked_for(by, approval_request, Status.APPROVED, alias)
        row.weighed = voting.is_weighed(row) or bool(standing.on_behalf_of or standing.linked)
        data = voting.cast(row, by, standing, Verdict.APPROVE, comment, alias)
        weighed = {"weighed": row.weighed}
        if not voting.quorum_is_met(row, alias):
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
        if row.execution == Execution.SERVER:
            _hand_to_server(row, alias)  # first: messages are in less of a hurry
        return transitions.move(
            row,
            to=Status.APPROVED,
            by=by,
            alias=alias,
            changes={**weighed, **_usable_from_now(row)},
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

    Raises: as `approve`, but that a request that was rewritten is rejected like any other.
    """
    with transitions.durable() as alias:
        row, standing = voting.locked_for(by, approval_request, Status.REJECTED, alias)
        data = voting.cast(row, by, standing, Verdict.REJECT, comment, alias)
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
            guards=voting.enough_votes(row, alias),
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


def _usable_from_now(row: ApprovalRequest) -> dict[str, Any]:
    until = row.now + row.usable_within
    return {
        "decided_at": row.now,
        "usable_until": until,
        "due_at": until,
        "warned": False,
        "wake_at": ladder.use_notice(row, row.now, until),
    }


def _as_person(origin: Origin | None, person: str) -> Origin:
    return (origin or Origin()).of(person)


def _hand_to_server(row: ApprovalRequest, alias: str) -> None:
    """Let a worker run the call once this is committed; without one, or if the task is lost, the clock does."""
    due = {"next_attempt_at": row.now}
    prepared.update(StoredCall, due, using=alias, where={"pk": row.pk})
    queue.enqueue(RUN, str(row.pk), using=alias, inline=False)

"""The life of an approval request: the one way in for each change of state, and the only writer of `status`.

Each service is one durable transaction: it has been committed when the service returns, or it raised and
nothing changed. Who moves, moves by one conditional UPDATE, so of any number that race one wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, models, transaction
from django.dispatch import Signal

from jit_approval import clock, conf, limits, policies, prepared, signals
from jit_approval.audit import chain
from jit_approval.calls import Call, Terms
from jit_approval.exceptions import (
    AlreadyDecided,
    ApprovalUnavailable,
    CommentTooLong,
    IllegalTransition,
    NotDurable,
    NotTheRequester,
    ReasonRequired,
)
from jit_approval.models import ApprovalRequest, Decision, Notification
from jit_approval.notifications import outbox
from jit_approval.redaction import seen, visible
from jit_approval.states import Outcome, Status, Verdict, is_legal

_CLOSED: Mapping[str, Any] = {"open_key": None, "due_at": None}
_SIGNALS = {
    Status.APPROVED: signals.request_approved,
    Status.REJECTED: signals.request_rejected,
    Status.CANCELLED: signals.request_cancelled,
    Status.REVOKED: signals.request_revoked,
    Status.EXPIRED: signals.request_expired,
    Status.CONSUMED: signals.request_consumed,
}


def _now(alias: str) -> prepared.Extra:
    return "now", clock.now_sql(alias), models.DateTimeField()


_WITH_NOW = prepared.Select(ApprovalRequest, extras=lambda alias: (_now(alias),))
_FOUND = prepared.Select(
    ApprovalRequest, extras=lambda alias: (_now(alias),), without=("payload", "context")
)
_WITH_AUTHORITY = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (
        _now(alias),
        ("authority", policies.authority_of_user_sql(), models.IntegerField()),
    ),
)
_WITH_VOTES = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (("votes", policies.valid_votes_sql(), models.IntegerField()),),
)


def open_request(call: Call, terms: Terms) -> ApprovalRequest:
    """Hold a call: write the pending request, its first event and the message to its deciders.

    Raises:
        ReasonRequired: the terms want a reason and the call gives none worth the name.
        CoolingDown, TooManyPending: the limits leave no room (see `limits`).
        ApprovalUnavailable: nobody but the requester could decide; nothing is opened.
        django.db.IntegrityError: an identical call was opened meanwhile; read it instead.
    """
    if terms.require_reason and not is_meaningful(call.shown.reason):
        raise ReasonRequired("Say why in the Approval-Reason header.")
    with _durable() as alias:
        now = limits.ensure_may_open(call, terms, using=alias)
        if not policies.quorum_is_reachable(
            terms.policy_id, terms.required_approvals, call.persons
        ):
            raise ApprovalUnavailable("Nobody who could approve this call is there to ask.")
        row = _row(call, terms, now)
        data = {"fingerprint": row.fingerprint, "action": row.action, "terms": _as_data(terms)}
        event = chain.next_event(
            row, "held", at=now, by=call.requester, target=Status.PENDING, data=data
        )
        row.audit_seq, row.audit_head = event.sequence, event.hash
        prepared.insert(row, using=alias)
        prepared.insert(event, using=alias)
        outbox.write(row, Notification.Event.HELD, at=now, using=alias)
        _announce(signals.request_opened, row, alias)
        return row


def approve(
    approval_request: ApprovalRequest, *, by: models.Model, comment: str = ""
) -> ApprovalRequest:
    """Vote for the call. At the quorum, of votes that are valid still, the call may run once.

    Raises:
        SelfApprovalForbidden, MayNotDecide: `by` stands behind the call, or is not a decider of it now.
        AlreadyDecided: `by`'s person has voted.
        IllegalTransition: the request is no longer pending, or its time is up.
        CommentTooLong: the comment exceeds `MAX_REASON_LENGTH`.
    """
    with _durable() as alias:
        row = _locked_for(by, approval_request.pk, Status.APPROVED, alias)
        _cast(row, by, Verdict.APPROVE, comment, alias)
        if not _quorum_is_met(row, alias):
            return _advance(
                row,
                "vote",
                by=by,
                alias=alias,
                at=row.now,
                data={"verdict": Verdict.APPROVE.value, "comment": _fit(comment)},
                where={"status": Status.PENDING},
            )
        until = row.now + row.usable_within
        changes = {"decided_at": row.now, "usable_until": until, "due_at": until}
        return _move(row, to=Status.APPROVED, by=by, alias=alias, changes=changes)


def reject(
    approval_request: ApprovalRequest, *, by: models.Model, comment: str = ""
) -> ApprovalRequest:
    """Refuse the call for good: one rejection ends the request, whatever the quorum.

    Raises: as `approve`.
    """
    with _durable() as alias:
        row = _locked_for(by, approval_request.pk, Status.REJECTED, alias)
        _cast(row, by, Verdict.REJECT, comment, alias)
        changes = {**_CLOSED, "decided_at": row.now}
        changes["cooldown_until"] = row.now + row.rejection_cooldown
        return _move(row, to=Status.REJECTED, by=by, alias=alias, changes=changes)


def cancel(
    approval_request: ApprovalRequest, *, by: models.Model | None, comment: str = ""
) -> ApprovalRequest:
    """Withdraw a pending request: by its requester, or by the system (None) when it is superseded.

    Raises:
        NotTheRequester: `by` did not make the call.
        IllegalTransition: the request is no longer pending, or its time is up.
    """
    with _durable() as alias:
        row = _locked(approval_request.pk, alias)
        if by is not None and not stands_behind(by, row):
            raise NotTheRequester("Only who made the call may withdraw it.")
        return _move(row, to=Status.CANCELLED, by=by, alias=alias, changes=_CLOSED, comment=comment)


def revoke(
    approval_request: ApprovalRequest, *, by: models.Model | None, comment: str = ""
) -> ApprovalRequest:
    """Take back an unused approval: by a decider, by the requester, or by the system (None).

    Raises:
        MayNotDecide: `by` is neither a decider of this request nor its requester.
        IllegalTransition: the approval has been used, or is over.
    """
    with _durable() as alias:
        row = _locked(approval_request.pk, alias)
        if by is not None and not stands_behind(by, row):
            policies.ensure_may_decide(by, row)
        return _move(row, to=Status.REVOKED, by=by, alias=alias, changes=_CLOSED, comment=comment)


def consume(
    approval_request: ApprovalRequest, *, state_digest: str, by: models.Model | None = None
) -> ApprovalRequest:
    """Spend the approval: when this returns, this caller alone may run the call, once, now.

    One UPDATE decides: approved, in time, the audit head and the state the deciders saw unchanged, and
    enough of the votes given by persons who are deciders still. `by` is the requester, if at hand.

    Raises:
        IllegalTransition: it was not spendable, or somebody else was first. Nothing may run.
    """
    with _durable() as alias:
        row = approval_request
        enough = f"required_approvals <= {policies.valid_votes_sql()}"
        changes = {
            "open_key": None,
            "outcome": Outcome.RUNNING,
            "consumed_at": row.now,
            "due_at": row.now + conf.get().RUN_LIMIT,
        }
        return _move(
            row,
            to=Status.CONSUMED,
            by=by or row.requester,
            alias=alias,
            changes=changes,
            where={"state_digest": state_digest},
            guards=(enough,),
        )


def expire(approval_request: ApprovalRequest) -> ApprovalRequest:
    """Record that the deadline in force has passed. Access ended at the deadline, not here.

    Raises:
        IllegalTransition: it is not overdue by the database's clock, or not open any more.
    """
    with _durable() as alias:
        row = _locked(approval_request.pk, alias)
        return _move(row, to=Status.EXPIRED, by=None, alias=alias, changes=_CLOSED)


def record_outcome(
    approval_request: ApprovalRequest,
    *,
    outcome: Outcome,
    response_status: int | None = None,
    exception: str = "",
    elapsed: timedelta | None = None,
) -> ApprovalRequest:
    """Write down how a run ended: the HTTP status, or the class of the exception.

    `elapsed` is how long the run took by a monotonic clock: added to its start it gives the database's time
    without asking for it. None where a sweeper finds a run without an end: then `now` as read with the row.

    Raises:
        IllegalTransition: the end of this run has been recorded before.
    """
    with _durable() as alias:
        row = approval_request
        at = row.now if elapsed is None else (row.consumed_at or row.now) + elapsed
        changes = {
            "outcome": outcome,
            "response_status": response_status,
            "exception": exception[:200],
            "finished_at": at,
            "due_at": None,
        }
        data = {"outcome": outcome.value, "status": response_status, "exception": exception[:200]}
        where = {"status": Status.CONSUMED, "outcome": Outcome.RUNNING}
        _advance(row, "outcome", alias=alias, at=at, data=data, changes=changes, where=where)
        if outcome is Outcome.UNKNOWN:
            outbox.write(row, Notification.Event.UNKNOWN, at=at, using=alias)
        _announce(signals.outcome_recorded, row, alias)
        return row


def settle(
    approval_request: ApprovalRequest, *, by: models.Model, outcome: Outcome, comment: str = ""
) -> ApprovalRequest:
    """Say what became of a run whose end nobody recorded; until then identical calls stay refused.

    `by` is a decider who has looked; never who made the call. Settled to `succeeded` or `failed`.

    Raises:
        SelfApprovalForbidden, MayNotDecide: as `approve`.
        IllegalTransition: the outcome is not `unknown`, or would be no outcome of a run that is over.
    """
    if outcome not in (Outcome.SUCCEEDED, Outcome.FAILED):
        raise IllegalTransition("A run is settled as succeeded or failed.")
    with _durable() as alias:
        row = _locked(approval_request.pk, alias)
        policies.ensure_may_decide(by, row)
        data = {"outcome": outcome.value, "comment": _fit(comment)}
        where = {"status": Status.CONSUMED, "outcome": Outcome.UNKNOWN}
        changes = {"outcome": outcome}
        return _advance(
            row,
            "settled",
            by=by,
            alias=alias,
            at=row.now,
            data=data,
            where=where,
            changes=changes,
        )


def is_meaningful(reason: str) -> bool:
    """Tell whether a reason says anything: three different letters or digits, so "." and "aaa" do not."""
    return len({character for character in seen(reason) if character.isalnum()}) >= 3


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


@contextmanager
def _durable() -> Iterator[str]:
    """Open the transaction of a service: the outermost one, or an error.

    Inside a caller's transaction a rollback would bring a spent approval back to life; with autocommit off
    nothing would be committed at all.
    """
    alias = policies.database()
    ensure_durable(alias)
    with transaction.atomic(using=alias, durable=True):
        yield alias


def ensure_durable(alias: str) -> None:
    """Refuse to go on where a commit would not be one. The wrapping of Django's own TestCase is allowed.

    Raises:
        NotDurable: a transaction is open on `alias`, or autocommit is off.
    """
    connection = connections[alias]
    blocks = connection.atomic_blocks
    if blocks and not getattr(blocks[-1], "_from_testcase", False):
        raise NotDurable(f"A transaction is open on database {alias!r}.")
    if not blocks and not connection.get_autocommit():
        raise NotDurable(f"Autocommit is off on database {alias!r}.")


def _row(call: Call, terms: Terms, now: datetime) -> ApprovalRequest:
    shown, bound = call.shown, call.bound
    decide_by = now + terms.decide_within
    return ApprovalRequest(
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
        usable_within=terms.usable_within,
        rejection_cooldown=terms.rejection_cooldown,
        created_at=now,
        decide_by=decide_by,
        due_at=decide_by,
        **vars(shown),
    )


def _as_data(terms: Terms) -> dict[str, Any]:
    return {
        name: int(value.total_seconds() * 1000) if isinstance(value, timedelta) else value
        for name, value in vars(terms).items()
    }


def _locked(pk: UUID, alias: str) -> ApprovalRequest:
    return _the(_WITH_NOW.rows(using=alias, where={"id": pk}, tail=_for_update(alias)))


def _locked_for(by: Any, pk: UUID, target: Status, alias: str) -> ApprovalRequest:
    """Lock the request and read, in the same statement, whether `by` has authority over it."""
    row = _the(
        _WITH_AUTHORITY.rows(
            using=alias,
            where={"id": pk},
            tail=_for_update(alias),
            extras_params=(policies.user_key(by, alias),),
        )
    )
    policies.ensure_may_decide(by, row, authority=bool(row.authority))  # type: ignore[attr-defined]
    _ensure_legal(row, target)
    return row


def _for_update(alias: str) -> str:
    # SQLite locks the whole database: IMMEDIATE did so when the transaction began.
    return "FOR UPDATE" if connections[alias].features.has_select_for_update else ""


def _the(rows: list[ApprovalRequest]) -> ApprovalRequest:
    if not rows:
        raise ApprovalRequest.DoesNotExist("There is no such approval request.")
    return rows[0]


def _ensure_legal(row: ApprovalRequest, target: Status) -> None:
    if not is_legal(row.status, target):
        raise IllegalTransition(f"The request is {row.status}; it cannot become {target.value}.")
    late = row.is_overdue(row.now)
    if late is not (target is Status.EXPIRED):
        raise IllegalTransition(
            "The time for this is over." if late else "The request's time is not up yet."
        )


def _fit(comment: str) -> str:
    """Return the comment fit to be stored and shown."""
    if len(comment) > conf.get().MAX_REASON_LENGTH:
        raise CommentTooLong(f"A comment has at most {conf.get().MAX_REASON_LENGTH} characters.")
    return visible(comment)


def _said(comment: str, by: Any) -> dict[str, str]:
    if not comment:
        return {}
    # What the system says is its own; it is cut, for nothing may fail for want of room.
    return {"comment": visible(comment)[:500] if by is None else _fit(comment)}


def _cast(row: ApprovalRequest, by: Any, verdict: Verdict, comment: str, alias: str) -> None:
    decision = Decision(
        approval_request_id=row.pk,
        decider_id=by.pk,
        decider_label=visible(by.get_username())[:254],
        person=policies.person_of(by),
        verdict=verdict,
        comment=_fit(comment),
        created_at=row.now,
    )
    try:
        prepared.insert(decision, using=alias)
    except IntegrityError as error:
        raise AlreadyDecided("You have decided this request before.") from error


def _quorum_is_met(row: ApprovalRequest, alias: str) -> bool:
    """Count the votes of deciders of this moment; the one just cast was checked under the lock."""
    if row.required_approvals <= 1:
        return True
    (counted,) = _WITH_VOTES.rows(using=alias, where={"id": row.pk})
    return bool(counted.votes >= row.required_approvals)  # type: ignore[attr-defined]


def _move(
    row: ApprovalRequest,
    *,
    to: Status,
    by: Any,
    alias: str,
    changes: Mapping[str, Any],
    where: Mapping[str, Any] | None = None,
    guards: tuple[str, ...] = (),
    comment: str = "",
) -> ApprovalRequest:
    """Write the new status if status, deadline and audit head are as read. Nothing else writes it."""
    _ensure_legal(row, to)
    in_time = f"due_at {'<=' if to is Status.EXPIRED else '>'} {clock.now_sql(alias)}"
    source = Status(row.status)
    _advance(
        row,
        to.value,
        by=by,
        alias=alias,
        at=row.now,
        data=_said(comment, by),
        source=source,
        where={"status": source, **(where or {})},
        guards=(in_time, *guards),
        changes={**changes, "status": to},
    )
    event = _told(source, to, by)
    if event is not None:
        outbox.write(row, event, at=row.now, using=alias)
    _announce(_SIGNALS[to], row, alias)
    return row


def _advance(
    row: ApprovalRequest,
    kind: str,
    *,
    alias: str,
    at: datetime,
    data: Mapping[str, Any],
    where: Mapping[str, Any],
    guards: tuple[str, ...] = (),
    changes: Mapping[str, Any] | None = None,
    by: Any = None,
    source: str = "",
) -> ApprovalRequest:
    """Change the row and add the event that says so; the audit head is compared, so one writer wins.

    Raises:
        IllegalTransition: the row is not as it was read.
    """
    changes = dict(changes or {})
    target = str(changes.get("status", ""))
    event = chain.next_event(row, kind, at=at, by=by, source=source, target=target, data=data)
    changes.update(audit_seq=event.sequence, audit_head=event.hash)
    as_read = {"id": row.pk, "audit_seq": row.audit_seq, **where}
    if not prepared.update(ApprovalRequest, changes, using=alias, where=as_read, guards=guards):
        raise IllegalTransition("The request has moved on, or its time is over.")
    prepared.insert(event, using=alias)
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def _told(source: Status, to: Status, by: Any) -> Notification.Event | None:
    """Return what people are told of a move. Who withdrew or ran a call knows it."""
    if to in (Status.APPROVED, Status.REJECTED):
        return Notification.Event.DECIDED
    if to is Status.CANCELLED and by is None:
        return Notification.Event.CANCELLED
    return {
        Status.EXPIRED: Notification.Event.EXPIRED,
        Status.REVOKED: Notification.Event.REVOKED,
    }.get(to)


def _announce(signal: Signal, row: ApprovalRequest, alias: str) -> None:
    send = partial(signal.send_robust, sender=ApprovalRequest, approval_request=row)
    transaction.on_commit(send, using=alias, robust=True)

"""Votes: who may cast one, the vote itself, and whether there are enough. Private to `services`."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, connections, models

from jit_approval import policies, prepared, transitions
from jit_approval.audit import shown
from jit_approval.exceptions import AlreadyDecided, IllegalTransition, MayNotDecide
from jit_approval.models import ApprovalRequest, AuditEvent, Decision
from jit_approval.policies import delegations
from jit_approval.redaction import visible
from jit_approval.states import Status, Verdict


def _held_body_sql(alias: str) -> str:
    """Return SQL of what the trail says was asked, beside the request itself; NULL where it says that it is over."""
    quote = connections[alias].ops.quote_name
    events, requests = (quote(model._meta.db_table) for model in (AuditEvent, ApprovalRequest))
    moved = (
        f"SELECT 1 FROM {events} x WHERE x.approval_request_id = {requests}.id "  # noqa: S608
        "AND x.sequence > 1 AND x.target <> ''"
    )
    return (
        f"(SELECT CASE WHEN e.kind = 'held' AND NOT EXISTS ({moved}) THEN e.body END FROM {events} e"  # noqa: S608
        f" WHERE e.approval_request_id = {requests}.id AND e.sequence = 1)"
    )


@cache
def _with_authority(ways: policies.Ways) -> prepared.Select[ApprovalRequest]:
    return prepared.Select(
        ApprovalRequest,
        extras=lambda alias: (
            transitions.now_extra(alias),
            ("own", policies.authority_of_user_sql(ways), models.IntegerField()),
            ("delegates", delegations.touches_sql(alias), models.IntegerField()),
            ("held_body", _held_body_sql(alias), models.TextField()),
        ),
    )


_WITH_VOTES = prepared.Select(
    ApprovalRequest,
    extras=lambda alias: (
        ("votes", policies.valid_votes_sql(policies.Ways()), models.IntegerField()),
    ),
)


def locked_for(
    by: Any, approval_request: ApprovalRequest, target: Status, alias: str
) -> tuple[ApprovalRequest, policies.Standing]:
    """Lock the request, and read in the same statement what gives `by` authority over it.

    What was rewritten since it was held is not approved: who did so has shown something else than was asked.
    """
    if not isinstance(by, get_user_model()) or by.pk is None:
        raise MayNotDecide("You are not among the deciders of this request.")
    # Ways that came since it was read only cost more: without authority by those asked here, all are asked.
    key = policies.user_key(by, alias)
    row = transitions.the(
        _with_authority(policies.ways_of(approval_request)).rows(
            using=alias,
            where={"id": approval_request.pk},
            tail=transitions.for_update(alias),
            extras_params=(key, key, key),
        )
    )
    own, delegates = bool(row.own), bool(row.delegates)  # type: ignore[attr-defined]
    standing = policies.ensure_may_decide(by, row, own=own, delegates=delegates)
    transitions.ensure_legal(row, target)
    if target is Status.APPROVED:
        shown.ensure_as_held(row, row.held_body)  # type: ignore[attr-defined]
    return row, standing


def cast(
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


def is_weighed(row: ApprovalRequest) -> bool:
    """Tell whether SQL alone cannot count the votes. By the terms, too, which were compared with what was held."""
    by_terms = bool(row.group_requirements) or row.object_permission is not None
    return row.weighed or by_terms


def quorum_is_met(row: ApprovalRequest, alias: str) -> bool:
    """Count the votes of deciders of this moment; the one just cast was checked under the lock."""
    if row.weighed:
        return policies.has_quorum(row)
    if row.required_approvals <= 1:
        return True
    (counted,) = _WITH_VOTES.rows(using=alias, where={"id": row.pk})
    return bool(counted.votes >= row.required_approvals)  # type: ignore[attr-defined]


def enough_votes(row: ApprovalRequest, alias: str) -> tuple[str, ...]:
    """Return the guard that compares votes and quorum; where SQL cannot, count them under a lock.

    Raises:
        IllegalTransition: counted here, they do not suffice.
    """
    if not is_weighed(row):
        # The statement holds only for the row as it was read: a step taken since has another `audit_seq`.
        votes = policies.valid_votes_sql(policies.ways_of(row))
        return (f"required_approvals <= {votes}",)
    if not policies.has_quorum(transitions.locked(row.pk, alias)):
        raise IllegalTransition("Who approved may not decide any more.")
    return ()

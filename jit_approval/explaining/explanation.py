"""One call that somebody might make: which policy it falls under, why, who could decide it, and by when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.http import QueryDict
from django.utils import timezone

from jit_approval import clock, conf, facts, policies, policy_changes
from jit_approval.calls import Terms
from jit_approval.exceptions import MayNotDecide
from jit_approval.models import ApprovalRequest
from jit_approval.policies import delegations, rungs
from jit_approval.states import Effect

MAX_NAMES = 50
"""Deciders that are named; the others are counted."""
RUNS = "runs"
"""What comes of a call that no policy applies to where only policies hold: it runs."""
UNGATED = "ungated"
"""No gate stands before the action: it runs, whatever policies say."""
UNAVAILABLE = "unavailable"
"""It would have to be approved, and those who could decide do not suffice: refused."""
REFUSED = "refused"
"""The caller is refused before any policy is asked."""
# As `policy_changes.propose` has them.
_CHANGE = "CHANGE"
_MAY_CHANGE = "jit_approval.change_approvalpolicy"
_GATE_IS_OFF = "GATE_POLICY_CHANGES is off: changes of policies are made at once."
_SLUGS = "Conditions read the slugs of the policies that change as request.data.policies."
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")


@dataclass(frozen=True)
class Asked:
    """The call in question. `user` is a row of the user model, `context` what the view would expose."""

    action: str
    user: Any
    method: str = "POST"
    path: str = "/"
    query: str = ""
    ip: str = ""
    agent: str = ""
    # Approval-Agent, or what the credential would prove; `agent` is the User-Agent.
    acts_for: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    object_pk: str = ""
    # The gate is RequiresApprovalByPolicy: where no policy applies, the call runs.
    by_policy: bool = False
    # No gate stands before the action at all.
    is_open: bool = False


@dataclass(frozen=True)
class Decider:
    """Somebody who could decide it. `on_behalf_of`: whose authority it rests on, where it is not their own."""

    name: str
    on_behalf_of: tuple[str, ...] = ()
    is_staff: bool = True


@dataclass(frozen=True)
class Explanation:
    """What would come of the call now. `outcome` is an effect, or one of the words above.

    What follows the notes is of a call that would have to be approved only.
    """

    asked: Asked
    match: policies.Match
    outcome: str
    notes: tuple[str, ...] = ()
    terms: Terms | None = None
    deciders: tuple[Decider, ...] = ()
    deciders_count: int = 0
    is_reachable: bool = True
    decide_by: datetime | None = None
    # At the latest: counted from the moment of the approval.
    usable_until: datetime | None = None

    @property
    def is_held(self) -> bool:
        """Whether the call would have to be approved."""
        return self.terms is not None


def explain(asked: Asked) -> Explanation:
    """Return what would come of the call now. Nothing is written, and nobody is told."""
    is_change = asked.action == policy_changes.ACTION
    asked = _as_change(asked) if is_change else asked
    known = _facts(asked)
    found = policies.explain(
        asked.action,
        lambda: known,
        or_default=not asked.by_policy,
        without=(Effect.ALLOW,) if is_change else (),
    )
    outcome = _outcome(asked, found)
    if outcome != Effect.REQUIRE:
        return Explanation(asked, found, outcome, _notes(asked))
    terms = policies.terms_of(found)
    terms = policies.on_object(terms, terms.object_permission_model, asked.object_pk)
    row = _as_request(asked, terms)
    able = policies.deciders_of(row)
    is_reachable = policies.quorum_is_reachable(terms, row.persons, object_pk=row.object_pk)
    now = clock.now(policies.database())
    return Explanation(
        asked,
        found,
        outcome if is_reachable else UNAVAILABLE,
        (*_notes(asked), *_notes_on(terms, asked)),
        terms=terms,
        deciders=_named(able[:MAX_NAMES], row),
        deciders_count=len(able),
        is_reachable=is_reachable,
        decide_by=now + terms.decide_within,
        usable_until=now + terms.decide_within + terms.usable_within,
    )


def _as_change(asked: Asked) -> Asked:
    """Return the call as a change of policies is asked about: `data` names them, and there is no HTTP request."""
    slugs = asked.data.get("policies", []) if isinstance(asked.data, Mapping) else []
    return Asked(
        action=asked.action,
        user=asked.user,
        method=_CHANGE,
        path="",
        ip=asked.ip,
        data={"policies": slugs},
        is_open=not policy_changes.is_gated(),
    )


def _may_propose(asked: Asked) -> bool:
    return asked.action != policy_changes.ACTION or asked.user.has_perm(_MAY_CHANGE)


def _outcome(asked: Asked, found: policies.Match) -> str:
    if asked.is_open:
        return UNGATED
    if not asked.user.is_active or not _may_propose(asked):
        return REFUSED
    return RUNS if found.policy is None and asked.by_policy else str(found.effect)


def _facts(asked: Asked) -> dict[str, Any]:
    """Return what conditions would be asked about, shaped as for a live call."""
    query = QueryDict(asked.query).lists()
    return {
        "action": asked.action,
        "agent": asked.acts_for,
        "request": {
            "method": "GET" if asked.method == "HEAD" else asked.method,
            "path": asked.path,
            "query": {
                name: values[0] if len(values) == 1 else list(values) for name, values in query
            },
            "data": asked.data,
            "ip": asked.ip,
            "headers": {
                name.lower(): value
                for name, value in asked.headers.items()
                if name.lower() in _allowed_headers()
            },
            "agent": asked.agent,
        },
        "user": facts.of_user(asked.user),
        "object": dict(asked.context),
        "now": timezone.now(),
    }


def _allowed_headers() -> set[str]:
    return {name.lower() for name in conf.get().CONDITION_HEADERS}


def _notes(asked: Asked) -> tuple[str, ...]:
    """Return what the gate asks apart from policies, where this call meets it."""
    notes = []
    if not asked.user.is_active:
        notes.append(
            "The account is deactivated: its calls are refused before any policy is asked."
        )
    elif not _may_propose(asked):
        notes.append(f"Only who holds {_MAY_CHANGE} may propose a change of policies.")
    if asked.action == policy_changes.ACTION:
        notes.append(_GATE_IS_OFF if asked.is_open else _SLUGS)
    if asked.method in _SAFE:
        notes.append(f"{asked.method} is gated only where the view's approval_methods names it.")
    hidden = sorted(name for name in asked.headers if name.lower() not in _allowed_headers())
    if hidden:
        notes.append(f"Not in CONDITION_HEADERS, so conditions do not see it: {', '.join(hidden)}.")
    return tuple(notes)


def _notes_on(terms: Terms, asked: Asked) -> tuple[str, ...]:
    if not terms.object_permission_label or asked.object_pk:
        return ()
    name = terms.object_permission_label
    return (f"Whoever holds {name} on the object may decide too: give its key to have them named.",)


def _as_request(asked: Asked, terms: Terms) -> ApprovalRequest:
    """Return the request that would be opened, as far as deciders depend on it; never saved."""
    return ApprovalRequest(
        action=asked.action,
        requester_id=asked.user.pk,
        requester_person=policies.person_of(asked.user),
        persons=[policies.person_of(asked.user)],
        policy_id=terms.policy_id,
        object_permission=terms.object_permission,
        object_pk=asked.object_pk,
    )


def _named(users: list[Any], row: ApprovalRequest) -> tuple[Decider, ...]:
    """Return the deciders by name. Two queries, and two for each who takes part in a delegation."""
    ties = delegations.touching([user.pk for user in users])
    stand_ins = {each.stand_in_id for each in ties}
    return tuple(
        Decider(
            str(user.get_username()),
            _lenders(user, row) if user.pk in stand_ins else (),
            bool(getattr(user, "is_staff", True)),
        )
        for user in users
    )


def _lenders(user: Any, row: ApprovalRequest) -> tuple[str, ...]:
    try:
        return policies.ensure_may_decide(user, row).on_behalf_of
    except MayNotDecide:
        return ()  # the delegation ended between two queries


# --- as plain data -----------------------------------------------------------------------------------------


def as_data(found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON has it, times in UTC with Z."""
    policy, asked = found.match.policy, found.asked
    return {
        "action": asked.action,
        "user": str(asked.user.get_username()),
        "method": asked.method,
        "by_policy": asked.by_policy,
        "outcome": found.outcome,
        "policy": policy.slug if policy else None,
        "notes": list(found.notes),
        "troubles": [
            {"policy": one.policy.slug, "error": one.error} for one in found.match.troubles
        ],
        "considered": [
            {
                "policy": one.policy.slug,
                "effect": str(one.policy.effect),
                "priority": one.policy.priority,
                "verdict": one.verdict,
                "why": one.why,
            }
            for one in found.match.considered
        ],
        "held": _held_as_data(found, found.terms) if found.terms else None,
    }


def _held_as_data(found: Explanation, terms: Terms) -> dict[str, Any]:
    return {
        "required_approvals": terms.required_approvals,
        "group_requirements": {name: count for _key, name, count in terms.group_requirements},
        "object_permission": terms.object_permission_label or None,
        "severity": str(terms.severity),
        "execution": str(terms.execution),
        "require_reason": terms.require_reason,
        "reason_pattern": terms.reason_pattern,
        "require_approval_id": terms.require_approval_id,
        "decide_within": terms.decide_within.total_seconds(),
        "usable_within": terms.usable_within.total_seconds(),
        "max_wait": terms.max_wait.total_seconds(),
        "decide_by": _utc(found.decide_by),
        "usable_until": _utc(found.usable_until),
        "steps": rungs.of_terms(terms),
        "quorum_is_reachable": found.is_reachable,
        "deciders_count": found.deciders_count,
        "deciders": [
            {"name": one.name, "on_behalf_of": list(one.on_behalf_of), "is_staff": one.is_staff}
            for one in found.deciders
        ],
    }


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

"""How far a request is from its quorum, for people: who has yet to be asked. Deciding counts for itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jit_approval import quorum
from jit_approval.models import ApprovalRequest, Decision
from jit_approval.policies import delegations
from jit_approval.policies.counting import valid_votes
from jit_approval.policies.deciders import memberships
from jit_approval.states import Verdict


@dataclass(frozen=True)
class Represented:
    """A group of which `needed` approvals must come, and how many have."""

    group: str
    given: int
    needed: int

    @property
    def missing(self) -> int:
        """How many are still to come."""
        return max(self.needed - self.given, 0)


@dataclass(frozen=True)
class Progress:
    """Approvals that count, of those needed in all; and of each group to be represented.

    `void` approvals were given and do not count: their givers may not decide any more, or two of them fill
    one place together.
    """

    given: int
    needed: int
    groups: tuple[Represented, ...] = ()
    void: int = 0

    @property
    def missing(self) -> int:
        """How many more persons it takes at least."""
        return max(self.needed - self.given, sum(each.missing for each in self.groups))


def of(approval_request: ApprovalRequest) -> Progress:
    """Return where an open request stands now, by the votes that are valid still. Three queries at most."""
    return _progress(approval_request, valid_votes(approval_request))


def of_closed(approval_request: ApprovalRequest) -> Progress:
    """Return how many approved a request that is open no more, and how many it took. No query."""
    return Progress(approval_request.approvals_given, _needed(approval_request))


def of_page(rows: Iterable[ApprovalRequest]) -> dict[Any, Progress]:
    """Return where each of many requests stands, in two queries at most.

    For lists: votes are taken as valid, as when they were cast; the request's own page looks more closely.
    """
    listed = list(rows)
    cast = {row.pk: [each for each in row.decisions.all() if _is_approval(each)] for row in listed}
    groups = {
        key for row in listed if cast[row.pk] for key, _name, _count in row.group_requirements
    }
    keys = {vote.decider_id for votes in cast.values() for vote in votes}
    ties = delegations.touching(keys) if groups else []
    users = keys | {each.delegator_id for each in ties}
    members = memberships(users, groups)
    return {
        row.pk: _progress(row, [_vote(each, row, ties, members) for each in cast[row.pk]])
        for row in listed
    }


def _is_approval(decision: Decision) -> bool:
    return decision.verdict == Verdict.APPROVE


def _vote(decision: Decision, row: ApprovalRequest, ties: list[Any], members: Any) -> quorum.Vote:
    lenders = [
        each.delegator_id
        for each in ties
        if each.stand_in_id == decision.decider_id
        and delegations.lends(each, row.policy_id)
        and str(each.delegator.get_username()) in decision.on_behalf_of
    ]
    groups = [members.get(key, frozenset()) for key in (decision.decider_id, *lenders)]
    return quorum.Vote(
        decision.person, frozenset().union(*groups), linked=frozenset(decision.linked)
    )


def _progress(row: ApprovalRequest, votes: list[quorum.Vote]) -> Progress:
    required = {key: count for key, _name, count in row.group_requirements}
    filled = quorum.places_filled(votes, required)
    counted = len(quorum.independent(votes))
    return Progress(
        counted,
        _needed(row),
        tuple(Represented(name, filled[key], count) for key, name, count in row.group_requirements),
        void=max(row.approvals_given - counted, 0),
    )


def _needed(row: ApprovalRequest) -> int:
    places = sum(int(count) for _key, _name, count in row.group_requirements)
    return max(1, row.required_approvals, places)

"""Do the votes suffice, or could they? What SQL alone cannot count: groups, stand-ins, permissions on objects."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models

from jit_approval import conf, prepared, quorum
from jit_approval.calls import Terms
from jit_approval.models import ApprovalRequest, Decision, Delegation
from jit_approval.policies import delegations, holders
from jit_approval.policies.deciders import able_among, memberships, own_authority
from jit_approval.policies.persons import database, is_behind, person_of
from jit_approval.redaction import visible
from jit_approval.states import Verdict


def has_quorum(approval_request: ApprovalRequest) -> bool:
    """Tell whether the approvals given by deciders of this moment suffice, groups and stand-ins considered."""
    row = approval_request
    groups = {key: count for key, _name, count in row.group_requirements}
    return quorum.is_met(valid_votes(row), row.required_approvals, groups)


def valid_votes(approval_request: ApprovalRequest) -> list[quorum.Vote]:
    """Return the approvals given by deciders of this moment, with whom each could stand for."""
    row = approval_request
    votes = [
        vote
        for vote in row.decisions.select_related("decider")
        if vote.verdict == Verdict.APPROVE and vote.decider is not None
    ]
    if not votes:
        return []
    ties = delegations.touching(vote.decider_id for vote in votes)
    lenders = {vote.pk: _lenders(vote, ties, row) for vote in votes}
    keys = [vote.decider_id for vote in votes]
    able = able_among([*keys, *(key for each in lenders.values() for key in each)], row)
    members = memberships(able, [key for key, _name, _count in row.group_requirements])
    barred = {
        each.stand_in_id
        for each in ties
        if is_behind(each.delegator, row.requester_id, row.persons)
    }
    counted = []
    for vote in votes:
        sources = {vote.decider_id, *lenders[vote.pk]} & able
        if not sources or vote.decider_id in barred:
            continue
        represented = frozenset().union(*(members.get(key, frozenset()) for key in sources))
        lent = frozenset(lenders[vote.pk][key] for key in sources - {vote.decider_id})
        # As they were tied when they voted: who names a stand-in later takes no vote back.
        counted.append(quorum.Vote(vote.person, represented, frozenset(vote.linked), lent))
    return counted


def _lenders(vote: Decision, ties: list[Delegation], row: ApprovalRequest) -> dict[Any, str]:
    """Return the persons (by user key) who lend to the vote still. Who did not when it was cast, does not now."""
    return {
        each.delegator_id: person_of(each.delegator)
        for each in ties
        if each.stand_in_id == vote.decider_id
        and delegations.lends(each, row.policy_id)
        and visible(each.delegator.get_username())[:254] in vote.on_behalf_of
        and person_of(each.delegator) in vote.linked
    }


def quorum_is_reachable(terms: Terms, persons: Iterable[str] = (), *, object_pk: str = "") -> bool:
    """Tell whether persons other than those behind the call could approve it now. One query, as a rule."""
    behind = set(persons)
    if (
        conf.get().PERSON_KEY == "pk"
        and not terms.group_requirements
        and (terms.object_permission is None)
    ):
        some = _some_deciders(terms.policy_id, terms.required_approvals + len(behind))
        if len(some) < terms.required_approvals or not some[0].delegates:
            return len({person_of(user) for user in some} - behind) >= terms.required_approvals
    return _could_meet(terms, behind, object_pk)


def is_reachable_still(approval_request: ApprovalRequest) -> bool:
    """Tell whether those who may decide this request now, ladder included, could still meet its quorum.

    Who has voted and may decide still counts among them; a vote of somebody who may not counts for nothing.
    Whom the requester made a stand-in is counted too: a requester hastens no escalation of their own call.
    """
    row = approval_request
    held = Terms(
        policy_id=row.policy_id,
        policy_slug=row.policy_slug,
        policy_version=row.policy_version,
        required_approvals=row.required_approvals,
        decide_within=row.decide_by - row.created_at,
        usable_within=row.usable_within,
        rejection_cooldown=row.rejection_cooldown,
        group_requirements=tuple((key, name, count) for key, name, count in row.group_requirements),
        object_permission=row.object_permission,
    )
    if quorum_is_reachable(held, row.persons, object_pk=row.object_pk):
        return True
    return _could_meet(held, set(row.persons), row.object_pk, row.pk, barring=False)


def _could_meet(
    terms: Terms, behind: set[str], object_pk: str, request: Any = None, *, barring: bool = True
) -> bool:
    """Count everyone who could vote as if they had. Who only stands in adds nobody to who lends.

    `barring`: leave out the stand-ins of who stands behind the call, as deciding does.
    """
    users = get_user_model()._base_manager.using(database())
    own = users.filter(
        own_authority(terms.policy_id, terms.object_permission, object_pk, request)
    ).order_by()
    able = {user.pk: person_of(user) for user in own}
    links: dict[Any, set[str]] = {}
    barred = set()
    for each in delegations.in_force():
        if barring and person_of(each.delegator) in behind:
            barred.add(each.stand_in_id)
        if delegations.covers(each, terms.policy_id):
            links.setdefault(each.stand_in_id, set()).add(person_of(each.delegator))
    groups = {key: count for key, _name, count in terms.group_requirements}
    members = memberships(able, groups)
    votes = [
        quorum.Vote(person, members.get(key, frozenset()), linked=frozenset(links.get(key, ())))
        for key, person in able.items()
        if person not in behind and key not in barred
    ]
    return quorum.is_met(votes, terms.required_approvals, groups)


def _some_deciders(policy_id: int | None, count: int) -> list[Any]:
    alias, user_model = database(), get_user_model()
    of_policy = policy_id is not None
    return _users(user_model).rows(
        using=alias,
        where={},
        guards=(holders.is_decider_sql(alias, user_model, of_policy=of_policy),),
        tail=f"LIMIT {int(count)}",
        params=(policy_id, policy_id) if of_policy else (),
    )


@cache
def _users(user_model: Any) -> prepared.Select[Any]:
    fields = [field.name for field in user_model._meta.concrete_fields if not field.primary_key]
    return prepared.Select(
        user_model,
        extras=lambda alias: (("delegates", delegations.any_sql(alias), models.IntegerField()),),
        without=tuple(fields),
    )

"""Erasure of what the rows beside the trail say of a person, or of requests that ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import models
from django.db.models import Q

from jit_approval import policies
from jit_approval.models import (
    ApprovalRequest,
    Callback,
    Decision,
    Delegation,
    EscalatedDecider,
    Notification,
    PolicyChange,
    PolicyVersion,
    PreferredChannel,
    StoredAnswer,
)
from jit_approval.policies import erased, versions
from jit_approval.states import OPEN, Outcome

UNENDED = (Outcome.RUNNING, Outcome.UNKNOWN)
"""Outcomes of calls that are not over."""

# Rows of one statement.
_BATCH = 2000
_GONE: dict[str, Any] = {
    "requester": None,
    "requester_label": "",
    "requester_person": "",
    "persons": [],
    "ladder": [],
    "credential": "",
    "parts": {},
    "state_parts": {},
    "path": "",
    "object_pk": "",
    "object_label": "",
    "payload": "",
    "payload_truncated": False,
    "context": {},
    "reason": "",
    "ip": "",
    "user_agent": "",
    "agent": "",
}


def clear_votes(keys: Sequence[Any], *, using: str) -> None:
    """Take away who voted, for whom, and what they said to it. The votes stay."""
    rows = Decision.objects.using(using)
    for pk in keys:
        # Of a person there is one vote on a request: without a name they must still differ.
        rows.filter(pk=pk).update(
            decider=None,
            decider_label="",
            person=f"erased {pk}",
            linked=[],
            comment="",
            on_behalf_of=[],
        )


def clear_requests(keys: Sequence[Any], *, using: str) -> None:
    """Take away what was asked for, by whom, what was said to it, and who was told. That it was, stays."""
    for first in range(0, len(keys), _BATCH):
        some = keys[first : first + _BATCH]
        Decision.objects.using(using).filter(approval_request__in=some).update(comment="")
        Notification.objects.using(using).filter(approval_request__in=some).delete()
        StoredAnswer.objects.using(using).filter(pk__in=some).delete()
        ApprovalRequest.objects.using(using).filter(pk__in=some).update(**_GONE)


def clear_person(name: str, user: Any | None, *, using: str) -> tuple[str, ...]:
    """Take away where a person is told, and what they, and policies that are over, said. In a transaction.

    Return the slugs of policies that still name them: of these all versions stay as they are.
    """
    person = policies.person_of(user) if user is not None else ""
    _clear_lent(name, person, using)
    address = str(getattr(user, "email", "") or "")
    if user is not None:
        _clear_account(user, address, using)
    own = Q(author_label=name) | (Q(author=user.pk) if user is not None else Q())
    written = PolicyVersion.objects.using(using).filter(own)
    written.update(author=None, author_label="erased", reason="")
    return _clear_policies([word for word in (name, address) if word], using)


def _clear_lent(name: str, person: str, using: str) -> None:
    """Take them out of what others voted for them, or while they stood in for one another."""
    # Where it is not over, it is by this that votes are counted.
    rows = Decision.objects.using(using).exclude(approval_request__status__in=OPEN)
    rows = rows.exclude(approval_request__outcome__in=UNENDED)
    for vote in rows.exclude(on_behalf_of=[], linked=[]).iterator():
        lent = [erased.GONE if each == name else each for each in vote.on_behalf_of]
        linked = [each for each in vote.linked if each != person]
        _replace(vote, {"on_behalf_of": lent, "linked": linked}, using)


def _clear_account(user: Any, address: str, using: str) -> None:
    told = Q(recipient=str(user.pk)) | (Q(address=address) if address else Q())
    messages = Notification.objects.using(using).filter(told)
    messages.exclude(state=Notification.State.WAITING).delete()
    Callback.objects.using(using).filter(user=user.pk).delete()
    PreferredChannel.objects.using(using).filter(user=user.pk).delete()
    # Of requests that still wait it is what lets them decide.
    escalated = EscalatedDecider.objects.using(using).filter(user=user.pk)
    escalated.exclude(approval_request__status__in=OPEN).delete()
    delegations = Delegation.objects.using(using)
    delegations.filter(Q(delegator=user.pk) | Q(stand_in=user.pk)).update(reason="")


def _clear_policies(words: Sequence[str], using: str) -> tuple[str, ...]:
    """Put a placeholder for the person where policies named them and do not any more."""
    now = versions.snapshots()
    still = {slug for slug, said in now.items() if erased.names(said, words)}
    for version in _versions_of_others(still, using):
        _replace(version, {"data": erased.without(version.data, words)}, using)
    # What waits, or runs, is bound to what is stored.
    changes = PolicyChange.objects.using(using).exclude(approval_request__status__in=OPEN)
    for change in changes.exclude(approval_request__outcome__in=UNENDED).iterator():
        fields = ("base", "proposed")
        said = {
            field: dict(_each_without(getattr(change, field), still, words)) for field in fields
        }
        _replace(change, said, using)
    return tuple(sorted(still))


def _versions_of_others(still: set[str], using: str) -> Iterator[PolicyVersion]:
    # By the slug of then, too: a policy that was deleted may have come back under it.
    rows = PolicyVersion.objects.using(using)
    return rows.exclude(slug__in=still).exclude(policy__slug__in=still).iterator()


def _each_without(
    said: Mapping[str, Any], still: set[str], words: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    for slug, policy in said.items():
        stays = policy is None or slug in still
        yield slug, policy if stays else erased.without(policy, words)


def _replace(row: models.Model, wanted: Mapping[str, Any], using: str) -> None:
    if any(getattr(row, field) != value for field, value in wanted.items()):
        type(row)._base_manager.using(using).filter(pk=row.pk).update(**wanted)

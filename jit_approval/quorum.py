"""Do these votes suffice? Distinct persons, and groups that must be represented, without any database."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Vote:
    """One person's approval, or what would be one.

    `groups` are those it could stand for; `linked` the persons it is tied to by a delegation, of whom one
    counts; `lenders` the persons on whose authority, or membership, it rests instead of the voter's own.
    """

    person: str
    groups: frozenset[int] = frozenset()
    linked: frozenset[str] = frozenset()
    lenders: frozenset[str] = frozenset()


def is_met(votes: Iterable[Vote], required: int, groups: Mapping[int, int]) -> bool:
    """Tell whether `required` persons in all, and `groups[key]` of each group, are among the votes.

    One person fills one place only, so each group's places need persons of their own: a system of distinct
    representatives, which exists where Hall's condition holds (P. Hall, 1935) and is looked for by augmenting
    paths. Never fewer than one vote. With chains of delegations it may say no where another choice of votes
    would do; it never says yes where none would.
    """
    counted = independent(votes)
    if len(counted) < max(1, required, sum(groups.values())):
        return False
    filled: dict[int, int] = {}
    return all(_fill(key, filled, counted) for key, count in groups.items() for _ in range(count))


def places_filled(votes: Iterable[Vote], groups: Mapping[int, int]) -> dict[int, int]:
    """Return how many places of each group the votes fill, one person in one place; as many in all as can be."""
    counted = independent(votes)
    filled: dict[int, int] = {}
    for key, count in groups.items():
        for _ in range(count):
            _fill(key, filled, counted)
    return {key: sum(each == key for each in filled.values()) for key in groups}


def independent(votes: Iterable[Vote]) -> list[Vote]:
    """Return the votes that count: of those tied together, one.

    One left out lends its groups to the one that counts where it could take that one's place: where whoever
    it is tied to is tied to that one as well.
    """
    cast = list(votes)
    ties = _ties(cast)
    counted: dict[int, Vote] = {}
    # The least tied first: it stands in the way of the fewest others.
    for number in sorted(range(len(cast)), key=lambda each: (len(ties[each]), cast[each].person)):
        if not ties[number] & counted.keys():
            counted[number] = cast[number]
    for number in set(range(len(cast))) - counted.keys():
        for other in ties[number] & counted.keys():
            if ties[number] <= ties[other] | {other}:
                groups = counted[other].groups | cast[number].groups
                counted[other] = replace(counted[other], groups=groups)
    return list(counted.values())


def _ties(votes: Sequence[Vote]) -> list[set[int]]:
    """Return, for each vote, the numbers of those of which one counts beside it, or instead of it.

    They are by the same person, or by the two ends of a delegation, or lent by the same person: one decider's
    authority is worth one vote, however many stand in for it.
    """
    by_person, by_lender = defaultdict(set), defaultdict(set)
    for number, vote in enumerate(votes):
        by_person[vote.person].add(number)
        for lender in vote.lenders:
            by_lender[lender].add(number)
    ties: list[set[int]] = [set() for _ in votes]
    for number, vote in enumerate(votes):
        tied = set(by_person[vote.person])
        tied.update(*(by_person.get(person, ()) for person in vote.linked | vote.lenders))
        tied.update(*(by_lender[lender] for lender in vote.lenders))
        for other in tied - {number}:
            ties[number].add(other)
            ties[other].add(number)
    return ties


def _fill(place: int, filled: dict[int, int], votes: Sequence[Vote]) -> bool:
    """Give one more place of a group a vote of its own; votes (`filled`: vote → group) move to make room."""
    moved: dict[int, tuple[int, int] | None] = {place: None}
    waiting = deque([place])
    while waiting:
        group = waiting.popleft()
        for number, vote in enumerate(votes):
            if group not in vote.groups:
                continue
            holder = filled.get(number)
            if holder is None:
                _move(number, group, filled, moved)
                return True
            if holder not in moved:
                moved[holder] = (number, group)
                waiting.append(holder)
    return False


def _move(
    number: int,
    group: int,
    filled: dict[int, int],
    moved: Mapping[int, tuple[int, int] | None],
) -> None:
    """Give the free vote to the group, whose vote goes where it was wanted, and so on to the new place."""
    filled[number] = group
    while (step := moved[group]) is not None:
        number, group = step
        filled[number] = group

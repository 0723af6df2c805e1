"""Do these votes suffice? Distinct persons, and groups that must be represented, without any database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Vote:
    """One person's approval, or what would be one.

    `groups` are those it could stand for; `linked` the persons it is tied to by a delegation, of whom one
    counts; `borrowed` says that it rests on a delegator's authority alone.
    """

    person: str
    groups: frozenset[int] = frozenset()
    linked: frozenset[str] = frozenset()
    borrowed: bool = False


def is_met(votes: Iterable[Vote], required: int, groups: Mapping[int, int]) -> bool:
    """Tell whether `required` persons in all, and `groups[key]` of each group, are among the votes.

    One person fills one place only, so each group's places need persons of their own: a system of distinct
    representatives, which exists where Hall's condition holds (P. Hall, 1935) and is looked for by augmenting
    paths. Never fewer than one vote.
    """
    counted = independent(votes)
    places = [key for key, count in groups.items() for _ in range(count)]
    if len(counted) < max(1, required, len(places)):
        return False
    return _can_fill(places, counted)


def independent(votes: Iterable[Vote]) -> list[Vote]:
    """Return the votes that count: of two that a delegation ties together, one.

    A vote by own authority comes before a borrowed one. The one left out lends its groups to the one that
    counts, for the two fill one place together, whichever.
    """
    counted: dict[str, Vote] = {}
    for vote in sorted(votes, key=lambda vote: vote.borrowed):
        ties = [other for other in counted.values() if _are_tied(vote, other)]
        if not ties:
            counted[vote.person] = vote
        elif len(ties) == 1:
            (other,) = ties
            counted[other.person] = replace(other, groups=other.groups | vote.groups)
    return list(counted.values())


def _are_tied(one: Vote, other: Vote) -> bool:
    return one.person == other.person or one.person in other.linked or other.person in one.linked


def _can_fill(places: Sequence[int], votes: Sequence[Vote]) -> bool:
    """Give each place a vote of its own, by Kuhn's augmenting paths."""
    filled: dict[int, int] = {}  # vote → place

    def fill(place: int, tried: set[int]) -> bool:
        for number, vote in enumerate(votes):
            if places[place] not in vote.groups or number in tried:
                continue
            tried.add(number)
            if number not in filled or fill(filled[number], tried):
                filled[number] = place
                return True
        return False

    return all(fill(place, set()) for place in range(len(places)))

"""Whether votes suffice, against every way there is to give persons their places."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jit_approval.quorum import Vote, independent, is_met

SECURITY, FINANCE, LEGAL = 1, 2, 3


def vote(person: str, *groups: int, linked: str = "", lenders: str = "") -> Vote:
    return Vote(person, frozenset(groups), frozenset(linked), frozenset(lenders))


# --- every way there is --------------------------------------------------------------------------------------


def tied(one: Vote, other: Vote) -> bool:
    return bool(
        one.person == other.person
        or one.person in other.linked | other.lenders
        or other.person in one.linked | one.lenders
        or one.lenders & other.lenders
    )


def by_brute_force(votes: list[Vote], required: int, groups: dict[int, int]) -> bool:
    """Try every set of votes of which no two are tied, and every assignment of its votes to places."""
    places = [group for group, count in groups.items() for _ in range(count)]
    for size in range(max(1, required, len(places)), len(votes) + 1):
        for chosen in combinations(votes, size):
            if any(tied(one, other) for one, other in combinations(chosen, 2)):
                continue
            if any(
                all(place in vote.groups for place, vote in zip(places, order, strict=True))
                for order in permutations(chosen, len(places))
            ):
                return True
    return False


memberships = st.frozensets(st.sampled_from([SECURITY, FINANCE, LEGAL]))
requirements = st.dictionaries(
    st.sampled_from([SECURITY, FINANCE, LEGAL]), st.integers(1, 2), max_size=3
)
required = st.integers(0, 4)


@st.composite
def untied(draw):
    return [Vote(person, draw(memberships)) for person in "abcdef"[: draw(st.integers(0, 6))]]


@st.composite
def in_pairs(draw):
    """Each delegation is between two persons who take part in no other."""
    votes = []
    for one, other in ("ab", "cd", "ef"):
        how = draw(st.sampled_from(["none", "either", "linked", "lent"]))
        linked = frozenset(other) if how in ("linked", "lent") else frozenset()
        lenders = frozenset(other) if how == "lent" else frozenset()
        votes.append(Vote(one, draw(memberships), linked, lenders))
        if how != "none":
            back = frozenset(one) if how == "either" else frozenset()
            votes.append(Vote(other, draw(memberships), back))
    return draw(st.permutations(votes))


@st.composite
def tangled(draw):
    persons = "abcdef"[: draw(st.integers(0, 6))]
    some = st.frozensets(st.sampled_from("abcdefgh"), max_size=2)
    votes = []
    for person in persons:
        linked = draw(some) - {person}
        lenders = frozenset(draw(st.sets(st.sampled_from(sorted(linked))))) if linked else linked
        votes.append(Vote(person, draw(memberships), linked, lenders))
    if votes and draw(st.booleans()):
        votes.append(Vote(votes[0].person, draw(memberships)))  # a second account
    return draw(st.permutations(votes))


@settings(max_examples=400, deadline=None)
@given(untied(), required, requirements)
@example([vote("a", SECURITY, FINANCE), vote("b", SECURITY)], 2, {SECURITY: 1, FINANCE: 1})
@example([vote("a", SECURITY, FINANCE)], 1, {SECURITY: 1, FINANCE: 1})
def test_without_delegations_it_agrees_with_brute_force(votes, required, groups):
    assert is_met(votes, required, groups) == by_brute_force(votes, required, groups)


@settings(max_examples=400, deadline=None)
@given(in_pairs(), required, requirements)
def test_with_pairs_of_delegations_it_agrees_with_brute_force(votes, required, groups):
    assert is_met(votes, required, groups) == by_brute_force(votes, required, groups)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(tangled(), required, requirements)
@example(  # b lends a its group, and then cannot count beside d
    [vote("a", linked="b"), vote("b", SECURITY, linked="d"), vote("d")], 2, {SECURITY: 1}
)
@example([vote("a", linked="z", lenders="z"), vote("b", linked="z", lenders="z")], 2, {})
def test_however_tangled_it_never_says_yes_where_brute_force_says_no(votes, required, groups):
    if is_met(votes, required, groups):
        assert by_brute_force(votes, required, groups)


@settings(max_examples=300, deadline=None)
@given(tangled())
def test_of_votes_that_are_tied_one_counts(votes):
    by_person = {one.person: one for one in votes}
    persons = [vote.person for vote in independent(by_person.values())]
    assert len(set(persons)) == len(persons)
    assert not any(
        tied(by_person[one], by_person[other]) for one, other in combinations(persons, 2)
    )


# --- the rules, in words -------------------------------------------------------------------------------------

TABLE = [
    ("nobody is never enough", [], 0, {}, False),
    ("one of one", [vote("a")], 1, {}, True),
    ("one of two", [vote("a")], 2, {}, False),
    ("two accounts of one person are one", [vote("a"), vote("a")], 2, {}, False),
    ("a group that is not represented", [vote("a"), vote("b")], 2, {SECURITY: 1}, False),
    (
        "one person fills one place only",
        [vote("a", SECURITY, FINANCE), vote("b")],
        2,
        {SECURITY: 1, FINANCE: 1},
        False,
    ),
    (
        "places move to make room",
        [vote("a", SECURITY, FINANCE), vote("b", SECURITY)],
        1,
        {SECURITY: 1, FINANCE: 1},
        True,
    ),
    (
        "two of security and one of finance",
        [vote("a", SECURITY), vote("b", SECURITY, FINANCE), vote("c", FINANCE)],
        3,
        {SECURITY: 2, FINANCE: 1},
        True,
    ),
    (
        "more in all than the groups need",
        [vote("a", SECURITY), vote("b", FINANCE)],
        3,
        {SECURITY: 1, FINANCE: 1},
        False,
    ),
    ("groups may need more than the number", [vote("a", SECURITY)], 1, {SECURITY: 2}, False),
    (
        "delegator and stand-in fill one place together",
        [vote("a"), vote("b", linked="a")],
        2,
        {},
        False,
    ),
    (
        "whichever of the two, the group is represented",
        [vote("a", SECURITY), vote("b", linked="a"), vote("c")],
        2,
        {SECURITY: 1},
        True,
    ),
    (
        "they do not fill two groups' places",
        [vote("a", SECURITY), vote("b", FINANCE, linked="a")],
        1,
        {SECURITY: 1, FINANCE: 1},
        False,
    ),
    (
        "two stand-ins of one delegator are one decider's authority",
        [vote("b", linked="a", lenders="a"), vote("c", linked="a", lenders="a")],
        2,
        {},
        False,
    ),
    (
        "stand-ins of two delegators are two",
        [vote("b", linked="a", lenders="a"), vote("d", linked="c", lenders="c")],
        2,
        {},
        True,
    ),
    (
        "two with authority of their own, who stand in for a third, are two",
        [vote("b", linked="a"), vote("c", linked="a")],
        2,
        {},
        True,
    ),
]


@pytest.mark.parametrize(
    ("votes", "required", "groups", "enough"),
    [row[1:] for row in TABLE],
    ids=[row[0].replace(" ", "-") for row in TABLE],
)
def test_rule(votes, required, groups, enough):
    assert is_met(votes, required, groups) is enough
    assert is_met(votes[::-1], required, groups) is enough
    assert by_brute_force(votes, required, groups) is enough


def test_a_thousand_places_are_filled_without_running_out_of_stack():
    votes = [vote(str(number), SECURITY, FINANCE) for number in range(1000)]
    assert is_met(votes, 1000, {SECURITY: 500, FINANCE: 500})
    assert not is_met(votes, 1000, {SECURITY: 500, FINANCE: 501})

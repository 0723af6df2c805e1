"""Which policy a call falls under: the order, the globs, and what a condition that fails comes to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jit_approval import policies
from jit_approval.models import PolicyGroupRequirement
from jit_approval.policies.terms import strictness, tightened
from jit_approval.states import Effect
from tests import factories

pytestmark = pytest.mark.django_db

ACTION = "transfers.create"
FAILS = "request.data.amount > 10000"  # of facts that have no amount
HOLDS, DOES_NOT = 'action == "transfers.create"', 'action == "nothing"'


def facts():
    return {
        "action": ACTION,
        "request": {
            "method": "POST",
            "path": "/",
            "query": {},
            "data": {},
            "ip": "",
            "headers": {},
        },
        "user": {"id": "1", "username": "erin", "groups": [], "is_staff": False},
        "object": {},
    }


def found(action: str = ACTION, **kwargs):
    return policies.match(action, facts, **kwargs)


def slug(match) -> str | None:
    return match.policy and match.policy.slug


# --- the order ----------------------------------------------------------------------------------------------


def test_the_lowest_priority_number_is_first_then_the_oldest():
    factories.policy(slug="later", priority=20)
    factories.policy(slug="first", priority=10)
    factories.policy(slug="second", priority=10)
    assert slug(found()) == "first"
    assert [policy.slug for policy in policies.named(ACTION)] == ["first", "second", "later"]


def test_negative_priorities_come_before():
    factories.policy(slug="zero", priority=0)
    factories.policy(slug="before", priority=-1)
    assert slug(found()) == "before"


@pytest.mark.parametrize(
    "fields",
    [
        {"enabled": False},
        {"enabled": False, "archived": True},
        {"actions": "customers.*"},
        {"condition": DOES_NOT},
    ],
)
def test_one_that_does_not_apply_is_passed_over(fields):
    factories.policy(slug="not-this", priority=1, **fields)
    assert slug(found()) is None
    factories.policy(slug="this")
    assert slug(found()) == "this"


@pytest.mark.parametrize("many", [0, 60])
def test_however_many_there_are_the_match_is_the_same(many):
    for number in range(many):
        factories.policy(actions=f"other{number}.*", priority=1)
    factories.policy(slug="this", priority=5)
    factories.policy(slug="next", priority=6)
    for _ in range(3):  # it remembers how many there are
        assert [policy.slug for policy in policies.named(ACTION)] == ["this", "next"]


def test_matching_takes_one_query():
    for number in range(5):
        factories.policy(slug=f"p-{number}")
    policies.named(ACTION)
    with CaptureQueriesContext(connection) as counted:
        assert slug(found()) == "p-0"
    assert len(counted) == 1


# --- globs --------------------------------------------------------------------------------------------------

GLOBS = [
    ("transfers.create", True),
    ("transfers.*", True),
    ("*", True),
    ("*.create", True),
    ("transfers.creat?", True),
    ("transfers.[bc]reate", True),
    ("transfers.[!x]reate", True),
    ("transfers.[a-d]*", True),
    ("customers.*\ntransfers.create", True),
    ("customers.*\r\n  transfers.create  \r\n", True),
    ("Transfers.create", False),
    ("TRANSFERS.*", False),
    ("transfers.create?", False),
    ("transfers.[!c]reate", False),
    ("transfers", False),
    ("transfers.", False),
    ("transfersxcreate", False),  # a dot is a dot
    ("transfers.create.*", False),
    ("ransfers.create", False),
    ("create", False),
    ("customers.*|transfers.*", False),
    (".*", False),
    ("transfers.crea(te)", False),
]


@pytest.mark.parametrize(("globs", "names"), GLOBS)
def test_globs(globs, names):
    factories.policy(slug="it", actions=globs)
    assert (slug(found()) == "it") is names


def test_a_label_is_matched_whole_whatever_is_in_it():
    factories.policy(actions="transfers.create")
    assert slug(found("transfers.create\nx")) is None
    assert slug(found("x\ntransfers.create")) is None
    factories.policy(slug="star", actions="transfers.*")
    assert slug(found("transfers.a\nb")) == "star"


# --- observe ------------------------------------------------------------------------------------------------


def test_observe_is_never_part_of_the_match_and_evaluated_beside_it():
    factories.policy(slug="shadow", effect=Effect.OBSERVE, priority=1)
    factories.policy(slug="real", priority=2)
    factories.policy(slug="after", effect=Effect.OBSERVE, priority=3, condition=HOLDS)
    factories.policy(slug="not-now", effect=Effect.OBSERVE, condition=DOES_NOT)
    match = found()
    assert slug(match) == "real"
    assert [policy.slug for policy in match.observed] == ["shadow", "after"]


def test_observe_alone_leaves_nothing_matched():
    factories.policy(effect=Effect.OBSERVE)
    assert (slug(found()), found().effect) == (None, Effect.REQUIRE)


def test_observe_that_fails_lowers_and_raises_nothing_and_says_so():
    factories.policy(slug="shadow", effect=Effect.OBSERVE, condition=FAILS, required_approvals=9)
    factories.policy(slug="free", effect=Effect.ALLOW)
    match = found()
    assert slug(match) == "free"
    assert [policy.slug for policy in match.observed] == ["shadow"]
    assert [trouble.policy.slug for trouble in match.troubles] == ["shadow"]


# --- a condition that fails ---------------------------------------------------------------------------------

Effects = list[tuple[str, str, dict]]
REQUIRE, ALLOW, DENY = Effect.REQUIRE, Effect.ALLOW, Effect.DENY
TROUBLES = [
    ("the stricter of both, here the clean one", [(REQUIRE, FAILS, 1), (REQUIRE, "", 2)], 1),
    ("the stricter of both, here the failed one", [(REQUIRE, FAILS, 2), (REQUIRE, "", 1)], 0),
    ("alike: the one that comes first", [(REQUIRE, FAILS, 1), (REQUIRE, "", 1)], 0),
    (
        "of several that failed the strictest",
        [(REQUIRE, FAILS, 1), (REQUIRE, FAILS, 3), (REQUIRE, "", 2)],
        1,
    ),
    ("failed after the match: not asked", [(REQUIRE, "", 1), (DENY, FAILS, 1)], 0),
    ("allow that fails does not match", [(ALLOW, FAILS, 1), (REQUIRE, "", 1)], 1),
    (
        "allow that fails does not make a failed one milder",
        [(REQUIRE, FAILS, 1), (ALLOW, "", 1)],
        0,
    ),
    ("deny that fails denies", [(DENY, FAILS, 1), (REQUIRE, "", 9)], 0),
    ("deny that fails denies what is allowed", [(DENY, FAILS, 1), (ALLOW, "", 1)], 0),
    ("a clean deny is stricter", [(REQUIRE, FAILS, 9), (DENY, "", 1)], 1),
    ("false is not failed", [(REQUIRE, DOES_NOT, 9), (ALLOW, HOLDS, 1)], 1),
]


@pytest.mark.parametrize(
    ("rows", "winner"),
    [row[1:] for row in TROUBLES],
    ids=[row[0].replace(" ", "-") for row in TROUBLES],
)
@pytest.mark.parametrize("or_default", [True, False])
def test_trouble(rows, winner, or_default):
    for number, (effect, condition, needed) in enumerate(rows):
        factories.policy(
            slug=f"p-{number}", effect=effect, condition=condition, required_approvals=needed
        )
    assert slug(found(or_default=or_default)) == f"p-{winner}"


def test_trouble_is_told_with_policy_and_error():
    factories.policy(slug="first", condition=FAILS)
    factories.policy(slug="second")
    (trouble,) = found().troubles
    assert trouble.policy.slug == "first"
    assert trouble.error


def test_alone_a_failed_policy_applies():
    factories.policy(slug="it", condition=FAILS)
    assert slug(found(or_default=False)) == "it"
    assert slug(found(or_default=True)) == "it"


def test_the_terms_of_the_settings_take_part_where_they_would_apply(settings):
    settings.JIT_APPROVAL = {"REQUIRED_APPROVALS": 2}
    factories.policy(slug="it", condition=FAILS)
    assert slug(found(or_default=True)) is None
    assert slug(found(or_default=False)) == "it"


def test_nothing_matches_where_only_allow_failed():
    factories.policy(effect=ALLOW, condition=FAILS)
    assert slug(found(or_default=True)) is None
    assert slug(found(or_default=False)) is None


@pytest.mark.parametrize("amount", ["50000", None, [50000], {"value": 50000}, True])
def test_a_caller_does_not_steer_to_a_weaker_policy_by_type(amount):
    factories.policy(slug="large", condition="request.data.amount > 10000", required_approvals=2)
    factories.policy(slug="small", required_approvals=1)
    call = facts()
    call["request"]["data"] = {"amount": amount}
    match = policies.match(ACTION, lambda: call)
    assert slug(match) == "large"
    assert policies.terms_of(match).required_approvals == 2


@pytest.mark.parametrize(("amount", "policy"), [(10000, "small"), (10001, "large"), (1e4, "small")])
def test_an_amount_selects_the_policy(amount, policy):
    factories.policy(slug="large", condition="request.data.amount > 10000")
    factories.policy(slug="small")
    call = facts()
    call["request"]["data"] = {"amount": amount}
    assert slug(policies.match(ACTION, lambda: call)) == policy


# --- terms of what may apply as well ------------------------------------------------------------------------


def group(name: str) -> Group:
    return Group.objects.get_or_create(name=name)[0]


def test_a_condition_that_fails_loosens_no_single_term():
    first = factories.policy(
        condition=FAILS,
        required_approvals=1,
        usable_within=timedelta(minutes=1),
        decide_within=timedelta(hours=1),
        require_reason=True,
        severity="critical",
        object_permission="testapp.change_customer",
    )
    PolicyGroupRequirement.objects.create(policy=first, group=group("security"), count=1)
    second = factories.policy(
        slug="second",
        required_approvals=3,
        decide_within=timedelta(minutes=2),
        rejection_cooldown=timedelta(hours=1),
        reason_pattern="INC",
        require_approval_id=True,
    )
    PolicyGroupRequirement.objects.create(policy=second, group=group("security"), count=2)
    PolicyGroupRequirement.objects.create(policy=second, group=group("finance"), count=1)
    match = found()
    terms = policies.terms_of(match)
    assert slug(match) == terms.policy_slug == "second"
    assert terms.required_approvals == 3
    assert terms.usable_within == timedelta(minutes=1)
    assert terms.decide_within == timedelta(minutes=2)
    assert terms.rejection_cooldown == timedelta(hours=1)
    assert (terms.require_reason, terms.reason_pattern) == (True, "INC")
    assert terms.require_approval_id is True
    assert terms.severity == "critical"
    assert {name: count for _key, name, count in terms.group_requirements} == {
        "security": 2,
        "finance": 1,
    }
    # Who holds the one policy's permission on the object is no decider under the other.
    assert terms.object_permission is None


def test_terms_are_the_same_whichever_of_two_is_tightened_by_the_other():
    loose, strict = factories.terms(), factories.terms(required_approvals=2, require_reason=True)
    assert tightened(loose, strict).required_approvals == 2
    assert tightened(strict, loose) == strict


def test_without_trouble_terms_are_the_policys_own():
    factories.policy(condition=DOES_NOT, required_approvals=5)
    factories.policy(required_approvals=2)
    assert policies.terms_of(found()).required_approvals == 2


def test_strictness_is_a_total_order_with_deny_on_top():
    allow, deny = factories.policy(effect=ALLOW), factories.policy(effect=DENY)
    one, two = factories.policy(), factories.policy(required_approvals=2)
    grouped = factories.policy()
    PolicyGroupRequirement.objects.create(policy=grouped, group=group("security"), count=1)
    named = factories.policy(require_approval_id=True)
    order = [allow, one, named, grouped, two, deny]
    assert sorted(order[::-1], key=strictness) == order
    assert strictness(None) == strictness(one)


# --- explained ----------------------------------------------------------------------------------------------


def test_every_policy_is_explained():
    expected = {
        "disabled": factories.policy(enabled=False),
        "archived": factories.policy(enabled=False, archived=True),
        "other_action": factories.policy(actions="customers.*"),
        "condition_false": factories.policy(condition=DOES_NOT),
        "condition_failed": factories.policy(condition=FAILS),
        "observes": factories.policy(effect=Effect.OBSERVE),
        "matches": factories.policy(required_approvals=2),
        "later": factories.policy(),
    }
    match = policies.explain(ACTION, facts)
    said = {each.policy.slug: each.verdict for each in match.considered}
    assert said == {policy.slug: verdict for verdict, policy in expected.items()}
    assert all(each.why for each in match.considered)
    assert slug(match) == expected["matches"].slug == slug(found())


def test_it_is_said_where_a_failed_policy_is_the_match():
    failed = factories.policy(condition=FAILS, required_approvals=2)
    clean = factories.policy()
    said = {each.policy.pk: each.verdict for each in policies.explain(ACTION, facts).considered}
    assert said == {failed.pk: "matches", clean.pk: "later"}


def test_it_is_said_of_a_shadow_policy_whose_condition_does_not_hold_or_fails():
    false = factories.policy(effect=Effect.OBSERVE, condition=DOES_NOT)
    failed = factories.policy(effect=Effect.OBSERVE, condition=FAILS)
    said = {each.policy.pk: each.verdict for each in policies.explain(ACTION, facts).considered}
    assert said == {false.pk: "condition_false", failed.pk: "condition_failed"}


def test_facts_are_asked_for_only_by_a_condition():
    factories.policy()

    def never():
        raise AssertionError

    assert policies.match(ACTION, never).policy is not None

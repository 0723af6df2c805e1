"""What a policy, or a delegation, may not say: refused when it is saved, in words."""

from __future__ import annotations

import re
from datetime import timedelta
from time import monotonic

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from jit_approval.models import ApprovalPolicy, Delegation, PolicyGroupRequirement
from tests import factories

pytestmark = pytest.mark.django_db

NOW = timezone.now()
DAY = timedelta(days=1)


def policy(**fields) -> ApprovalPolicy:
    return ApprovalPolicy(**{"name": "Moves", "slug": "moves", "actions": "transfers.*"} | fields)


def refusal(row) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return caught.value.message_dict


REFUSED = [
    ("decide_within", timedelta(milliseconds=999), "1 second"),
    ("decide_within", timedelta(days=30, seconds=1), "30 days"),
    ("decide_within", timedelta(0), "1 second"),
    ("decide_within", timedelta(seconds=-5), "1 second"),
    ("usable_within", timedelta(milliseconds=999), "1 second"),
    ("usable_within", timedelta(days=31), "30 days"),
    ("rejection_cooldown", timedelta(seconds=-1), "cool-down"),
    ("rejection_cooldown", timedelta(days=366), "365 days"),
    ("required_approvals", 0, "greater than or equal to 1"),
    ("required_approvals", -1, "greater than or equal to 1"),
    ("required_approvals", 1001, "less than or equal to 1000"),
    ("actions", "", "cannot be blank"),
    ("actions", " \n \r\n", "Name at least one action"),
    ("actions", "transfers.create customers.destroy", "One action per line"),
    ("actions", "transfers.create,customers.destroy", "One action per line"),
    ("actions", "transfers.\u00a0create", "One action per line"),
    ("actions", "transfers.[create", "brackets"),
    ("actions", "transfers.[cd]reate[", "brackets"),
    ("actions", "transfers.[]", "brackets"),
    ("actions", "transfers.[!]", "brackets"),
    ("actions", "transfers.[z-a]", "brackets"),
    ("actions", "\n".join(f"a{number}" for number in range(101)), "At most 100"),
    ("effect", "permit", "not a valid choice"),
    ("effect", "", "cannot be blank"),
    ("severity", "catastrophic", "not a valid choice"),
    ("object_permission", "change_customer", "no permission"),
    ("object_permission", "testapp.", "no permission"),
    ("object_permission", "testapp.approve_customer", "no permission"),
    ("object_permission", "nowhere.change_customer", "no permission"),
    ("reason_pattern", "(INC", "Not a regular expression"),
    ("reason_pattern", "[", "Not a regular expression"),
    ("reason_pattern", "(a+)+", "for ever"),
    ("reason_pattern", "((a+))+", "for ever"),
    ("reason_pattern", "(?:(?:a*))*x", "for ever"),
    ("reason_pattern", r"(\w+\s?)*$", "for ever"),
    ("reason_pattern", "(a|a)*b", "for ever"),
    ("reason_pattern", "(a|aa){20,}b", "for ever"),
    ("reason_pattern", "(.*a){20}", "for ever"),
    ("reason_pattern", ".*.*.*x", "for ever"),
    ("reason_pattern", "a?" * 30 + "a" * 30, "for ever"),
    ("reason_pattern", "(?=(a+)+b)", "for ever"),
    ("fallback", "nobody", "not an e-mail address"),
    ("fallback", "a@example.test b@example.test", "not an e-mail address"),
    ("fallback", "a@example.test\nb@", "not an e-mail address"),
    ("fallback", "\n".join(f"a{n}@example.test" for n in range(21)), "At most 20"),
    ("slug", "two words", "slug"),
]


@pytest.mark.parametrize(
    ("field", "value", "says"), REFUSED, ids=[f"{row[0]}-{n}" for n, row in enumerate(REFUSED)]
)
def test_refused_in_words(field, value, says):
    told = refusal(policy(**{field: value}))
    assert list(told) == [field]
    assert says in " ".join(told[field])


ACCEPTED = [
    ("decide_within", timedelta(seconds=1)),
    ("decide_within", timedelta(days=30)),
    ("rejection_cooldown", timedelta(0)),
    ("required_approvals", 1000),
    ("actions", "transfers.*\r\n\r\ncustomers.destroy\n"),
    ("actions", "transfers.[cd]*"),
    ("actions", "transfers.[!a-c]*"),
    ("actions", "transfers.[]x]"),
    ("object_permission", "testapp.change_customer"),
    ("object_permission", "jit_approval.decide"),
    ("reason_pattern", r"\b(INC|CHG)-\d{4,}\b"),
    ("reason_pattern", r"^https?://\S+/\d+"),
    ("reason_pattern", r"^[A-Z]{2,5}-\d{1,6}: \w{3}"),
    ("reason_pattern", r"(?i)ticket\s*#?\d+"),
    ("reason_pattern", r"\(\d+\)\+"),
    ("reason_pattern", r"(ab){3}"),
    ("fallback", "a@example.test\r\nb@example.test"),
]


@pytest.mark.parametrize(
    ("field", "value"), ACCEPTED, ids=[f"{row[0]}-{n}" for n, row in enumerate(ACCEPTED)]
)
def test_accepted(field, value):
    policy(**{field: value}).full_clean()


@pytest.mark.parametrize("pattern", [value for field, value in ACCEPTED if "pattern" in field])
def test_an_accepted_pattern_fails_fast_on_a_long_reason(pattern):
    for text in ("a" * 500, "0" * 500, "https://" + "/" * 492, "ticket " * 71, "(1)" * 166):
        began = monotonic()
        re.search(pattern, text)
        assert monotonic() - began < 1


@pytest.mark.parametrize(
    "condition",
    ["request.data.amount >", "nothing.like.this", "1 + 1", '"a" > 1'],
)
def test_a_condition_that_is_none_is_refused_with_its_place(condition):
    (told,) = refusal(policy(condition=condition))["condition"]
    assert re.match(r"Line 1, column \d+: ", told)


def test_a_condition_that_is_one_is_accepted():
    text = 'request.data.amount > 10000 && !("treasury" in user.groups)'
    policy(condition=text).full_clean()


# --- what the database itself refuses -----------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"required_approvals": 0}, {"archived": True, "enabled": True}])
def test_the_database_refuses_it_past_the_forms(fields):
    with pytest.raises(IntegrityError), transaction.atomic():
        policy(**fields).save()


def test_a_group_is_required_at_least_once_and_named_once():
    row, group = factories.policy(), Group.objects.create(name="security")
    with pytest.raises(IntegrityError), transaction.atomic():
        PolicyGroupRequirement.objects.create(policy=row, group=group, count=0)
    PolicyGroupRequirement.objects.create(policy=row, group=group, count=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        PolicyGroupRequirement.objects.create(policy=row, group=group, count=2)
    assert refusal(PolicyGroupRequirement(policy=row, group=group, count=0))


def test_a_required_group_cannot_be_deleted():
    group = Group.objects.create(name="security")
    PolicyGroupRequirement.objects.create(policy=factories.policy(), group=group)
    with pytest.raises(ProtectedError):
        group.delete()


def test_a_policy_with_requests_cannot_be_deleted():
    factories.decider()
    row = factories.policy()
    factories.held(terms={"policy_id": row.pk, "policy_slug": row.slug})
    with pytest.raises(ProtectedError):
        row.delete()


# --- delegations --------------------------------------------------------------------------------------------


def delegation(delegator, stand_in, *, start=0, days=7, **fields) -> Delegation:
    starts_at = NOW + start * DAY
    return Delegation(
        delegator=delegator,
        stand_in=stand_in,
        starts_at=starts_at,
        ends_at=starts_at + days * DAY,
        **fields,
    )


@pytest.fixture
def people():
    return [factories.user(name) for name in ("alice", "bob", "carol")]


def test_a_delegation_to_another_is_accepted(people):
    alice, bob, carol = people
    delegation(alice, bob).full_clean()
    delegation(alice, bob).save()
    delegation(alice, carol).full_clean()
    delegation(carol, bob).full_clean()


def test_nobody_stands_in_for_themselves(people):
    assert "themselves" in str(refusal(delegation(people[0], people[0])))
    with pytest.raises(IntegrityError), transaction.atomic():
        delegation(people[0], people[0]).save()


def test_nobody_stands_in_for_themselves_by_another_account(people, settings):
    settings.JIT_APPROVAL = {"PERSON_KEY": "last_name"}
    other = factories.user("alice-admin", last_name="P-1")
    people[0].last_name = "P-1"
    people[0].save()
    assert "themselves" in str(refusal(delegation(people[0], other)))


@pytest.mark.parametrize("days", [0, -1])
def test_it_ends_after_it_starts(people, days):
    assert "ends_at" in refusal(delegation(people[0], people[1], days=days))
    with pytest.raises(IntegrityError), transaction.atomic():
        delegation(people[0], people[1], days=days).save()


def test_two_do_not_stand_in_for_each_other_at_one_time(people):
    alice, bob, _carol = people
    delegation(alice, bob).save()
    assert "by the delegator" in str(refusal(delegation(bob, alice, start=6)))
    delegation(bob, alice, start=7).full_clean()  # one ends as the other starts


def test_nor_do_three_in_a_circle(people):
    alice, bob, carol = people
    delegation(alice, bob).save()
    delegation(bob, carol).save()
    assert "by the delegator" in str(refusal(delegation(carol, alice)))


def test_nor_by_another_account(people, settings):
    settings.JIT_APPROVAL = {"PERSON_KEY": "last_name"}
    alice, bob, _carol = people
    for user, person in ((alice, "P-1"), (bob, "P-2")):
        user.last_name = person
        user.save()
    delegation(alice, bob).save()
    other = factories.user("alice-admin", last_name="P-1")
    assert "by the delegator" in str(refusal(delegation(bob, other)))


def test_one_that_was_ended_early_closes_no_circle(people):
    alice, bob, _carol = people
    delegation(alice, bob, revoked_at=NOW).save()
    delegation(bob, alice).full_clean()


def test_one_that_is_edited_is_not_compared_with_itself(people):
    row = delegation(people[0], people[1])
    row.save()
    row.full_clean()

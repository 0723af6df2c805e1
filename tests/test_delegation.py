"""Standing in for a decider: for a time, under a policy, in one place with them, and shown."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection
from rest_framework.test import APIClient

from jit_approval import clock, exceptions, policies, services
from jit_approval.models import AuditEvent, Decision, Delegation, PolicyGroupRequirement
from jit_approval.states import Status
from tests import factories

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def delegate(delegator, stand_in, *, starts=-HOUR, ends=HOUR, **fields) -> Delegation:
    """A delegation whose times are relative to the database's."""
    now = clock.now(policies.database())
    return Delegation.objects.create(
        delegator=delegator,
        stand_in=stand_in,
        starts_at=now + starts,
        ends_at=now + ends,
        **fields,
    )


@pytest.fixture
def alice():
    """A decider, who goes on holiday."""
    return factories.decider("alice")


@pytest.fixture
def bob():
    """Somebody without any authority of their own."""
    return factories.user("bob")


def held(required: int = 1, requester=None, **terms):
    return factories.held(requester, terms={"required_approvals": required, **terms})


def decides(user, row) -> bool:
    said = {
        policies.may_decide(user, row),
        user in policies.deciders_of(row),
        policies.decidable_by(user).filter(pk=row.pk).exists(),
    }
    assert len(said) == 1, "they disagree"
    return said.pop()


def spend(row) -> None:
    services.consume(factories.fresh(row), state_digest=factories.STATE)


# --- when ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts", "ends", "in_force"),
    [
        (-HOUR, HOUR, True),
        (timedelta(0), HOUR, True),  # from this very moment
        (-HOUR, 30 * SECOND, True),
        (-HOUR, timedelta(0), False),  # until this very moment
        (-2 * HOUR, -HOUR, False),
        (30 * SECOND, HOUR, False),
    ],
)
def test_it_holds_from_its_start_to_just_before_its_end(alice, bob, starts, ends, in_force):
    row = held()
    delegate(alice, bob, starts=starts, ends=ends)
    assert decides(bob, row) is in_force


def test_it_is_the_database_whose_clock_counts(alice, bob, monkeypatch):
    row = held()
    delegate(alice, bob, ends=30 * SECOND)
    real = clock._NOW_SQL[connection.vendor]
    later = {
        "postgresql": f"({real} + INTERVAL '31 seconds')",
        "mysql": f"({real} + INTERVAL 31 SECOND)",
        "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW', '+31 seconds')",
    }[connection.vendor]
    assert decides(bob, row)
    policies.authority.in_force_sql.cache_clear()
    policies.authority.authority_of_any_sql.cache_clear()
    monkeypatch.setitem(clock._NOW_SQL, connection.vendor, later)
    try:
        assert not decides(bob, row)
    finally:
        policies.authority.in_force_sql.cache_clear()
        policies.authority.authority_of_any_sql.cache_clear()


def test_one_that_was_ended_early_lends_nothing(alice, bob):
    row = held()
    delegate(alice, bob, revoked_at=clock.now(policies.database()))
    assert not decides(bob, row)


def test_one_for_another_policy_lends_nothing(alice, bob):
    mine, other = factories.policy(), factories.policy()
    row = held(policy_id=mine.pk)
    delegate(alice, bob, policy=other)
    assert not decides(bob, row)
    assert not decides(bob, held())  # nor where no policy matches
    delegate(alice, bob, policy=mine)
    assert decides(bob, row)


# --- who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_an_inactive_end_lends_nothing(alice, bob, who):
    factories.decider()
    row = held()
    delegate(alice, bob)
    stale = get_user_model().objects.get(pk=bob.pk)
    get_user_model().objects.filter(username=who).update(is_active=False)
    assert not decides(get_user_model().objects.get(pk=bob.pk), row)
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=stale)


def test_what_is_lent_is_not_lent_on(alice, bob):
    carol = factories.user("carol")
    row = held()
    delegate(alice, bob)
    delegate(bob, carol)
    assert decides(bob, row)
    assert not decides(carol, row)
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=carol)


def test_own_authority_of_a_stand_in_is_lent_though(alice):
    bob, carol = factories.decider("bob"), factories.user("carol")
    row = held()
    delegate(alice, bob)
    delegate(bob, carol)
    assert decides(carol, row)


def test_who_has_no_authority_lends_none(bob):
    factories.decider()
    row = held()
    delegate(factories.user(), bob)
    assert not decides(bob, row)


def test_a_superuser_lends_what_they_may(bob):
    row_of = factories.user(is_superuser=True)
    row = held()
    delegate(row_of, bob)
    assert decides(bob, row)


@pytest.mark.parametrize("able", [True, False])
def test_a_requesters_stand_in_does_not_decide_their_calls(able):
    factories.decider("other")
    erin = factories.decider("erin")
    bob = factories.decider("bob") if able else factories.user("bob")
    row = held(requester=erin)
    delegate(erin, bob)
    assert not decides(bob, row)
    for service in (services.approve, services.reject):
        with pytest.raises(exceptions.SelfApprovalForbidden):
            service(row, by=bob)
    assert decides(bob, held(requester=factories.user()))


def test_not_even_where_the_delegation_is_for_another_policy():
    factories.decider("other")
    erin, bob = factories.decider("erin"), factories.decider("bob")
    row = held(requester=erin, policy_id=factories.policy().pk)
    delegate(erin, bob, policy=factories.policy())
    assert not decides(bob, row)


def test_nor_that_of_somebody_else_behind_the_call():
    factories.decider("other")
    owner, bob, erin = factories.decider(), factories.decider("bob"), factories.user("erin")
    row = factories.held(erin, persons=(str(erin.pk), str(owner.pk)))
    delegate(owner, bob)
    with pytest.raises(exceptions.SelfApprovalForbidden):
        services.approve(row, by=bob)
    assert bob not in policies.deciders_of(row)


def test_nor_once_the_requesters_account_is_off():
    factories.decider("other")
    erin, bob = factories.decider("erin"), factories.decider("bob")
    row = held(requester=erin)
    delegate(erin, bob)
    get_user_model().objects.filter(pk=erin.pk).update(is_active=False)
    assert not decides(bob, row)


def test_the_requester_does_not_decide_by_standing_in(alice, bob):
    row = held(requester=bob)
    delegate(alice, bob)
    assert not decides(bob, row)
    with pytest.raises(exceptions.SelfApprovalForbidden):
        services.approve(row, by=bob)


def test_a_sole_decider_does_not_get_round_it_by_naming_a_stand_in(alice, bob):
    delegate(alice, bob)
    with pytest.raises(exceptions.ApprovalUnavailable):
        held(requester=alice)


# --- one place ----------------------------------------------------------------------------------------------


def test_delegator_and_stand_in_fill_one_place(alice, bob):
    carol = factories.decider("carol")
    row = held(2)
    delegate(alice, bob)
    services.approve(row, by=alice)
    services.approve(row, by=bob)
    assert factories.fresh(row).status == Status.PENDING
    services.approve(row, by=carol)
    assert factories.fresh(row).status == Status.APPROVED
    spend(row)


def test_also_where_both_have_authority_of_their_own(alice):
    bob = factories.decider("bob")
    factories.decider("carol")
    row = held(2)
    delegate(alice, bob)
    services.approve(row, by=bob)
    services.approve(row, by=alice)
    assert factories.fresh(row).status == Status.PENDING


def test_also_where_the_delegation_ended_between_their_votes(alice):
    bob = factories.decider("bob")
    factories.decider("carol")
    row = held(2)
    lent = delegate(alice, bob)
    services.approve(row, by=bob)
    lent.delete()
    services.approve(row, by=alice)
    assert factories.fresh(row).status == Status.PENDING


def test_two_stand_ins_of_one_decider_are_one_vote(alice, bob):
    factories.decider("carol")
    dave = factories.user("dave")
    row = held(2)
    delegate(alice, bob)
    delegate(alice, dave)
    services.approve(row, by=bob)
    services.approve(row, by=dave)
    assert factories.fresh(row).status == Status.PENDING
    assert not policies.has_quorum(factories.fresh(row))


def test_two_stand_ins_of_one_member_do_not_fill_two_places_of_the_group(alice):
    security = Group.objects.create(name="security")
    other = factories.decider("other")
    security.user_set.add(alice, other)
    policy = factories.policy(required_approvals=2)
    PolicyGroupRequirement.objects.create(policy=policy, group=security, count=2)
    bob, dave = factories.decider("bob"), factories.decider("dave")
    row = services.open_request(factories.call(factories.user()), policies.terms(policy))
    for stand_in in (bob, dave):
        delegate(alice, stand_in)
        services.approve(row, by=stand_in)
    assert factories.fresh(row).status == Status.PENDING
    services.approve(row, by=other)
    assert factories.fresh(row).status == Status.APPROVED


def test_a_stand_in_fills_the_place_of_the_delegators_group(alice):
    security = Group.objects.create(name="security")
    security.user_set.add(alice)
    policy = factories.policy(required_approvals=2)
    PolicyGroupRequirement.objects.create(policy=policy, group=security, count=1)
    bob, carol = factories.decider("bob"), factories.decider("carol")
    row = services.open_request(factories.call(factories.user()), policies.terms(policy))
    delegate(alice, bob)
    services.approve(row, by=carol)
    services.approve(row, by=bob)
    assert factories.fresh(row).status == Status.APPROVED
    # By own authority, but for alice's group: that is said.
    assert Decision.objects.get(decider=bob).on_behalf_of == ["alice"]
    Delegation.objects.all().delete()
    with pytest.raises(exceptions.IllegalTransition):
        spend(row)


def test_nothing_opens_where_two_who_are_tied_would_have_to_be_two(alice):
    bob = factories.decider("bob")
    delegate(alice, bob)
    with pytest.raises(exceptions.ApprovalUnavailable):
        held(2)
    factories.decider("carol")
    held(2)


# --- afterwards ---------------------------------------------------------------------------------------------


def end(lent):
    Delegation.objects.filter(pk=lent.pk).update(revoked_at=clock.now(policies.database()))


def run_out(lent):
    now = clock.now(policies.database())
    Delegation.objects.filter(pk=lent.pk).update(ends_at=now - SECOND)


def be_deleted(lent):
    lent.delete()


def lose_delegator(lent):
    get_user_model().objects.filter(pk=lent.delegator_id).update(is_active=False)


def lose_stand_in(lent):
    get_user_model().objects.filter(pk=lent.stand_in_id).update(is_active=False)


def lose_authority(lent):
    lent.delegator.user_permissions.clear()


def limit_to_another_policy(lent):
    Delegation.objects.filter(pk=lent.pk).update(policy=factories.policy())


LOSSES = [
    end,
    run_out,
    be_deleted,
    lose_delegator,
    lose_stand_in,
    lose_authority,
    limit_to_another_policy,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_vote_is_void_once_what_it_rests_on_is_gone(alice, bob, loss):
    row = held()
    lent = delegate(alice, bob)
    services.approve(row, by=bob)
    assert factories.fresh(row).status == Status.APPROVED
    loss(lent)
    with pytest.raises(exceptions.IllegalTransition):
        spend(row)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_vote_is_not_counted_at_quorum_either(alice, bob, loss):
    carol = factories.decider("carol")
    row = held(2)
    lent = delegate(alice, bob)
    services.approve(row, by=bob)
    loss(lent)
    services.approve(row, by=carol)
    assert factories.fresh(row).status == Status.PENDING


def test_the_vote_is_void_once_its_giver_is_the_requesters_stand_in(alice, bob):
    erin = factories.user("erin")
    row = held(requester=erin)
    delegate(alice, bob)
    services.approve(row, by=bob)
    delegate(erin, bob)
    with pytest.raises(exceptions.IllegalTransition):
        spend(row)


def test_a_delegation_after_both_have_voted_takes_no_vote_back(alice):
    bob = factories.decider("bob")
    row = held(2)
    services.approve(row, by=alice)
    services.approve(row, by=bob)
    delegate(alice, bob)
    assert policies.has_quorum(factories.fresh(row))
    spend(row)


def test_while_it_lasts_the_grant_is_spent(alice, bob):
    row = held()
    delegate(alice, bob)
    services.approve(row, by=bob)
    spend(row)


def test_a_vote_is_not_brought_back_by_another_delegation(alice, bob):
    dave = factories.decider("dave")
    row = held(2)
    lent = delegate(alice, bob)
    services.approve(row, by=bob)
    lent.delete()
    services.approve(row, by=dave)
    delegate(dave, bob)
    assert not policies.has_quorum(factories.fresh(row))
    assert factories.fresh(row).status == Status.PENDING


def test_a_vote_by_own_authority_is_not_kept_alive_by_standing_in(alice):
    bob = factories.decider("bob")
    row = held()
    delegate(alice, bob)
    services.approve(row, by=bob)
    bob.user_permissions.clear()
    with pytest.raises(exceptions.IllegalTransition):
        spend(row)


# --- shown --------------------------------------------------------------------------------------------------


def test_it_is_shown_on_the_decision_in_the_status_and_in_the_trail(alice, bob):
    row = held()
    delegate(alice, bob)
    services.approve(row, by=bob, comment="she is on holiday")
    decision = Decision.objects.get()
    assert (decision.decider, decision.on_behalf_of) == (bob, ["alice"])
    event = AuditEvent.objects.get(approval_request=row, kind="approved")
    assert json.loads(event.body)["data"]["on_behalf_of"] == ["alice"]
    client = APIClient()
    client.force_authenticate(row.requester)
    (shown,) = client.get(f"/approvals/{row.pk}/").json()["decisions"]
    assert (shown["by"], shown["on_behalf_of"]) == ("bob", ["alice"])


def test_who_decides_by_own_authority_decides_on_nobodys_behalf(alice):
    bob = factories.decider("bob")
    row = held()
    delegate(alice, bob)
    services.approve(row, by=bob)
    assert Decision.objects.get().on_behalf_of == []
    event = AuditEvent.objects.get(approval_request=row, kind="approved")
    assert "on_behalf_of" not in json.loads(event.body)["data"]


def test_a_rejection_on_behalf_says_so_too(alice, bob):
    row = held()
    delegate(alice, bob)
    services.reject(row, by=bob)
    assert factories.fresh(row).status == Status.REJECTED
    event = AuditEvent.objects.get(approval_request=row, kind="rejected")
    assert json.loads(event.body)["data"]["on_behalf_of"] == ["alice"]


def test_stand_ins_are_asked_and_told(alice, bob):
    row = held()
    delegate(alice, bob)
    assert set(policies.deciders_of(row)) == {alice, bob}
    assert set(policies.deciders(None)) == {alice, bob}

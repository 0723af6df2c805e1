"""What happens on silence: steps are taken once, in order, in time; who may decide then is bound by all the rules."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core import mail
from django.db import connections
from django.db.models import F
from django.test import override_settings

from jit_approval import clock, escalating, policies, services, sweeping, tasks
from jit_approval.exceptions import IllegalTransition, MayNotDecide, SelfApprovalForbidden
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    Channel,
    EscalatedDecider,
    EscalationStep,
    Notification,
)
from jit_approval.policies import ladder
from jit_approval.states import Status
from tests import factories

pytestmark = pytest.mark.django_db
Event, State = Notification.Event, Notification.State
WINDOW = timedelta(minutes=10)


def step(policy: ApprovalPolicy, at: Any, *, users=(), groups=(), channels=(), **fields: Any):
    """A step at a share (50) or after a time."""
    when = {"share": at} if isinstance(at, int) else {"after": at}
    row = EscalationStep.objects.create(policy=policy, **when, **fields)
    row.users.set(users)
    row.groups.set(groups)
    row.channels.set(channels)
    return row


def group(name: str, *members: Any) -> Group:
    made = Group.objects.create(name=name)
    made.user_set.add(*members)
    return made


def held(policy: ApprovalPolicy | None = None, requester: Any = None, **kwargs: Any):
    """A pending request under the policy as it is now."""
    terms = policies.terms(policy)
    fields = {**vars(terms), "decide_within": WINDOW, **kwargs.pop("terms", {})}
    return factories.held(requester, terms=fields, **kwargs)


def pass_time(row: ApprovalRequest, share: int | float) -> None:
    """Let so many percent of the window have passed, by moving all the request's times back."""
    shift = WINDOW * share / 100
    names = ("created_at", "decide_by", "due_at", "wake_at", "decided_at", "usable_until")
    ApprovalRequest.objects.filter(pk=row.pk).update(**{name: F(name) - shift for name in names})


def climb() -> dict[str, int]:
    return sweeping.Sweeper().take_steps()


def events(row: ApprovalRequest) -> list[dict[str, Any]]:
    found = row.audit_events.filter(kind="escalated").order_by("sequence")
    return [json.loads(event.body)["data"] for event in found]


def told(row: ApprovalRequest, event: str) -> list[str]:
    """Run the tasks of this event; return who was told by them."""
    mail.outbox.clear()
    for pk in list(
        Notification.objects.filter(approval_request=row, event=event, recipient="").values_list(
            "pk", flat=True
        )
    ):
        tasks.deliver(pk)
    return sorted(address.partition("@")[0] for each in mail.outbox for address in each.to)


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


# --- when ------------------------------------------------------------------------------------------------


def test_without_steps_of_its_own_a_request_reminds_its_deciders_once_at_half_time(bob) -> None:
    factories.decider("carol")
    row = held()
    pass_time(row, 49)
    assert climb()["steps"] == 0
    pass_time(row, 2)
    assert climb()["steps"] == 1 and climb()["steps"] == 0
    assert told(row, Event.HELD) == ["bob", "carol"]
    assert told(row, Event.REMINDER) == ["bob", "carol"]
    (said,) = events(row)
    assert (said["step"], said["deciders"], said["early"]) == (1, True, False)


def test_steps_are_taken_once_and_in_order_of_their_moments(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 80, users=[factories.user("later")])
    step(policy, timedelta(minutes=2), users=[factories.user("sooner")])
    row = held(policy)
    assert factories.fresh(row).wake_at == row.created_at + timedelta(minutes=2)
    pass_time(row, 90)
    assert climb() == {"steps": 2, "notices": 1}
    assert climb() == {"steps": 0, "notices": 0}
    assert [said["users"] for said in events(row)] == [["sooner"], ["later"]]
    assert Notification.objects.filter(approval_request=row, event=Event.ESCALATED).count() == 2


def test_no_step_is_taken_after_the_end_by_the_databases_clock(bob) -> None:
    row = held()
    pass_time(row, 101)
    assert climb() == {"steps": 0, "notices": 0}
    assert factories.fresh(row).steps_taken == 0
    tasks.sweep()
    assert factories.fresh(row).status == Status.EXPIRED
    assert factories.fresh(row).wake_at is None and events(row) == []


@pytest.mark.parametrize("end", ["approve", "reject", "cancel"])
def test_no_step_is_taken_of_what_is_decided(bob, end) -> None:
    row = held()
    by = row.requester if end == "cancel" else bob
    getattr(services, end)(row, by=by)
    pass_time(row, 60)
    assert climb()["steps"] == 0


def test_step_that_another_process_took_is_taken_by_nobody_else(bob) -> None:
    row = held()
    pass_time(row, 60)
    mine, theirs = factories.fresh(row), factories.fresh(row)
    escalating._climb(mine, "default")
    with pytest.raises(IllegalTransition):
        escalating._climb(theirs, "default")
    assert len(events(row)) == 1


def test_step_loses_to_a_decision_between_reading_and_writing(bob) -> None:
    row = held()
    pass_time(row, 60)
    read = factories.fresh(row)
    services.reject(row, by=bob)
    with pytest.raises(IllegalTransition):
        escalating._climb(read, "default")


def test_step_of_a_request_whose_time_ended_since_it_was_read_is_not_taken(bob) -> None:
    row = held()
    pass_time(row, 60)
    read = factories.fresh(row)
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=read.created_at)
    with pytest.raises(IllegalTransition):
        escalating._climb(read, "default")


def test_step_whose_message_cannot_be_written_is_not_taken(bob, monkeypatch) -> None:
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 50, users=[factories.user("ann")], may_decide=True)
    row = held(policy)
    pass_time(row, 60)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(escalating.outbox, "write", fail)
    assert climb()["steps"] == 0
    assert factories.fresh(row).steps_taken == 0
    assert events(row) == [] and not EscalatedDecider.objects.exists()


def test_editing_the_policy_changes_nothing_for_a_request_that_waits(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    row = held(policy)
    step(policy, 10, users=[factories.user("ann")], may_decide=True)
    pass_time(row, 20)
    assert climb()["steps"] == 0


@override_settings(JIT_APPROVAL={"REMIND_AT": 0})
def test_setting_turns_the_reminder_off(bob) -> None:
    row = held()
    pass_time(row, 70)
    assert climb()["steps"] == 0


def test_clock_wakes_at_the_next_step(bob) -> None:
    row = held()
    assert sweeping.Sweeper().look().step == pytest.approx(300, abs=5)
    pass_time(row, 50)
    assert sweeping.Sweeper().look().step == pytest.approx(0, abs=5)


# --- who may decide --------------------------------------------------------------------------------------


@pytest.fixture
def escalated(bob) -> ApprovalRequest:
    """A request whose ladder let ann, and the managers (max), decide."""
    policy = factories.policy(decide_within=WINDOW)
    ann, manager = factories.user("ann"), factories.user("max")
    step(policy, 50, users=[ann], groups=[group("managers", manager)], may_decide=True)
    row = held(policy, factories.user("erin"))
    pass_time(row, 60)
    return row


def by_name(name: str) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.get(username=name)


@pytest.mark.parametrize("name", ["ann", "max"])
def test_who_a_step_lets_decide_may_from_then_on_and_not_before(escalated, name) -> None:
    user = by_name(name)
    with pytest.raises(MayNotDecide):
        services.approve(escalated, by=user)
    assert not policies.decidable_by(user).exists()
    climb()
    assert policies.may_decide(user, escalated)
    assert user in policies.deciders_of(escalated)
    assert list(policies.decidable_by(user)) == [escalated]
    assert services.approve(escalated, by=user).status == Status.APPROVED
    services.consume(factories.fresh(escalated), state_digest=factories.STATE)


def test_escalated_decider_decides_over_the_api(escalated) -> None:
    from rest_framework.test import APIClient

    client, ann = APIClient(), by_name("ann")
    client.force_authenticate(ann)
    url = f"/approvals/{escalated.pk}/"
    assert client.get(url).status_code == 404
    climb()
    assert client.get(url).status_code == 200
    assert client.post(f"{url}approve/").status_code == 200
    assert factories.fresh(escalated).status == Status.APPROVED


def test_authority_is_over_that_request_alone(escalated, bob) -> None:
    climb()
    other = held(escalated.policy)
    assert not policies.may_decide(by_name("ann"), other)


def test_who_is_told_only_may_not_decide(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    ann = factories.user("ann")
    step(policy, 50, users=[ann])
    row = held(policy)
    pass_time(row, 60)
    assert climb()["steps"] == 1
    assert not policies.may_decide(ann, row)
    assert told(row, Event.ESCALATED) == ["ann"]
    assert "not yours to decide" in mail.outbox[0].body


def test_quorum_is_not_loosened(bob) -> None:
    policy = factories.policy(decide_within=WINDOW, required_approvals=2)
    ann = factories.user("ann")
    factories.decider("carol")
    step(policy, 50, users=[ann], may_decide=True)
    row = held(policy)
    pass_time(row, 60)
    climb()
    assert services.approve(row, by=ann).status == Status.PENDING
    assert services.approve(row, by=bob).status == Status.APPROVED


def test_group_that_must_be_represented_still_must_be(bob) -> None:
    security = group("security", bob)
    policy = factories.policy(decide_within=WINDOW)
    policy.group_requirements.create(group=security, count=1)
    ann = factories.user("ann")
    step(policy, 50, users=[ann], may_decide=True)
    row = held(policy)
    pass_time(row, 60)
    climb()
    assert services.approve(row, by=ann).status == Status.PENDING
    assert services.approve(row, by=bob).status == Status.APPROVED


def test_nobody_behind_the_call_may_decide_whatever_a_step_says(bob) -> None:
    erin, other = factories.user("erin"), factories.user("other")
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 50, users=[erin], groups=[group("managers", erin, other)], may_decide=True)
    row = held(policy, erin, persons=(policies.person_of(erin), policies.person_of(other)))
    pass_time(row, 60)
    climb()
    for user in (erin, other):
        with pytest.raises(SelfApprovalForbidden):
            services.approve(row, by=user)
        assert user not in policies.deciders_of(row)
    assert told(row, Event.ESCALATED) == []


def test_vote_counts_no_more_once_the_escalated_group_is_left(escalated) -> None:
    climb()
    manager = by_name("max")
    services.approve(escalated, by=manager)
    manager.groups.clear()
    with pytest.raises(IllegalTransition):
        services.consume(factories.fresh(escalated), state_digest=factories.STATE)


def test_vote_counts_no_more_once_its_giver_is_deactivated_before_the_quorum(bob) -> None:
    policy = factories.policy(decide_within=WINDOW, required_approvals=2)
    ann, _ = factories.user("ann"), factories.decider("carol")
    step(policy, 50, users=[ann], may_decide=True)
    row = held(policy)
    pass_time(row, 60)
    climb()
    services.approve(row, by=ann)
    ann.is_active = False
    ann.save()
    assert services.approve(row, by=bob).status == Status.PENDING


def test_stand_in_of_an_escalated_decider_may_decide_for_them(escalated) -> None:
    from jit_approval.models import Delegation

    now, zoe = clock.now("default"), factories.user("zoe")
    Delegation.objects.create(
        delegator=by_name("ann"),
        stand_in=zoe,
        starts_at=now - timedelta(hours=1),
        ends_at=now + timedelta(hours=1),
    )
    assert not policies.may_decide(zoe, escalated)
    climb()
    assert policies.may_decide(zoe, escalated)
    assert services.approve(escalated, by=zoe).status == Status.APPROVED


def test_grant_is_void_once_the_policy_lets_those_who_gave_it_decide_no_more(escalated) -> None:
    climb()
    services.approve(escalated, by=by_name("ann"))
    row = factories.fresh(escalated)
    now_terms = policies.terms(escalated.policy)
    assert policies.still_covers(row, now_terms)
    the_step = escalated.policy.steps.get()
    the_step.share = 90
    the_step.save()
    assert not policies.still_covers(row, policies.terms(escalated.policy))
    the_step.delete()
    assert not policies.still_covers(row, policies.terms(escalated.policy))


@pytest.mark.parametrize("window", [timedelta(seconds=7, milliseconds=1), timedelta(minutes=10)])
def test_grant_stays_good_while_the_policy_says_the_same_or_waits_longer(bob, window) -> None:
    policy = factories.policy(decide_within=window)
    ann = factories.user("ann")
    step(policy, 33, users=[ann], may_decide=True)
    row = held(policy, terms={"decide_within": window})
    ApprovalRequest.objects.filter(pk=row.pk).update(steps_taken=1)
    assert policies.still_covers(factories.fresh(row), policies.terms(policy))
    policy.decide_within = window * 2
    policy.save()
    assert policies.still_covers(factories.fresh(row), policies.terms(policy))


def test_grant_stays_good_where_steps_that_were_not_taken_go(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 50, users=[factories.user("ann")], may_decide=True)
    row = held(policy)
    services.approve(row, by=bob)
    policy.steps.all().delete()
    assert policies.still_covers(factories.fresh(row), policies.terms(policy))


def test_of_two_policies_that_may_apply_no_step_lets_anybody_decide() -> None:
    from jit_approval.policies.terms import tightened

    policy = factories.policy(decide_within=WINDOW)
    step(policy, 50, users=[factories.user("ann")], may_decide=True)
    strict = tightened(policies.terms(policy), policies.terms(None))
    assert [each.may_decide for each in strict.steps] == [False]
    assert [name for _key, name in strict.steps[0].users] == ["ann"]


def test_policy_whose_steps_let_others_decide_is_the_less_strict() -> None:
    from jit_approval.policies.terms import strictness

    plain, open_one = factories.policy(), factories.policy()
    step(open_one, 50, users=[factories.user("ann")], may_decide=True)
    assert strictness(plain) > strictness(open_one)


# --- who is told -----------------------------------------------------------------------------------------


def test_reminder_goes_to_those_who_have_not_decided(bob) -> None:
    factories.decider("carol"), factories.decider("dora")
    row = held(terms={"required_approvals": 2})
    services.approve(row, by=bob)
    pass_time(row, 60)
    climb()
    assert told(row, Event.REMINDER) == ["carol", "dora"]


def test_step_tells_people_groups_addresses_and_channels_each_once(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    ann, ben = factories.user("ann"), factories.user("ben")
    pager = Channel.objects.create(slug="pager", name="Pager", kind="dummy", enabled=True)
    off = Channel.objects.create(slug="off", name="Off", kind="dummy", enabled=False)
    step(
        policy,
        50,
        deciders=True,
        users=[ann, bob],
        groups=[group("managers", ann, ben)],
        addresses="duty@example.test",
        channels=[pager, off],
        may_decide=True,
    )
    row = held(policy)
    pass_time(row, 60)
    climb()
    assert told(row, Event.ESCALATED) == ["ann", "ben", "bob", "duty"]
    sent = Notification.objects.filter(approval_request=row, recipient="*")
    assert [each.channel for each in sent] == ["pager"]
    # Whom the step names hears of it once, not as a reminder too.
    assert told(row, Event.REMINDER) == []
    assert climb()["steps"] == 0 and told(row, Event.ESCALATED) == []


def test_two_accounts_of_one_person_are_told_once(bob) -> None:
    with override_settings(JIT_APPROVAL={"PERSON_KEY": "last_name"}):
        factories.decider("carol", last_name="Carol")
        factories.decider("carol-admin", last_name="Carol")
        assert told(held(), Event.HELD) == ["bob", "carol"]


def test_those_whom_steps_told_hear_who_handled_it(escalated, bob) -> None:
    escalated.policy.steps.update(addresses="duty@example.test")
    row = held(escalated.policy, factories.user("frank"))
    pass_time(row, 60)
    climb()
    told(row, Event.HELD), told(row, Event.ESCALATED)
    services.approve(row, by=by_name("ann"))
    assert told(row, Event.DECIDED) == ["bob", "duty", "frank", "max"]
    subjects = {each.to[0]: each.subject for each in mail.outbox}
    assert subjects["duty@example.test"].startswith("Already handled by ann: ")
    assert subjects["frank@example.test"].startswith("Approved: ")


def test_step_that_is_due_at_once_with_its_end_is_told_no_more(bob) -> None:
    row = held()
    pass_time(row, 60)
    climb()
    services.reject(row, by=bob)
    assert told(row, Event.REMINDER) == []
    assert Notification.objects.get(event=Event.REMINDER).state == State.DROPPED


# --- ends that are near ----------------------------------------------------------------------------------


def test_end_of_the_time_to_decide_is_announced_to_those_who_have_not_decided(bob) -> None:
    factories.decider("carol")
    row = held(None, factories.user("erin"), terms={"required_approvals": 2})
    services.approve(row, by=bob)
    pass_time(row, 79)
    assert climb()["notices"] == 0
    pass_time(row, 2)
    assert climb()["notices"] == 1 and climb()["notices"] == 0
    assert told(row, Event.EXPIRING) == ["carol"]
    assert "about to run out of time" in mail.outbox[0].body


def test_end_of_an_unused_approval_is_announced_to_its_requester(bob) -> None:
    row = held(None, factories.user("erin"))
    pass_time(row, 85)
    climb()
    services.approve(row, by=bob)
    pass_time(row, 45)  # of ten minutes; the approval lasts five
    assert climb()["notices"] == 1 and climb()["notices"] == 0
    assert told(row, Event.EXPIRING) == ["erin"]
    assert "Approval not used yet" in mail.outbox[0].subject


def test_end_that_has_come_is_not_announced_as_near(bob) -> None:
    row = held()
    pass_time(row, 85)
    climb()
    services.cancel(row, by=row.requester)
    assert told(row, Event.EXPIRING) == []
    assert Notification.objects.filter(event=Event.EXPIRING).get().state == State.DROPPED


def test_used_approval_is_not_announced_as_unused(bob) -> None:
    row = held()
    services.approve(row, by=bob)
    pass_time(row, 42)
    services.consume(factories.fresh(row), state_digest=factories.STATE)
    assert climb()["notices"] == 0


def test_window_too_short_for_a_notice_has_none(bob) -> None:
    row = held(terms={"decide_within": timedelta(seconds=30), "steps": ()})
    assert row.wake_at is None


# --- nobody left -----------------------------------------------------------------------------------------


def test_quorum_out_of_reach_escalates_at_once(bob, django_capture_on_commit_callbacks) -> None:
    policy = factories.policy(decide_within=WINDOW)
    ann = factories.user("ann")
    step(policy, 90, users=[ann], may_decide=True)
    row = held(policy)
    bob.is_active = False
    with django_capture_on_commit_callbacks(execute=True):
        bob.save()
    assert climb()["steps"] == 1
    assert events(row)[0]["early"] is True
    assert policies.may_decide(ann, row)
    assert climb()["steps"] == 0
    assert factories.fresh(row).wake_at > clock.now("default")


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_last_resort_is_told_once_where_no_step_helps(
    bob, django_capture_on_commit_callbacks
) -> None:
    policy = factories.policy(decide_within=WINDOW, fallback="owner@example.test")
    row = held(policy)
    with django_capture_on_commit_callbacks(execute=True):
        bob.user_permissions.clear()
    assert climb()["steps"] == 2  # the reminder, and the last resort
    assert told(row, Event.UNAVAILABLE) == ["last", "owner"]
    assert "nobody is left who could approve it" in mail.outbox[0].body
    assert row.match_code in mail.outbox[0].subject
    tasks.sweep()
    assert climb()["steps"] == 0 and told(row, Event.UNAVAILABLE) == []


def test_last_resort_without_an_address_is_a_dead_letter(
    bob, django_capture_on_commit_callbacks
) -> None:
    row = held()
    bob.is_active = False
    with django_capture_on_commit_callbacks(execute=True):
        bob.save()
    climb()
    told(row, Event.UNAVAILABLE)
    dead = Notification.objects.get(event=Event.UNAVAILABLE)
    assert dead.state == State.FAILED and "fallback" in dead.error


def test_deciders_lost_past_all_signals_are_found_by_the_sweep(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    under, default = held(policy), held()
    type(bob).objects.filter(pk=bob.pk).update(is_active=False)
    tasks.sweep()
    for row in (under, default):
        assert [said["early"] for said in events(row)] == [True, True]


def test_requester_hastens_no_escalation_by_naming_the_deciders_as_stand_ins(
    bob, django_capture_on_commit_callbacks
) -> None:
    from jit_approval.models import Delegation

    erin, friend = factories.decider("erin"), factories.user("friend")
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 90, users=[friend], may_decide=True)
    row, now = held(policy, erin), clock.now("default")
    with django_capture_on_commit_callbacks(execute=True):
        Delegation.objects.create(
            delegator=erin,
            stand_in=bob,
            starts_at=now - timedelta(hours=1),
            ends_at=now + timedelta(hours=1),
        )
    assert not policies.may_decide(bob, row)
    tasks.sweep()
    assert climb()["steps"] == 0 and events(row) == []


def test_enough_deciders_left_is_no_reason_to_escalate(
    bob, django_capture_on_commit_callbacks
) -> None:
    factories.decider("carol")
    row = held()
    bob.is_active = False
    with django_capture_on_commit_callbacks(execute=True):
        bob.save()
    assert climb()["steps"] == 0
    assert factories.fresh(row).wake_at > clock.now("default")


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_that_nobody_is_left_is_told_no_more_once_it_is_over(
    bob, django_capture_on_commit_callbacks
) -> None:
    row = held()
    bob.is_active = False
    with django_capture_on_commit_callbacks(execute=True):
        bob.save()
    climb()
    services.cancel(row, by=row.requester)
    assert told(row, Event.UNAVAILABLE) == []
    assert Notification.objects.get(event=Event.UNAVAILABLE).state == State.DROPPED


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_step_whose_only_channel_does_not_work_is_told_to_the_last_resort(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    broken = Channel.objects.create(slug="broken", name="Broken", kind="none", enabled=True)
    step(policy, 50, channels=[broken])
    row = held(policy)
    pass_time(row, 60)
    climb()
    for _ in range(4):
        Notification.objects.filter(channel="broken").update(next_attempt_at=row.created_at)
        told(row, Event.ESCALATED)
        for pk in row.notifications.filter(channel="broken").values_list("pk", flat=True):
            tasks.deliver(pk)
    addresses = row.notifications.filter(event=Event.ESCALATED).values_list("address", flat=True)
    assert "last@example.test" in addresses


@override_settings(JIT_APPROVAL={"FALLBACK_ADDRESSES": ["last@example.test"]})
def test_held_call_whose_deciders_have_no_address_is_told_to_the_last_resort(bob) -> None:
    bob.email = ""
    bob.save()
    row = held()
    assert told(row, Event.HELD) == ["last"]
    assert "nobody who may decide it has an address" in mail.outbox[0].body


def test_ladder_of_a_request_is_in_the_event_that_opened_it(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    step(policy, 50, users=[factories.user("ann")], may_decide=True)
    row = held(policy)
    opened = json.loads(row.audit_events.get(kind="held").body)["data"]["terms"]
    ann = policy.steps.get().users.get()
    assert opened["steps"][0]["users"] == [[str(ann.pk), "ann"]]
    # The names of people stand in the trail alone.
    assert row.ladder[0] == {**opened["steps"][0], "users": [str(ann.pk)]}
    assert ladder.rungs(row)[0].may_decide and ladder.rungs(row)[-1].is_last_resort


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_take_each_step_once(bob) -> None:
    policy = factories.policy(decide_within=WINDOW)
    ann = factories.user("ann")
    step(policy, 30, deciders=True)
    step(policy, 50, users=[ann], may_decide=True)
    rows = [held(policy, factories.user()) for _ in range(20)]
    for row in rows:
        pass_time(row, 60)
    start, counts = threading.Barrier(4), []

    def sweep() -> None:
        try:
            start.wait()
            counts.append(climb()["steps"])
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 2 * len(rows)
    for row in rows:
        assert [said["step"] for said in events(row)] == [1, 2]
        assert row.notifications.filter(recipient="").count() == 3
        assert EscalatedDecider.objects.filter(approval_request=row).count() == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_step_and_decision_at_once_leave_no_step_after_the_decision(bob) -> None:
    for _ in range(10):
        row = held()
        pass_time(row, 60)
        start = threading.Barrier(2)

        def decide(row: ApprovalRequest = row, start: Any = start) -> None:
            try:
                start.wait()
                services.reject(row, by=bob)
            finally:
                connections.close_all()

        thread = threading.Thread(target=decide)
        thread.start()
        start.wait()
        climb()
        thread.join()
        kinds = list(row.audit_events.order_by("sequence").values_list("kind", flat=True))
        assert kinds in (["held", "rejected"], ["held", "escalated", "rejected"])
        assert factories.fresh(row).wake_at is None

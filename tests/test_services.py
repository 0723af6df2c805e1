"""The life of a request: who may move it, when, and that nobody can move it twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import transaction

from jit_approval import exceptions, services
from jit_approval.audit import chain
from jit_approval.models import ApprovalRequest, AuditEvent, Decision, Notification
from jit_approval.states import LEGAL_MOVES, Outcome, Status
from tests import factories

pytestmark = pytest.mark.django_db


def at_status(status: Status) -> ApprovalRequest:
    """A request brought to `status` by the services alone (deadlines are moved by hand)."""
    bob = factories.decider()
    row = factories.held()
    if status is Status.REJECTED:
        services.reject(row, by=bob)
    elif status is Status.CANCELLED:
        services.cancel(row, by=row.requester)
    elif status is Status.EXPIRED:
        make_overdue(row)
        services.expire(row)
    elif status is not Status.PENDING:
        services.approve(row, by=bob)
        if status is Status.CONSUMED:
            services.consume(factories.fresh(row), state_digest=factories.STATE)
        elif status is Status.REVOKED:
            services.revoke(row, by=bob)
    row = factories.fresh(row)
    assert row.status == status
    return row


def make_overdue(row: ApprovalRequest) -> None:
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=row.created_at - timedelta(seconds=1))


def move(row: ApprovalRequest, target: Status) -> None:
    bob = factories.decider()
    match target:
        case Status.APPROVED:
            services.approve(row, by=bob)
        case Status.REJECTED:
            services.reject(row, by=bob)
        case Status.CANCELLED:
            services.cancel(row, by=row.requester)
        case Status.REVOKED:
            services.revoke(row, by=bob)
        case Status.CONSUMED:
            services.consume(factories.fresh(row), state_digest=factories.STATE)
        case Status.EXPIRED:
            make_overdue(row)
            services.expire(row)


MOVES = [(source, target) for source in Status for target in Status if target is not Status.PENDING]


@pytest.mark.parametrize(("source", "target"), MOVES)
def test_only_legal_moves_are_made(source: Status, target: Status) -> None:
    row = at_status(source)
    if target in LEGAL_MOVES[source]:
        move(row, target)
        assert factories.fresh(row).status == target
    else:
        with pytest.raises(exceptions.IllegalTransition):
            move(row, target)
        assert factories.fresh(row).status == source


@pytest.mark.parametrize("status", list(Status))
def test_every_transition_leaves_an_unbroken_trail(status: Status) -> None:
    row = at_status(status)
    events = list(AuditEvent.objects.filter(approval_request=row).order_by("sequence"))
    assert events[-1].target == status
    assert chain.first_broken(events) is None
    assert (row.audit_seq, row.audit_head) == (len(events), events[-1].hash)


def test_a_changed_event_is_found() -> None:
    row = at_status(Status.CONSUMED)
    events = list(AuditEvent.objects.filter(approval_request=row).order_by("sequence"))
    events[1].body = events[1].body.replace("approved", "rejected")
    assert chain.first_broken(events) is events[1]


@pytest.mark.parametrize("service", [services.approve, services.reject])
def test_requester_cannot_decide_own_request(service) -> None:
    factories.decider()
    erin = factories.decider("erin", is_superuser=True)
    row = factories.held(erin)
    with pytest.raises(exceptions.SelfApprovalForbidden):
        service(row, by=erin)


def test_everyone_behind_a_call_counts_as_its_requester() -> None:
    factories.decider()
    owner = factories.decider("key-owner")
    erin = factories.user("erin")
    row = factories.held(erin, persons=(str(erin.pk), str(owner.pk)))
    with pytest.raises(exceptions.SelfApprovalForbidden):
        services.approve(row, by=owner)


def test_second_account_of_the_requesters_person_cannot_decide(settings) -> None:
    settings.JIT_APPROVAL = {"PERSON_KEY": "last_name"}
    factories.decider("bob", last_name="P-2")
    erin = factories.user("erin", last_name="P-1")
    other = factories.decider("erin-admin", last_name="P-1")
    row = factories.held(erin, persons=("P-1",))
    with pytest.raises(exceptions.SelfApprovalForbidden):
        services.approve(row, by=other)


def test_two_accounts_of_one_person_count_once(settings) -> None:
    settings.JIT_APPROVAL = {"PERSON_KEY": "last_name"}
    first = factories.decider(last_name="P-2")
    second = factories.decider(last_name="P-2")
    factories.decider(last_name="P-3")
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=first)
    with pytest.raises(exceptions.AlreadyDecided):
        services.approve(row, by=second)
    assert factories.fresh(row).status == Status.PENDING


def test_stranger_cannot_decide() -> None:
    factories.decider()
    row = factories.held()
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=factories.user())


def test_deactivated_decider_cannot_decide() -> None:
    factories.decider()
    row = factories.held()
    with pytest.raises(exceptions.MayNotDecide):
        services.approve(row, by=factories.decider(is_active=False))


def test_one_person_decides_once() -> None:
    bob = factories.decider()
    factories.decider()
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=bob)
    with pytest.raises(exceptions.AlreadyDecided):
        services.approve(row, by=bob)


@pytest.mark.parametrize(
    "column", ["fingerprint", "payload", "state_digest", "required_approvals", "requester_label"]
)
def test_nobody_approves_what_was_rewritten_since_it_was_held(column) -> None:
    bob = factories.decider()
    row = factories.held()
    changed = 0 if column == "required_approvals" else "another"
    ApprovalRequest.objects.filter(pk=row.pk).update(**{column: changed})
    with pytest.raises(exceptions.RequestRewritten):
        services.approve(row, by=bob)
    assert (factories.fresh(row).status, Decision.objects.count()) == ("pending", 0)
    assert services.reject(row, by=bob).status == Status.REJECTED


def test_a_deadline_put_off_in_the_database_is_none() -> None:
    bob = factories.decider()
    row = factories.held()
    later = row.decide_by + timedelta(days=30)
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=later)
    with pytest.raises(exceptions.RequestRewritten):
        services.approve(row, by=bob)
    assert (factories.fresh(row).status, Decision.objects.count()) == ("pending", 0)


def test_groups_are_represented_whatever_the_row_says_of_how_votes_are_counted() -> None:
    """`weighed` follows from the terms; no event says it."""
    bob, sue = factories.decider(), factories.decider()
    group = Group.objects.create(name="security")
    group.user_set.add(sue)
    row = factories.held(terms={"group_requirements": ((group.pk, "security", 1),)})
    rows = ApprovalRequest.objects.filter(pk=row.pk)
    rows.update(weighed=False)
    assert services.approve(row, by=bob).status == Status.PENDING
    assert services.approve(row, by=sue).status == Status.APPROVED
    rows.update(weighed=False)
    group.user_set.clear()
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)


@pytest.mark.parametrize("held", [{"kind": "noted"}, {"body": ""}, {"body": "{}"}, {"sequence": 9}])
def test_nobody_approves_what_the_trail_does_not_know(held) -> None:
    bob = factories.decider()
    row = factories.held()
    row.audit_events.update(**held)
    with pytest.raises(exceptions.RequestRewritten):
        services.approve(row, by=bob)
    assert (factories.fresh(row).status, Decision.objects.count()) == ("pending", 0)


@pytest.mark.parametrize("end", [services.cancel, services.reject, services.expire])
def test_nobody_approves_what_was_over_and_was_set_back_in_the_database(end) -> None:
    bob = factories.decider()
    factories.decider()
    row = factories.held()
    if end is services.cancel:
        services.cancel(row, by=row.requester)
    elif end is services.reject:
        services.reject(row, by=bob)
    else:
        make_overdue(row)
        services.expire(row)
    ahead = row.decide_by - timedelta(seconds=1)
    as_before = {"status": "pending", "open_key": row.fingerprint, "due_at": ahead}
    ApprovalRequest.objects.filter(pk=row.pk).update(**as_before)
    with pytest.raises(exceptions.RequestRewritten):
        services.approve(row, by=factories.decider())
    assert factories.fresh(row).status == Status.PENDING


@pytest.mark.parametrize("service", [services.approve, services.reject])
def test_who_has_no_account_decides_nothing(service) -> None:
    factories.decider()
    row = factories.held()
    for nobody in (AnonymousUser(), factories.user().__class__(is_superuser=True), object()):
        with pytest.raises(exceptions.MayNotDecide):
            service(row, by=nobody)
    assert factories.fresh(row).status == Status.PENDING


def test_quorum_counts_persons_who_are_deciders_still() -> None:
    bob, carol, dave = (factories.decider() for _ in range(3))
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=bob)
    bob.user_permissions.clear()
    services.approve(row, by=carol)
    assert factories.fresh(row).status == Status.PENDING
    services.approve(row, by=dave)
    assert factories.fresh(row).status == Status.APPROVED


def test_vote_of_a_deactivated_decider_is_worth_nothing_when_consuming() -> None:
    bob = factories.decider()
    row = factories.held()
    services.approve(row, by=bob)
    bob.is_active = False
    bob.save()
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)


def test_one_rejection_ends_it() -> None:
    bob, carol = factories.decider(), factories.decider()
    row = factories.held(terms={"required_approvals": 2})
    services.approve(row, by=bob)
    services.reject(row, by=carol, comment="no")
    assert factories.fresh(row).status == Status.REJECTED


def test_nothing_opens_without_somebody_who_could_approve() -> None:
    with pytest.raises(exceptions.ApprovalUnavailable):
        factories.held()
    assert not ApprovalRequest.objects.exists()


def test_nothing_opens_when_only_the_requester_could_approve() -> None:
    with pytest.raises(exceptions.ApprovalUnavailable):
        factories.held(factories.decider("erin", is_superuser=True))


def test_nothing_opens_when_the_quorum_is_out_of_reach() -> None:
    factories.decider()
    with pytest.raises(exceptions.ApprovalUnavailable):
        factories.held(terms={"required_approvals": 2})


def test_late_vote_does_not_count() -> None:
    bob = factories.decider()
    row = factories.held()
    make_overdue(row)
    with pytest.raises(exceptions.IllegalTransition):
        services.approve(row, by=bob)


def test_late_grant_is_not_spent() -> None:
    row = at_status(Status.APPROVED)
    make_overdue(row)
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(factories.fresh(row), state_digest=factories.STATE)


def test_grant_read_in_time_and_spent_late_is_not_spent() -> None:
    row = at_status(Status.APPROVED)
    make_overdue(row)  # `row` itself was read before
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(row, state_digest=factories.STATE)


def test_grant_is_not_spent_on_another_state() -> None:
    row = at_status(Status.APPROVED)
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(row, state_digest="0" * 64)


def test_grant_is_spent_once() -> None:
    row = at_status(Status.APPROVED)
    again = factories.fresh(row)
    services.consume(row, state_digest=factories.STATE)
    with pytest.raises(exceptions.IllegalTransition):
        services.consume(again, state_digest=factories.STATE)


def test_open_requests_have_a_limit(settings) -> None:
    settings.JIT_APPROVAL = {"MAX_OPEN_PER_REQUESTER": 2}
    factories.decider()
    erin = factories.user()
    factories.held(erin)
    factories.held(erin)
    with pytest.raises(exceptions.TooManyPending):
        factories.held(erin)


@pytest.mark.parametrize("limit", ["OPENINGS_PER_REQUESTER", "OPENINGS_PER_POLICY"])
def test_openings_over_time_have_a_limit_that_cancelling_does_not_lift(settings, limit) -> None:
    settings.JIT_APPROVAL = {limit: "2/hour"}
    factories.decider()
    erin = factories.user()
    for _ in range(2):
        services.cancel(factories.held(erin), by=erin)
    with pytest.raises(exceptions.TooManyPending):
        factories.held(erin)


def test_a_rejected_call_cools_down_by_requester_action_and_object() -> None:
    bob = factories.decider()
    erin = factories.user()
    row = factories.held(erin, object_pk="42")
    services.reject(row, by=bob)
    with pytest.raises(exceptions.CoolingDown) as caught:
        factories.held(erin, object_pk="42")
    assert str(row.pk).replace("-", "") in str(caught.value.approval_id).replace("-", "")
    factories.held(erin, object_pk="43")
    factories.held(factories.user(), object_pk="42")


@pytest.mark.parametrize("reason", ["", ".", "aaa", " - "])
def test_a_required_reason_must_say_something(reason) -> None:
    factories.decider()
    with pytest.raises(exceptions.ReasonRequired):
        factories.held(reason=reason, terms={"require_reason": True})


def test_comment_has_a_limit(settings) -> None:
    settings.JIT_APPROVAL = {"MAX_REASON_LENGTH": 3}
    bob = factories.decider()
    with pytest.raises(exceptions.CommentTooLong):
        services.approve(factories.held(), by=bob, comment="four")


def test_outcome_is_recorded_once() -> None:
    row = at_status(Status.CONSUMED)
    services.record_outcome(row, outcome=Outcome.SUCCEEDED, response_status=204)
    assert factories.fresh(row).response_status == 204
    with pytest.raises(exceptions.IllegalTransition):
        services.record_outcome(row, outcome=Outcome.FAILED)


def test_an_unknown_outcome_is_settled_by_a_decider_not_by_the_requester() -> None:
    row = at_status(Status.CONSUMED)
    bob = factories.decider()
    with pytest.raises(exceptions.IllegalTransition):
        services.settle(row, by=bob, outcome=Outcome.FAILED)  # it is running still
    services.record_outcome(row, outcome=Outcome.UNKNOWN)
    with pytest.raises(exceptions.SelfApprovalForbidden):
        services.settle(row, by=row.requester, outcome=Outcome.FAILED)
    with pytest.raises(exceptions.MayNotDecide):
        services.settle(row, by=factories.user(), outcome=Outcome.FAILED)
    with pytest.raises(exceptions.IllegalTransition):
        services.settle(row, by=bob, outcome=Outcome.RUNNING)
    services.settle(row, by=bob, outcome=Outcome.FAILED, comment="it had not begun")
    assert factories.fresh(row).outcome == Outcome.FAILED
    events = AuditEvent.objects.filter(approval_request=row).order_by("sequence")
    assert chain.first_broken(events) is None


def test_stranger_cannot_cancel() -> None:
    factories.decider()
    with pytest.raises(exceptions.NotTheRequester):
        services.cancel(factories.held(), by=factories.decider())


def test_stranger_cannot_revoke_and_requester_can() -> None:
    row = at_status(Status.APPROVED)
    with pytest.raises(exceptions.MayNotDecide):
        services.revoke(row, by=factories.user())
    services.revoke(row, by=row.requester)


@pytest.mark.django_db(transaction=True)
def test_services_refuse_a_callers_transaction() -> None:
    row = at_status(Status.APPROVED)
    with transaction.atomic(), pytest.raises(exceptions.NotDurable):
        services.consume(row, state_digest=factories.STATE)
    assert factories.fresh(row).status == Status.APPROVED


@pytest.mark.django_db(transaction=True)
def test_services_refuse_to_work_with_autocommit_off() -> None:
    row = at_status(Status.APPROVED)
    transaction.set_autocommit(False)
    try:
        with pytest.raises(exceptions.NotDurable):
            services.consume(row, state_digest=factories.STATE)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.mark.parametrize(
    ("status", "events"),
    [
        (Status.PENDING, ["held"]),
        (Status.APPROVED, ["held", "decided"]),
        (Status.REJECTED, ["held", "decided"]),
        (Status.EXPIRED, ["held", "expired"]),
        (Status.REVOKED, ["held", "decided", "revoked"]),
    ],
)
def test_each_transition_writes_its_message(status, events) -> None:
    row = at_status(status)
    written = Notification.objects.filter(approval_request=row).order_by("pk")
    assert [notification.event for notification in written] == events

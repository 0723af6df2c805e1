"""What policies do to a call, over HTTP: and no way to a run that they did not mean."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.core import mail
from django.db import connection
from django.urls import include, path
from guardian.shortcuts import assign_perm
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from jit_approval import services, tasks
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    AuditEvent,
    Notification,
    PolicyGroupRequirement,
)
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.states import Effect, Status
from tests import factories
from tests.test_statement_counts import Statements
from tests.testapp.models import Customer
from tests.testapp.views import CustomerViewSet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

RAN: list[object] = []


class MovesView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def get(self, request):
        return Response({})

    def post(self, request):
        RAN.append(request.data)
        return Response({"moved": True}, status=201)


class AnywhereView(MovesView):
    permission_classes = (RequiresApprovalByPolicy,)


class BothView(MovesView):
    permission_classes = (RequiresApprovalByPolicy, RequiresApproval)


class ExportsView(MovesView):
    approval_methods = ("GET",)

    def get(self, request):
        RAN.append("export")
        return Response({})


urlpatterns = [
    path("approvals/", include("jit_approval.urls")),
    path("moves/", MovesView.as_view()),
    path("anywhere/", AnywhereView.as_view()),
    path("both/", BothView.as_view()),
    path("exports/", ExportsView.as_view()),
    path(
        "customers/<int:pk>/", CustomerViewSet.as_view({"delete": "destroy"}, basename="customers")
    ),
]
BOTH_GATES = pytest.mark.parametrize("url", ["/moves/", "/anywhere/"])


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def user(bob):
    return factories.user("erin")


@pytest.fixture
def erin(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


def post(client, url="/moves/", data=None, **headers):
    return client.post(url, data or {"amount": 5}, format="json", headers=headers)


def code(response) -> str:
    return response.json()["code"]


def approve(response, *users) -> ApprovalRequest:
    row = ApprovalRequest.objects.get(pk=response["Approval-Id"])
    for by in users:
        services.approve(row, by=by)
    return row


def events(kind: str) -> list[dict]:
    return [json.loads(event.body)["data"] for event in AuditEvent.objects.filter(kind=kind)]


# --- allow --------------------------------------------------------------------------------------------------


@BOTH_GATES
def test_allow_runs_at_once_and_says_so(erin, url):
    policy = factories.policy(slug="small", effect=Effect.ALLOW)
    assert post(erin, url).status_code == 201
    assert RAN == [{"amount": 5}]
    (told,) = events("allowed")
    assert (told["policy"], told["action"]) == ("small", f"{url.strip('/')}.post")
    assert AuditEvent.objects.get(kind="allowed").actor_label == "erin"
    assert policy.approval_requests.count() == 0


def test_allow_holds_for_the_calls_it_means(erin):
    factories.policy(effect=Effect.ALLOW, condition="request.data.amount < 100")
    assert post(erin, data={"amount": 99}).status_code == 201
    for amount in (100, "99", None, [99]):
        assert code(post(erin, data={"amount": amount})) == "approval_pending"
    assert len(RAN) == 1


@BOTH_GATES
def test_what_is_allowed_but_cannot_be_written_down_does_not_run(erin, url):
    factories.policy(effect=Effect.ALLOW)
    table = connection.ops.quote_name(AuditEvent._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO gone")
    try:
        assert code(post(erin, url)) == "gate_unavailable"
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE gone RENAME TO {table}")
    assert RAN == []


# --- deny ---------------------------------------------------------------------------------------------------


@BOTH_GATES
def test_deny_never_runs_opens_nothing_and_says_so(erin, url):
    factories.policy(slug="never", effect=Effect.DENY)
    response = post(erin, url)
    assert (response.status_code, code(response)) == (403, "approval_denied")
    assert response.json()["executed"] is False
    assert RAN == []
    assert not ApprovalRequest.objects.exists()
    (told,) = events("denied")
    assert told["policy"] == "never"


@pytest.mark.parametrize("by_id", [True, False])
@BOTH_GATES
def test_deny_stops_who_holds_a_grant_from_before(erin, bob, url, by_id):
    factories.policy(priority=5)
    held = post(erin, url)
    row = approve(held, bob)
    factories.policy(effect=Effect.DENY, priority=1)
    headers = {"Approval-Id": str(row.pk)} if by_id else {}
    for _ in range(2):
        answer = code(post(erin, url, **headers))
        assert answer == ("approval_revoked" if by_id else "approval_denied")
    assert RAN == []
    assert factories.fresh(row).status == Status.REVOKED


def test_deny_whose_condition_fails_denies(erin):
    factories.policy(effect=Effect.DENY, condition="request.data.nothing > 1")
    factories.policy(effect=Effect.ALLOW)
    assert code(post(erin)) == "approval_denied"
    (told,) = events("denied")
    assert told["troubles"][0]["error"]


# --- observe ------------------------------------------------------------------------------------------------


def test_observe_says_what_would_have_been_and_the_call_is_held_as_ever(erin, bob):
    factories.policy(slug="shadow", effect=Effect.OBSERVE, required_approvals=2)
    held = post(erin)
    assert held.json()["policy"] is None
    (told,) = events("observed")
    assert told["policy"] == "shadow"
    assert (told["would_be"], told["required_approvals"]) == ("held", 2)
    assert (told["deciders"], told["deciders_count"]) == (["bob"], 1)
    approve(held, bob)
    assert post(erin).status_code == 201


def test_observe_lets_a_call_run_that_only_it_names(erin):
    factories.policy(slug="shadow", effect=Effect.OBSERVE)
    assert post(erin, "/anywhere/").status_code == 201
    assert RAN == [{"amount": 5}]
    assert [told["policy"] for told in events("observed")] == ["shadow"]


def test_observe_names_nobody_behind_the_call_and_nobody_of_another_kind(erin, user, bob):
    user.is_superuser = True
    user.save()
    customer = Customer.objects.create(name="Ada")
    carol = factories.user("carol")
    assign_perm("testapp.change_customer", carol, customer)
    shadow = {"effect": Effect.OBSERVE, "actions": "customers.*"}
    factories.policy(slug="a", object_permission="testapp.change_customer", **shadow)
    factories.policy(slug="b", object_permission="testapp.change_account", **shadow)
    erin.delete(f"/customers/{customer.pk}/")
    told = {each["policy"]: each["deciders"] for each in events("observed")}
    assert told == {"a": ["bob", "carol"], "b": ["bob"]}


@pytest.mark.parametrize(
    "sent",
    [
        {"data": "x" * 3000, "content_type": "text/plain; charset=latin-1"},
        {"data": '{"a": 1, "a": 2}', "content_type": "application/json"},
        {"data": json.dumps("x" * 3000), "content_type": "application/json"},
    ],
)
def test_observe_is_never_in_the_way_of_a_call_that_could_not_be_held(erin, settings, sent):
    """Without the policy it is 201 or the view's own answer; so it is with it."""
    settings.JIT_APPROVAL = {"MAX_BODY_BYTES": 1000}
    without = erin.generic("POST", "/anywhere/", **sent).status_code
    ran = list(RAN)
    factories.policy(effect=Effect.OBSERVE)
    assert erin.generic("POST", "/anywhere/", **sent).status_code == without
    assert RAN == ran * 2


def test_observe_does_not_hand_a_broken_body_on_as_an_empty_one(erin):
    factories.policy(effect=Effect.OBSERVE)
    response = erin.generic("POST", "/anywhere/", '{"a":', content_type="application/json")
    assert (response.status_code, RAN) == (400, [])


def test_nor_a_form_that_is_too_large_to_be_parsed(erin, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    factories.policy(effect=Effect.OBSERVE)
    response = erin.post("/anywhere/", {"note": "x" * 1000}, format="multipart")
    assert response.status_code in (400, 413)
    assert RAN == []


def test_observe_whose_condition_fails_is_told_with_the_error(erin):
    factories.policy(effect=Effect.OBSERVE, condition="request.data.nothing > 1")
    assert post(erin, "/anywhere/").status_code == 201
    (told,) = events("observed")
    assert told["error"]


# --- both gates on one view ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"effect": Effect.OBSERVE},
        {"condition": 'action == "other"'},
        {"actions": "other.*"},
        {"effect": Effect.ALLOW, "condition": "request.data.nothing == 1"},
    ],
)
def test_where_no_policy_applies_the_stricter_gate_beside_still_holds(erin, fields):
    factories.policy(**fields)
    assert code(post(erin, "/both/")) == "approval_pending"
    assert RAN == []


# --- held, and the policy changes before it runs ------------------------------------------------------------


def disabled(policy):
    policy.enabled = False


def more_approvals(policy):
    policy.required_approvals = 2


def group_added(policy):
    group = Group.objects.get(name="security")
    PolicyGroupRequirement.objects.create(policy=policy, group=group)


def shorter(policy):
    policy.usable_within -= timedelta(seconds=1)


def reason_required(policy):
    """The one that was given says nothing."""
    ApprovalRequest.objects.update(reason=".")
    policy.require_reason = True


def pattern_required(policy):
    policy.reason_pattern = "CHG-"


def object_permission_removed(policy):
    policy.object_permission = ""


def another_object_permission(policy):
    policy.object_permission = "testapp.delete_customer"


def denied_before(policy):
    factories.policy(priority=1, effect=Effect.DENY, actions="customers.*")


def another_first(policy):
    factories.policy(priority=1, actions="customers.*")


def out_of_its_globs(policy):
    policy.actions = "other.*"


def condition_no_longer_holds(policy):
    policy.condition = 'action == "other"'


@pytest.mark.parametrize(
    "change",
    [
        disabled,
        more_approvals,
        group_added,
        shorter,
        reason_required,
        pattern_required,
        object_permission_removed,
        another_object_permission,
        denied_before,
        another_first,
        out_of_its_globs,
        condition_no_longer_holds,
    ],
)
def test_a_grant_is_worth_nothing_once_the_policy(erin, bob, change):
    Group.objects.create(name="security").user_set.add(bob)
    factories.decider("carol")
    customer = Customer.objects.create(name="Ada")
    policy = factories.policy(object_permission="testapp.change_customer", actions="customers.*")
    url = f"/customers/{customer.pk}/"
    row = approve(erin.delete(url, headers={"Approval-Reason": "it broke"}), bob)
    assert factories.fresh(row).status == Status.APPROVED
    change(policy)
    policy.save()
    assert erin.delete(url).status_code in (400, 403)
    assert Customer.objects.filter(pk=customer.pk).exists()
    assert factories.fresh(row).status == Status.REVOKED


@pytest.mark.parametrize("how", ["another first", "disabled", "a first one"])
def test_a_grant_is_worth_nothing_under_another_policy_with_like_terms(erin, bob, how):
    if how == "a first one":
        row = approve(post(erin), bob)
        factories.policy()
    else:
        policy = factories.policy()
        row = approve(post(erin), bob)
        if how == "disabled":
            policy.enabled = False
            policy.save()
        else:
            factories.policy(priority=1)
    again = post(erin)
    assert code(again) == "approval_pending"
    assert again["Approval-Id"] != str(row.pk)
    assert factories.fresh(row).status == Status.REVOKED
    assert RAN == []


def test_untouched_it_runs(erin, bob):
    customer = Customer.objects.create(name="Ada")
    factories.policy(object_permission="testapp.change_customer", actions="customers.*")
    url = f"/customers/{customer.pk}/"
    approve(erin.delete(url), bob)
    assert erin.delete(url).status_code == 204


@pytest.mark.parametrize(
    "loosened", [{"required_approvals": 1}, {"effect": Effect.ALLOW}, {"require_reason": False}]
)
def test_loosening_does_not_reach_an_open_request(erin, bob, loosened):
    factories.decider("carol")
    policy = factories.policy(required_approvals=2, require_reason=True)
    held = post(erin, **{"Approval-Reason": "INC-1 repair"})
    row = approve(held, bob)
    ApprovalPolicy.objects.filter(pk=policy.pk).update(**loosened)
    again = post(erin)
    assert (code(again), again["Approval-Id"]) == ("approval_pending", str(row.pk))
    assert factories.fresh(row).required_approvals == 2
    assert RAN == []


def test_the_approval_id_may_be_required_and_then_has_to_be_named(erin, bob):
    factories.policy(require_approval_id=True)
    row = approve(post(erin), bob)
    assert code(post(erin)) == "approval_pending"
    assert RAN == []
    assert post(erin, **{"Approval-Id": str(row.pk)}).status_code == 201


def test_the_approval_id_may_be_required_later_on(erin, bob):
    policy = factories.policy()
    row = approve(post(erin), bob)
    policy.require_approval_id = True
    policy.save()
    assert code(post(erin)) == "approval_pending"
    assert post(erin, **{"Approval-Id": str(row.pk)}).status_code == 201


@pytest.mark.parametrize("reason", ["", "because", "INC-12", "inc-1234"])
def test_a_reason_that_does_not_fit_opens_nothing(erin, reason):
    factories.policy(reason_pattern=r"\b(INC|CHG)-\d{4,}\b")
    response = post(erin, **{"Approval-Reason": reason})
    assert (response.status_code, code(response)) == (400, "approval_reason_required")
    assert not ApprovalRequest.objects.exists()
    assert code(post(erin, **{"Approval-Reason": "see INC-1234"})) == "approval_pending"


# --- who calls, and how -------------------------------------------------------------------------------------


def test_head_does_not_slip_past_a_condition_on_get(erin):
    factories.policy(effect=Effect.DENY, condition='request.method == "GET"')
    factories.policy(effect=Effect.ALLOW)
    assert erin.get("/exports/").status_code == 403
    assert erin.head("/exports/").status_code == 403
    assert RAN == []


@pytest.mark.parametrize("amount", ["50000", [50000], {"v": 50000}, None, True, "5e4"])
def test_a_caller_cannot_steer_to_a_weaker_policy(erin, amount):
    factories.decider("carol")
    factories.policy(slug="large", condition="request.data.amount > 10000", required_approvals=2)
    factories.policy(slug="small")
    response = post(erin, data={"amount": amount})
    assert response.json()["policy"] == "large"
    assert ApprovalRequest.objects.get().required_approvals == 2
    assert events("held")[0]["troubles"][0]["policy"] == "large"


def test_nor_by_repeating_a_name_in_the_query_or_the_form(erin):
    factories.policy(effect=Effect.DENY, condition='request.query.dry == "no"')
    factories.policy(effect=Effect.DENY, condition="int(request.data.amount) > 100")
    factories.policy(effect=Effect.ALLOW)
    assert code(erin.post("/moves/?dry=yes&dry=no", {"amount": 5})) == "approval_denied"
    form = {"content_type": "application/x-www-form-urlencoded"}
    response = erin.generic("POST", "/moves/?dry=yes", "amount=500&amount=5", **form)
    assert code(response) == "approval_denied"
    assert RAN == []


def test_the_address_is_the_peers_whatever_the_caller_says(erin):
    factories.policy(effect=Effect.ALLOW, condition='request.ip == "10.0.0.1"')
    assert code(post(erin, **{"X-Forwarded-For": "10.0.0.1"})) == "approval_pending"
    assert RAN == []


@pytest.fixture
def _persons(settings):
    settings.JIT_APPROVAL = {"PERSON_KEY": "last_name"}


@pytest.mark.usefixtures("_persons")
def test_two_accounts_of_one_person_count_once_and_do_not_approve_own_calls(erin, user, bob):
    from jit_approval.exceptions import AlreadyDecided, SelfApprovalForbidden

    twins = [factories.decider(last_name="P-2") for _ in range(2)]
    user.last_name = "P-1"
    user.save()
    own = factories.decider("erin-admin", last_name="P-1")
    factories.policy(required_approvals=2)
    row = approve(post(erin), twins[0])
    with pytest.raises(AlreadyDecided):
        services.approve(row, by=twins[1])
    with pytest.raises(SelfApprovalForbidden):
        services.approve(row, by=own)
    assert code(post(erin)) == "approval_pending"
    services.approve(row, by=bob)
    assert post(erin).status_code == 201


@pytest.mark.usefixtures("_persons")
def test_nothing_opens_where_all_other_accounts_are_one_person(erin, bob):
    bob.delete()
    for _ in range(3):
        factories.decider(last_name="P-2")
    factories.policy(required_approvals=2)
    assert code(post(erin)) == "approval_unavailable"


# --- what it costs ------------------------------------------------------------------------------------------


def test_a_call_that_no_policy_names_costs_one_query_and_a_safe_one_none(erin):
    factories.policy(actions="other.*")
    with Statements(connection) as counted:
        assert post(erin, "/anywhere/").status_code == 201
    assert len(counted.texts) == 1
    with Statements(connection) as counted:
        assert erin.get("/anywhere/").status_code == 200
    assert counted.texts == []


def test_a_repeat_while_pending_costs_one_statement_whatever_policies_there_are(erin):
    factories.policy(condition="request.data.amount > 1")
    factories.policy(effect=Effect.OBSERVE)
    post(erin)
    with Statements(connection) as counted:
        assert code(post(erin)) == "approval_pending"
    assert len(counted.texts) == 1
    assert len(events("observed")) == 1


# --- closed on doubt ----------------------------------------------------------------------------------------


@pytest.fixture
def _fallback(settings):
    settings.JIT_APPROVAL = {"FALLBACK_ADDRESSES": ["desk@example.test", "own@example.test"]}


def alerts():
    return Notification.objects.filter(event=Notification.Event.UNAVAILABLE).order_by("pk")


@pytest.mark.usefixtures("_fallback")
@BOTH_GATES
def test_where_nobody_could_decide_nothing_opens_and_the_fallback_is_told_once(erin, bob, url):
    bob.delete()
    factories.policy(slug="lonely", fallback="own@example.test\nciso@example.test")
    for _ in range(3):
        response = post(erin, url)
        assert (response.status_code, code(response)) == (403, "approval_unavailable")
    assert not ApprovalRequest.objects.exists()
    assert RAN == []
    told = ["own@example.test", "ciso@example.test", "desk@example.test"]
    assert [alert.address for alert in alerts()] == told
    assert [tasks.deliver(alert.pk) for alert in alerts()] == [1, 1, 1]
    assert [tasks.deliver(alert.pk) for alert in alerts()] == [0, 0, 0]
    assert [message.to for message in mail.outbox] == [[address] for address in told]
    assert "lonely" in mail.outbox[0].body
    assert len(events("unavailable")) == 1


@pytest.mark.usefixtures("_fallback")
def test_after_a_quarter_of_an_hour_it_is_told_again(erin, bob):
    bob.delete()
    post(erin)
    at = alerts().first().created_at
    for age, told in ((timedelta(minutes=14), 2), (timedelta(minutes=16), 4)):
        alerts().update(created_at=at - age)
        post(erin)
        assert alerts().count() == told


def test_with_nobody_to_tell_it_is_written_down(erin, bob):
    bob.delete()
    post(erin)
    assert [alert.state for alert in alerts()] == [Notification.State.FAILED]
    assert len(events("unavailable")) == 1


def test_too_few_is_nobody(erin):
    factories.policy(required_approvals=2)
    assert code(post(erin)) == "approval_unavailable"
    assert not ApprovalRequest.objects.exists()


def emptied(bob, group):
    group.user_set.clear()


def deleted(bob, group):
    bob.delete()


def deactivated(bob, group):
    bob.is_active = False
    bob.save()


def group_deleted(bob, group):
    group.delete()


@pytest.mark.parametrize("loss", [emptied, deleted, deactivated, group_deleted])
@BOTH_GATES
def test_a_policy_whose_last_decider_is_gone_lets_nothing_run(erin, bob, url, loss):
    bob.user_permissions.clear()
    group = Group.objects.create(name="deciders")
    group.user_set.add(bob)
    policy = factories.policy()
    assign_perm("decide", group, policy)
    row = approve(post(erin, url), bob)
    loss(bob, group)
    assert code(post(erin, url)) == "approval_unavailable"
    assert factories.fresh(row).status == Status.REVOKED
    assert code(post(erin, url)) == "approval_unavailable"
    assert RAN == []

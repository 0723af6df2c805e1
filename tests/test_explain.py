"""What would come of a call: which policy applies, why the others do not, who could decide, and by when."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from jit_approval import explaining, policy_changes
from jit_approval.exceptions import ApprovalUnavailable
from jit_approval.explaining import REFUSED, RUNS, UNAVAILABLE, UNGATED, Asked
from jit_approval.models import (
    ApprovalPolicy,
    ApprovalRequest,
    AuditEvent,
    Delegation,
    PolicyGroupRequirement,
)
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.states import Effect
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]
LARGE = "request.data.amount > 10000"


class TransfersView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request):
        return Response({"moved": True})


class NotesView(APIView):
    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)

    def delete(self, request):
        return Response({"gone": True})


class PingView(APIView):
    permission_classes = (IsAuthenticated,)

    def post(self, request):
        return Response({})


def _urls() -> list[Any]:
    from django.contrib import admin
    from django.urls import path

    return [
        path("admin/", admin.site.urls),
        path("transfers/", TransfersView.as_view()),
        path("notes/", NotesView.as_view()),
        path("ping/", PingView.as_view()),
    ]


urlpatterns = _urls()
CREATE = "transfers.post"


@pytest.fixture
def erin() -> Any:
    return factories.user("erin")


def explain(user: Any, **fields: Any) -> explaining.Explanation:
    return explaining.explain(Asked(**({"action": CREATE, "user": user} | fields)))


def verdicts(found: explaining.Explanation) -> dict[str, str]:
    return {one.policy.slug: one.verdict for one in found.match.considered}


def stands_in(stand_in: Any, delegator: Any, **fields: Any) -> Delegation:
    now = timezone.now()
    period = {"starts_at": now - timedelta(hours=1), "ends_at": now + timedelta(hours=1)}
    return Delegation.objects.create(delegator=delegator, stand_in=stand_in, **(period | fields))


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("approval_explain", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as raised:
        run(*arguments)
    assert raised.value.returncode == 2
    return str(raised.value)


# --- which policy, and why not the others ------------------------------------------------------------------


def test_every_policy_is_told_with_its_verdict(erin) -> None:
    factories.policy(slug="off", enabled=False, priority=1)
    factories.policy(slug="archived", enabled=False, archived=True, priority=2)
    factories.policy(slug="elsewhere", actions="customers.*", priority=3)
    factories.policy(slug="small", condition="request.data.amount < 10", priority=4)
    factories.policy(slug="shadow", effect=Effect.OBSERVE, priority=5)
    factories.policy(slug="large", condition=LARGE, priority=6)
    factories.policy(slug="rest", priority=7)
    found = explain(erin, data={"amount": 50000})
    assert found.match.policy.slug == "large"
    assert verdicts(found) == {
        "off": "disabled",
        "archived": "archived",
        "elsewhere": "other_action",
        "small": "condition_false",
        "shadow": "observes",
        "large": "matches",
        "rest": "later",
    }
    assert all(one.why for one in found.match.considered)


@pytest.mark.parametrize("effect", [Effect.ALLOW, Effect.DENY])
def test_call_that_is_not_held_has_neither_deciders_nor_deadlines(erin, effect) -> None:
    factories.decider()
    factories.policy(effect=effect)
    found = explain(erin)
    assert (found.outcome, found.terms, found.decide_by) == (effect, None, None)
    assert (found.deciders, found.is_held) == ((), False)


def test_failed_condition_is_told_and_holds_the_call(erin) -> None:
    factories.decider()
    factories.decider()
    factories.policy(slug="large", condition=LARGE, required_approvals=2)
    found = explain(erin, data={"amount": "50000"})
    assert found.outcome == Effect.REQUIRE
    assert [one.policy.slug for one in found.match.troubles] == ["large"]
    assert found.terms.required_approvals == 2
    assert found.match.considered[0].why.startswith("It applies, for its condition failed: ")


def test_without_a_policy_the_settings_hold_or_the_call_runs(erin) -> None:
    assert explain(erin).terms.policy_id is None
    found = explain(erin, by_policy=True)
    assert (found.outcome, found.is_held) == (RUNS, False)


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        ('request.method == "PUT"', {"method": "PUT"}),
        ('request.method == "GET"', {"method": "HEAD"}),
        ('request.path == "/a/b"', {"path": "/a/b"}),
        ('request.query.q == "1" && request.query.r == ["2", "3"]', {"query": "q=1&r=2&r=3"}),
        ('request.ip == "203.0.113.9"', {"ip": "203.0.113.9"}),
        ('request.agent.startsWith("curl")', {"agent": "curl/8"}),
        ('request.headers["x-desk"] == "7"', {"headers": {"X-Desk": "7"}}),
        ('object.tier == "gold"', {"context": {"tier": "gold"}}),
        ('user.username == "erin" && "night" in user.groups', {}),
        ("now > timestamp('2020-01-01T00:00:00Z')", {}),
    ],
)
def test_conditions_are_asked_about_what_was_given(erin, settings, condition, fields) -> None:
    settings.JIT_APPROVAL = {"CONDITION_HEADERS": ["X-Desk"]}
    erin.groups.add(Group.objects.create(name="night"))
    policy = factories.policy(condition=condition)
    found = explain(erin, **fields)
    assert found.match.troubles == ()
    assert found.match.policy == policy


def test_header_that_conditions_do_not_see_is_said_to_be_unseen(erin) -> None:
    factories.policy(condition='"x-desk" in request.headers')
    found = explain(erin, headers={"X-Desk": "7"})
    assert found.match.policy is None
    assert any("CONDITION_HEADERS" in note and "X-Desk" in note for note in found.notes)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("data", [{"amount": 50000}, {"amount": "50000"}, {"amount": 5}, {}, [1]])
@pytest.mark.parametrize("by_policy", [False, True])
def test_explanation_is_what_the_gate_then_does(erin, data, by_policy) -> None:
    factories.decider()
    action, method = ("notes.delete", "DELETE") if by_policy else (CREATE, "POST")
    factories.policy(slug="large", condition=LARGE, required_approvals=1)
    factories.policy(slug="none", effect=Effect.DENY, condition="!has(request.data.amount)")
    found = explain(erin, action=action, method=method, data=data, by_policy=by_policy)
    client = APIClient()
    client.force_authenticate(erin)
    url = "/notes/" if by_policy else "/transfers/"
    response = client.generic(method, url, json.dumps(data), content_type="application/json")
    if found.outcome == RUNS:
        assert response.status_code == 200
    elif found.outcome == Effect.DENY:
        assert response.data["code"] == "approval_denied"
    else:
        row = ApprovalRequest.objects.get()
        assert row.policy_slug == found.terms.policy_slug
        assert row.decide_by - row.created_at == found.terms.decide_within


@pytest.mark.django_db(transaction=True)
def test_call_nobody_could_decide_is_explained_as_the_gate_answers_it(erin) -> None:
    factories.policy(required_approvals=2)
    factories.decider()
    assert explain(erin).outcome == UNAVAILABLE
    client = APIClient()
    client.force_authenticate(erin)
    assert client.post("/transfers/", {}, format="json").data["code"] == "approval_unavailable"


# --- who, and by when --------------------------------------------------------------------------------------


def test_deciders_are_named_without_the_persons_behind_the_requester(erin, settings) -> None:
    settings.JIT_APPROVAL = {"PERSON_KEY": "email"}
    factories.decider("bob", is_staff=True)
    second = factories.decider("erin-admin")
    second.email = erin.email
    second.save()
    erin.user_permissions.add(factories.decide_permission())
    factories.decider("gone", is_active=False)
    found = explain(erin)
    assert [(one.name, one.is_staff) for one in found.deciders] == [("bob", True)]
    assert found.deciders_count == 1


def test_stand_ins_are_marked_and_the_requesters_own_are_left_out(erin) -> None:
    bob, zed, own = factories.decider("bob"), factories.user("zed"), factories.user("own")
    stands_in(zed, bob)
    stands_in(own, erin)
    stands_in(own, bob)
    found = explain(erin)
    assert {one.name: one.on_behalf_of for one in found.deciders} == {"bob": (), "zed": ("bob",)}


def test_delegator_and_stand_in_do_not_make_a_quorum_of_two(erin) -> None:
    stands_in(factories.user("zed"), factories.decider("bob"))
    factories.policy(required_approvals=2)
    found = explain(erin)
    assert (found.deciders_count, found.is_reachable, found.outcome) == (2, False, UNAVAILABLE)


def test_quorum_counts_groups_to_be_represented(erin) -> None:
    group = Group.objects.create(name="finance")
    bob = factories.decider("bob")
    policy = factories.policy()
    PolicyGroupRequirement.objects.create(policy=policy, group=group, count=1)
    assert not explain(erin).is_reachable
    bob.groups.add(group)
    found = explain(erin)
    assert found.is_reachable
    assert [name for _key, name, _count in found.terms.group_requirements] == ["finance"]


def test_holder_of_the_permission_on_the_object_is_named_once_the_object_is(erin) -> None:
    from guardian.shortcuts import assign_perm

    from tests.testapp.models import Customer

    customer = Customer.objects.create(name="Ada")
    dora = factories.user("dora")
    assign_perm("testapp.change_customer", dora, customer)
    factories.policy(object_permission="testapp.change_customer")
    assert [one.name for one in explain(erin, object_pk=str(customer.pk)).deciders] == ["dora"]
    found = explain(erin)
    assert found.deciders == ()
    assert any("testapp.change_customer" in note for note in found.notes)


def test_deadlines_are_those_of_a_call_held_now(erin) -> None:
    factories.policy(decide_within=timedelta(minutes=10), usable_within=timedelta(minutes=3))
    found = explain(erin)
    assert abs(found.decide_by - timezone.now() - timedelta(minutes=10)) < timedelta(seconds=30)
    assert found.usable_until - found.decide_by == timedelta(minutes=3)


def test_explaining_leaves_no_trace(erin) -> None:
    factories.policy(effect=Effect.OBSERVE)
    factories.policy(effect=Effect.DENY, condition="request.data.none")
    before = AuditEvent.objects.count()
    explain(erin)
    run(CREATE, "--user", "erin")
    assert (AuditEvent.objects.count(), ApprovalRequest.objects.count()) == (before, 0)


def test_thousand_deciders_cost_no_thousand_queries(erin, django_assert_max_num_queries) -> None:
    group = Group.objects.create(name="all")
    group.permissions.add(factories.decide_permission())
    model = type(erin)
    group.user_set.add(*model.objects.bulk_create(model(username=f"d{n}") for n in range(300)))
    with django_assert_max_num_queries(12):
        found = explain(erin)
    assert found.deciders_count == 300
    assert len(found.deciders) == explaining.explanation.MAX_NAMES


def test_deactivated_caller_is_refused_and_a_safe_method_noted(erin) -> None:
    erin.is_active = False
    found = explain(erin, method="GET")
    assert (found.outcome, found.is_held) == (REFUSED, False)
    assert "deactivated" in " ".join(found.notes)
    assert "approval_methods" in " ".join(found.notes)


# --- the command -------------------------------------------------------------------------------------------


def test_command_tells_the_whole_story(erin) -> None:
    bob = factories.decider("bob", is_staff=True)
    stands_in(factories.user("zed", is_staff=True), bob)
    factories.policy(
        slug="large", condition=LARGE, required_approvals=2, reason_pattern="INC-[0-9]+"
    )
    factories.policy(slug="small", condition="request.data.amount < 10")
    text = run(CREATE, "--user", "erin", "--data", '{"amount": 50000}')
    assert "POST transfers.post by erin" in text
    assert "REFUSED: it needs approval, and too few could give it" in text
    assert "2 persons" in text
    assert "INC-[0-9]+" in text
    assert "bob, zed (stands in for bob)" in text
    assert "TOO FEW" in text
    assert "large" in text and "condition_false" in text
    assert "Its condition does not hold." in text


def test_command_knows_by_the_routes_which_gate_and_method_it_is(erin) -> None:
    found = json.loads(run("notes.delete", "--user", "erin", "--json"))
    assert (found["method"], found["by_policy"], found["outcome"]) == ("DELETE", True, RUNS)
    assert json.loads(run(CREATE, "--user", "erin", "--json"))["outcome"] == UNAVAILABLE
    found = json.loads(run(CREATE, "--user", "erin", "--json", "--by-policy"))
    assert found["outcome"] == RUNS


def test_json_has_everything(erin) -> None:
    factories.decider("bob")
    factories.policy(slug="gold", condition='object.tier == "gold"')
    found = json.loads(run(CREATE, "--user", "erin", "--object", '{"tier": "gold"}', "--json"))
    assert (found["policy"], found["outcome"]) == ("gold", "require")
    assert found["considered"][0]["verdict"] == "matches"
    held = found["held"]
    assert held["deciders"] == [{"name": "bob", "on_behalf_of": [], "is_staff": False}]
    assert held["quorum_is_reachable"] is True
    assert held["decide_by"].endswith("Z")


def test_action_before_which_no_gate_stands_runs_whatever_policies_say(erin) -> None:
    factories.policy(slug="all")
    text = run("ping.post", "--user", "erin")
    assert "RUNS: no gate stands before it" in text
    assert "Decide by" not in text
    assert json.loads(run("ping.post", "--user", "erin", "--json"))["outcome"] == UNGATED


def test_unknown_action_is_explained_and_refused_with_what_may_be_meant(erin) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match="No route has the action") as raised:
        call_command("approval_explain", "transfer.post", user="erin", stdout=out)
    assert raised.value.returncode == 2
    assert "transfers.post" in str(raised.value)
    assert "it needs approval" in out.getvalue()


CHANGE = "jit_approval.policy.change"
GATED = {"GATE_POLICY_CHANGES": True}


@pytest.fixture
def editor() -> Any:
    made = factories.user("editor")
    made.user_permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    return made


def test_change_of_policies_is_explained_as_its_gate_holds_it(editor, settings) -> None:
    settings.JIT_APPROVAL = GATED
    factories.decider("bob")
    factories.policy(slug="all", effect="allow", priority=1)
    condition = 'request.method == "CHANGE" && "large" in request.data.policies'
    factories.policy(slug="watched", condition=condition, priority=2)
    factories.policy(slug="rest", effect="deny", priority=3)
    data = '{"policies": ["large"]}'
    found = json.loads(run(CHANGE, "--user", "editor", "--json", "--data", data))
    assert (found["method"], found["policy"], found["outcome"]) == ("CHANGE", "watched", "require")
    assert [one["verdict"] for one in found["considered"]] == ["left_out", "matches", "later"]
    assert [one["name"] for one in found["held"]["deciders"]] == ["bob"]
    assert json.loads(run(CHANGE, "--user", "editor", "--json"))["outcome"] == "deny"
    assert "HELD until it is approved" in run(CHANGE, "--user", "editor", "--data", data)


def test_explanation_of_a_change_is_what_proposing_it_then_comes_to(editor, settings) -> None:
    settings.JIT_APPROVAL = GATED
    factories.policy(slug="all", effect="allow", priority=1)
    for _ in range(2):
        reachable = explain(editor, action=CHANGE).is_reachable
        with policy_changes.trial() as trial:
            ApprovalPolicy.objects.update(priority=9)
        if reachable:
            assert policy_changes.propose(trial, by=editor).policy is None
            break
        with pytest.raises(ApprovalUnavailable):
            policy_changes.propose(trial, by=editor)
        factories.decider("bob")
    assert reachable


def test_change_of_policies_is_not_held_while_its_gate_is_off(editor) -> None:
    factories.policy(slug="all", effect="deny")
    found = explain(editor, action=CHANGE)
    assert found.outcome == UNGATED
    assert "GATE_POLICY_CHANGES is off" in " ".join(found.notes)


def test_change_is_not_proposed_by_who_may_not_change_policies(erin, settings) -> None:
    settings.JIT_APPROVAL = GATED
    factories.decider("bob")
    found = explain(erin, action=CHANGE)
    assert found.outcome == REFUSED
    assert "jit_approval.change_approvalpolicy" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((CREATE,), "--user"),
        ((CREATE, "--user", "nobody"), "There is no user 'nobody'"),
        ((CREATE, "--user", "erin", "--data", "{amount: 1}"), "--data is not JSON"),
        ((CREATE, "--user", "erin", "--data", "[" * 100_000), "--data"),
        ((CREATE, "--user", "erin", "--data", '{"a": NaN}'), "--data is not JSON"),
        ((CREATE, "--user", "erin", "--data", '{"a": -Infinity}'), "--data is not JSON"),
        ((CREATE, "--user", "erin", "--object", "[1]"), "--object is an object"),
        ((CREATE, "--user", "erin", "--header", "x-desk"), "NAME=VALUE"),
        ((), "Name an action"),
        (("--replay-since", "30d"), "Name one draft"),
        (("--replay-since", "30d", "--draft-policy", "a", "--draft-actions", "*"), "Name one"),
        (("--replay-since", "soon", "--draft-actions", "*"), "is no duration"),
        (("--replay-since", "999999999d", "--draft-actions", "*"), "--replay-since"),
        (("--replay-since", "30d", "--draft-policy", "larg"), "Did you mean large?"),
        (("--replay-since", "30d", "--draft-actions", "a b"), "--draft-actions"),
        (
            ("--replay-since", "1d", "--draft-actions", "*", "--draft-condition", "a >"),
            "--draft-condition",
        ),
    ],
)
def test_what_is_unknown_or_malformed_is_named_with_status_two(erin, arguments, said) -> None:
    factories.policy(slug="large", enabled=False)
    assert said in refusal(*arguments)


@pytest.mark.parametrize(
    "data", ['{"amount": 1, "amount": 9}', '[{"a": {"b": 1, "b": 1}}]', '{"a": NaN}', "[" * 99]
)
def test_body_that_the_gate_refuses_is_not_explained_as_a_call(erin, data) -> None:
    factories.decider("bob")
    factories.policy(slug="all", effect="allow")
    if data.startswith("[["):
        data += "]" * len(data)
    client = APIClient()
    client.force_authenticate(erin)
    answer = client.post("/transfers/", data, content_type="application/json")
    assert answer.status_code == 400
    out = io.StringIO()
    with pytest.raises(CommandError, match="--data") as raised:
        call_command("approval_explain", CREATE, user="erin", data=data, stdout=out)
    assert raised.value.returncode == 2
    if "NaN" not in data:
        assert "answered with 400" in str(raised.value)
    assert out.getvalue() == ""


def test_hidden_characters_do_not_reach_the_terminal(erin) -> None:
    erin.username = "e\u202ein"
    erin.save()
    assert "\u202e" not in run(CREATE, "--user", erin.username)

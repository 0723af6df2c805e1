"""The status and decision API: who sees what, who may do what, and what each refusal looks like."""

from __future__ import annotations

import base64
import uuid
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from django.db import OperationalError, connection, connections
from django.test import override_settings
from django.urls import reverse
from rest_framework.authtoken.models import Token
from rest_framework.response import Response
from rest_framework.test import APIClient

from jit_approval import clock, links, services
from jit_approval.api.views import IsAccount
from jit_approval.models import ApprovalRequest, Decision, Notification
from jit_approval.notifications import delivery
from jit_approval.states import Outcome, Status
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

DEFAULTS = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}


def client_of(user) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.get_or_create(user=user)[0].key}")
    return client


def url(name: str, row: ApprovalRequest | str | None = None) -> str:
    args = [] if row is None else [getattr(row, "pk", row)]
    return reverse(f"jit_approval:request-{name}", args=args)


def move(client: APIClient, verb: str, row: ApprovalRequest | str, **body):
    return client.post(url(verb, row), body, format="json")


def make_overdue(row: ApprovalRequest) -> None:
    past = clock.now("default") - timedelta(hours=1)
    ApprovalRequest.objects.filter(pk=row.pk).update(due_at=past)


def ids(response) -> list[str]:
    assert response.status_code == 200, response.content
    return [entry["id"] for entry in response.json()["results"]]


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    return factories.user("erin")


@pytest.fixture
def row(erin):
    return factories.held(
        erin,
        object_model="testapp.customer",
        object_pk="42",
        object_label="Ada",
        payload='{"amount": 5}',
        context={"datasets": 3},
    )


# --- reading ---------------------------------------------------------------------------------------------


def test_a_request_reads_as_the_design_says(row, erin):
    response = client_of(erin).get(url("detail", row))
    assert response.status_code == 200
    assert (response["Cache-Control"], response["Retry-After"]) == ("no-store", "5")
    assert response.json() == {
        "id": str(row.pk),
        "status": "pending",
        "outcome": None,
        "action": "customers.destroy",
        "policy": None,
        "requester": "erin",
        "reason": "why",
        "agent": None,
        "agent_proven": False,
        "method": "DELETE",
        "path": "/api/customers/42/",
        "object": {"model": "testapp.customer", "pk": "42", "label": "Ada"},
        "match_code": row.match_code,
        "created_at": links.timestamp(row.created_at),
        "decide_by": links.timestamp(row.decide_by),
        "usable_until": None,
        "expires_at": links.timestamp(row.decide_by),
        "approvals_required": 1,
        "approvals_given": 0,
        "decisions": [],
        "execution": "caller",
        "next": "wait",
        "result_url": None,
        "payload": '{"amount": 5}',
        "payload_truncated": False,
        "context": {"datasets": 3},
        "receipt_url": None,
        "told": [],
    }


def test_a_request_tells_whom_a_message_has_reached(row, erin, bob):
    assert client_of(bob).get(url("detail", row)).json()["told"] == []
    delivery.deliver(Notification.objects.get(approval_request=row, recipient="").pk)
    assert client_of(bob).get(url("detail", row)).json()["told"] == ["bob"]
    services.approve(row, by=bob)
    assert client_of(bob).get(url("detail", row)).json()["told"] == []


def test_an_approved_request_tells_the_client_to_repeat_its_call(row, erin, bob):
    done = services.approve(row, by=bob, comment="fine")
    response = client_of(erin).get(url("detail", row))
    body = response.json()
    assert (body["status"], body["next"], body["approvals_given"]) == ("approved", "repeat_call", 1)
    assert body["expires_at"] == body["usable_until"] == links.timestamp(done.usable_until)
    [decision] = body["decisions"]
    assert (decision["by"], decision["verdict"], decision["comment"]) == ("bob", "approve", "fine")
    assert "Retry-After" not in response


def test_a_consumed_request_shows_its_outcome(row, erin, bob):
    services.approve(row, by=bob)
    spent = services.consume(factories.fresh(row), state_digest=row.state_digest)
    services.record_outcome(spent, outcome=Outcome.SUCCEEDED, response_status=204)
    body = client_of(erin).get(url("detail", row)).json()
    assert (body["status"], body["outcome"], body["next"]) == ("consumed", "succeeded", "none")
    assert body["expires_at"] is None


@pytest.mark.parametrize("approved", [False, True])
def test_an_overdue_request_is_shown_as_expired_though_nothing_swept_it(row, erin, bob, approved):
    if approved:
        services.approve(row, by=bob)
    make_overdue(row)
    client = client_of(erin)
    body = client.get(url("detail", row)).json()
    assert (body["status"], body["next"], body["expires_at"]) == ("expired", "ask_again", None)
    assert ids(client.get(url("list"), {"status": "expired"})) == [str(row.pk)]
    assert ids(client.get(url("list"), {"status": "approved" if approved else "pending"})) == []
    assert ApprovalRequest.objects.get().status == ("approved" if approved else "pending")


@pytest.mark.parametrize("verb", ["", "cancel", "approve", "reject", "revoke"])
def test_unknown_foreign_and_malformed_ids_are_answered_alike(row, verb):
    client = client_of(factories.user("mallory"))

    def answer(identity: str):
        if verb:
            return move(client, verb, identity)
        return client.get(url("detail", identity))

    answers = [answer(str(row.pk)), answer(str(uuid.uuid4())), answer("42"), answer("\x00")]
    assert {a.status_code for a in answers} == {404}
    assert {a.content for a in answers} == {answers[0].content}
    assert {tuple(sorted(a.headers.items())) for a in answers} == {
        tuple(sorted(answers[0].headers.items()))
    }
    assert answers[0]["Content-Type"] == "application/problem+json"
    assert answers[0].json()["code"] == "not_found"


def test_a_foreign_request_is_not_found_before_the_body_is_looked_at(row):
    client = client_of(factories.user("mallory"))
    response = client.post(url("approve", row), "{", content_type="application/json")
    assert response.status_code == 404


def test_the_anonymous_see_nothing(row):
    assert APIClient().get(url("detail", row)).status_code == 401
    assert APIClient().get(url("list")).status_code == 401
    assert APIClient().post(url("approve", row)).status_code == 401


def test_who_decided_still_sees_it_after_losing_the_permission(row, bob):
    services.approve(row, by=bob)
    bob.user_permissions.clear()
    assert client_of(bob).get(url("detail", row)).status_code == 200


def test_who_lost_the_permission_without_deciding_sees_nothing(row, bob):
    bob.user_permissions.clear()
    assert client_of(bob).get(url("detail", row)).status_code == 404


@override_settings(JIT_APPROVAL={"PERSON_KEY": "email"})
def test_all_accounts_of_the_requesters_person_count_as_the_requester(bob):
    one = factories.user("erin")
    other = factories.decider("erin-admin")
    type(other).objects.filter(pk=other.pk).update(email=one.email)
    row = factories.held(one, persons=(one.email,))
    client = client_of(other)
    assert ids(client.get(url("list"))) == [str(row.pk)]
    assert ids(client.get(url("list"), {"role": "decider"})) == []
    assert move(client, "approve", row).json()["code"] == "self_approval_forbidden"
    assert move(client, "cancel", row).json()["status"] == "cancelled"


# --- lists -----------------------------------------------------------------------------------------------


def test_the_list_holds_own_requests_newest_first(erin, bob):
    mine = [factories.held(erin) for _ in range(3)]
    factories.held(factories.user())
    response = client_of(erin).get(url("list"))
    assert ids(response) == [str(row.pk) for row in reversed(mine)]
    assert response["Cache-Control"] == "no-store"
    assert "payload" not in response.json()["results"][0]


def test_the_deciders_list_holds_what_they_may_decide_now(erin, bob):
    factories.decider("carol")
    waiting, overdue, approved = (factories.held(erin) for _ in range(3))
    voted = factories.held(erin, terms={"required_approvals": 2})
    factories.held(bob)  # own
    factories.held(erin, persons=(str(erin.pk), str(bob.pk)))  # bob is behind it
    services.approve(voted, by=bob)
    services.approve(approved, by=bob)
    make_overdue(overdue)
    client = client_of(bob)
    assert ids(client.get(url("list"), {"role": "decider"})) == [str(waiting.pk)]
    revocable = client.get(url("list"), {"role": "decider", "status": "approved"})
    assert ids(revocable) == [str(approved.pk)]


def test_the_deciders_list_follows_permissions_on_a_policy(erin, bob):
    policy = factories.policy()
    row = factories.held(erin, terms={"policy_id": policy.pk, "policy_slug": policy.slug})
    factories.held(erin)
    dana = factories.user("dana")
    through = type(policy)._meta.apps.get_model("jit_approval", "PolicyUserPermission")
    through.objects.create(
        user=dana, content_object=policy, permission=factories.decide_permission()
    )
    client = client_of(dana)
    assert ids(client.get(url("list"), {"role": "decider"})) == [str(row.pk)]
    assert move(client, "approve", row).json()["policy"] == policy.slug


@pytest.mark.parametrize("status", Status.values)
def test_the_list_filters_by_every_status(erin, row, status):
    expected = [str(row.pk)] if status == "pending" else []
    assert ids(client_of(erin).get(url("list"), {"status": status})) == expected


@pytest.mark.parametrize("query", ["role=boss", "status=done", "status=%00", "cursor=x"])
def test_a_query_that_makes_no_sense_is_a_bad_request(erin, query):
    response = client_of(erin).get(f"{url('list')}?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "position", ["yesterday", "2026-99-01 00:00:00+00:00", "0001-01-01 00:00+14:00", "2026-01-01"]
)
def test_a_made_up_cursor_is_a_bad_request(erin, row, position):
    cursor = base64.b64encode(urlencode({"p": position}).encode()).decode()
    response = client_of(erin).get(url("list"), {"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


def test_pages_follow_each_other_without_gap_or_repeat(erin, bob):
    rows = [factories.held(erin) for _ in range(5)]
    client = client_of(erin)
    seen, link = [], f"{url('list')}?page_size=2"
    while link:
        response = client.get(link)
        seen += ids(response)
        link = response.json()["next"]
    assert seen == [str(row.pk) for row in reversed(rows)]


@pytest.mark.parametrize("role", ["requester", "decider"])
def test_a_list_takes_as_many_queries_for_one_as_for_ten(
    erin, bob, role, django_assert_num_queries
):
    factories.decider("carol")
    client = client_of(erin if role == "requester" else bob)
    for _ in range(10):
        row = factories.held(erin, terms={"required_approvals": 2})
        services.approve(row, by=factories.decider())
    with django_assert_num_queries(3):  # the token, the rows, their decisions
        assert len(ids(client.get(url("list"), {"role": role}))) == 10


# --- deciding --------------------------------------------------------------------------------------------


def test_a_decider_approves_with_a_comment(row, bob):
    response = move(client_of(bob), "approve", row, comment="fine")
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["decisions"][0]["comment"]) == (
        "approved",
        "fine",
    )
    assert factories.fresh(row).status == Status.APPROVED


def test_a_body_is_not_needed(row, bob):
    assert client_of(bob).post(url("reject", row)).json()["status"] == "rejected"


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b'{"comment": "no", "comment": "yes"}', "application/json", 400, "unbindable_call"),
        (b"[" * 5000 + b"]" * 5000, "application/json", 400, "unbindable_call"),
        (
            '{"comment": "no"}'.encode("utf-16"),
            "application/json; charset=utf-16",
            415,
            "unbindable_call",
        ),
        (b'{"comment": "' + b"a" * 70_000 + b'"}', "application/json", 413, "payload_too_large"),
        (b'{"comment": "caf\xe9"}', "application/json", 400, None),
        (b'{"comment": ', "application/json", 400, None),
    ],
)
def test_a_body_that_has_not_one_meaning_decides_nothing(
    row, bob, content, content_type, status, code
):
    response = client_of(bob).post(url("approve", row), content, content_type=content_type)
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert (factories.fresh(row).status, row.decisions.count()) == ("pending", 0)


def test_the_requester_withdraws(row, erin):
    response = move(client_of(erin), "cancel", row)
    assert (response.json()["status"], response.json()["next"]) == ("cancelled", "ask_again")


@pytest.mark.parametrize("who", ["erin", "bob"])
def test_requester_and_decider_take_an_approval_back(row, erin, bob, who):
    services.approve(row, by=bob)
    client = client_of({"erin": erin, "bob": bob}[who])
    assert move(client, "revoke", row).json()["status"] == "revoked"


def test_nobody_decides_their_own_call_superusers_included(bob):
    root = factories.user("root", is_superuser=True)
    row = factories.held(root)
    for verb in ("approve", "reject"):
        response = move(client_of(root), verb, row)
        assert (response.status_code, response.json()["code"]) == (403, "self_approval_forbidden")
    assert factories.fresh(row).status == Status.PENDING


def test_who_may_see_but_no_longer_decide_is_told_so(erin, bob):
    factories.decider("carol")
    row = factories.held(erin, terms={"required_approvals": 2})
    services.approve(row, by=bob)
    bob.user_permissions.clear()
    response = move(client_of(bob), "reject", row)
    assert (response.status_code, response.json()["code"]) == (403, "may_not_decide")


def test_only_the_requester_withdraws(row, bob):
    response = move(client_of(bob), "cancel", row)
    assert (response.status_code, response.json()["code"]) == (403, "not_the_requester")


def test_what_was_rewritten_since_it_was_held_is_not_approved(row, bob):
    ApprovalRequest.objects.filter(pk=row.pk).update(payload="another")
    response = move(client_of(bob), "approve", row)
    assert (response.status_code, response.json()["code"]) == (409, "request_rewritten")
    assert (factories.fresh(row).status, row.decisions.count()) == ("pending", 0)
    assert move(client_of(bob), "reject", row).json()["status"] == "rejected"


def test_a_person_decides_once(erin, bob):
    factories.decider("carol")
    row = factories.held(erin, terms={"required_approvals": 2})
    client = client_of(bob)
    assert move(client, "approve", row).json()["status"] == "pending"
    response = move(client, "approve", row)
    assert (response.status_code, response.json()["code"]) == (409, "already_decided")


@pytest.mark.parametrize("verb", ["approve", "reject", "revoke"])
def test_what_is_over_stays_over(row, erin, bob, verb):
    services.cancel(row, by=erin)
    response = move(client_of(bob), verb, row)
    assert (response.status_code, response.json()["code"]) == (409, "illegal_transition")
    assert response.json()["executed"] is False


def test_an_overdue_request_cannot_be_approved(row, bob):
    make_overdue(row)
    assert move(client_of(bob), "approve", row).json()["code"] == "illegal_transition"


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "revoke"])
def test_a_comment_has_a_length(row, erin, bob, verb):
    if verb == "revoke":
        services.approve(row, by=bob)
    response = move(client_of(erin if verb == "cancel" else bob), verb, row, comment="x" * 501)
    assert (response.status_code, response.json()["code"]) == (400, "comment_too_long")


@pytest.mark.parametrize("body", ['{"comment": 5}', '{"comment": null}', '["fine"]', '"fine"', "5"])
def test_a_comment_is_a_string(row, bob, body):
    response = client_of(bob).post(url("approve", row), body, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert not Decision.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [("{", 400), ("[" * 60_000, 400), ('{"comment": "' + "x" * 70_000 + '"}', 413), (b"\xff", 400)],
)
def test_a_body_that_is_no_comment_is_refused(row, bob, body, status):
    response = client_of(bob).post(url("approve", row), body, content_type="application/json")
    assert response.status_code == status
    assert factories.fresh(row).status == Status.PENDING


def test_a_form_is_not_taken(row, bob):
    response = client_of(bob).post(url("approve", row), {"comment": "x"}, format="multipart")
    assert response.status_code == 415


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "revoke"])
def test_reading_changes_nothing(row, bob, verb):
    assert client_of(bob).get(url(verb, row)).status_code == 405
    assert factories.fresh(row).status == Status.PENDING


def test_control_characters_in_a_comment_are_shown_escaped(row, bob):
    response = move(client_of(bob), "approve", row, comment="a\u202eb\x00")
    comment = response.json()["decisions"][0]["comment"]
    assert "\u202e" not in comment
    assert "\x00" not in comment


# --- the project around it -------------------------------------------------------------------------------


def handler_of_the_project(exc, context):
    return Response({"error": "ours"}, status=418)


@override_settings(
    REST_FRAMEWORK=DEFAULTS | {"EXCEPTION_HANDLER": "tests.test_api.handler_of_the_project"}
)
def test_refusals_are_ours_whatever_the_projects_exception_handler(row, erin):
    response = move(client_of(erin), "approve", row)
    assert (response.status_code, response.json()["code"]) == (403, "self_approval_forbidden")
    assert client_of(factories.user()).get(url("detail", row)).json()["code"] == "not_found"


def test_a_session_needs_a_csrf_token(row, bob):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(bob)
    assert move(client, "approve", row).status_code == 403
    assert factories.fresh(row).status == Status.PENDING
    client.cookies["csrftoken"] = "a" * 32
    response = client.post(
        url("approve", row), {}, format="json", headers={"X-CSRFToken": "a" * 32}
    )
    assert response.json()["status"] == "approved"


def test_it_works_in_the_browsable_api(row, erin):
    client = APIClient()
    client.force_login(erin)
    page = client.get(url("detail", row), headers={"Accept": "text/html"})
    assert page["Content-Type"].startswith("text/html")
    refused = client.post(url("approve", row), {}, format="json", headers={"Accept": "text/html"})
    assert (refused.status_code, refused["Content-Type"]) == (403, "text/html; charset=utf-8")


def test_no_policy_gates_the_place_where_approvals_are_given(row, bob):
    factories.policy(actions="*", priority=0)
    assert move(client_of(bob), "approve", row).json()["status"] == "approved"
    assert ApprovalRequest.objects.count() == 1


def test_it_decides_under_atomic_requests(row, erin, bob, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert client_of(erin).get(url("detail", row)).status_code == 200
    assert move(client_of(bob), "approve", row).json()["status"] == "approved"
    assert move(client_of(bob), "approve", row).status_code == 409
    assert factories.fresh(row).status == Status.APPROVED


def test_a_held_call_names_where_it_can_be_read(erin, bob):
    held = client_of(erin).post("/api/transfers/", {"amount": 5}, format="json").json()
    assert client_of(erin).get(held["status_url"]).json()["id"] == held["approval_id"]


def test_a_principal_without_an_account_sees_nothing():
    request = SimpleNamespace(user=SimpleNamespace(pk=None, is_authenticated=True, is_active=True))
    assert IsAccount().has_permission(request, None) is False


# --- a database that fails -------------------------------------------------------------------------------


def failing_commit(monkeypatch, *, before: bool) -> None:
    """Let the next COMMIT raise: before it is done, or after, as when the answer of the server is lost."""
    commit = connection._commit

    def fail():
        monkeypatch.undo()
        if not before:
            commit()
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "_commit", fail)


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "revoke"])
def test_a_commit_that_raised_but_happened_is_told_as_done(row, erin, bob, verb, monkeypatch):
    if verb == "revoke":
        services.approve(row, by=bob)
    client = client_of(erin if verb == "cancel" else bob)
    failing_commit(monkeypatch, before=False)
    response = move(client, verb, row)
    told = {"approve": "approved", "reject": "rejected", "cancel": "cancelled", "revoke": "revoked"}
    assert (response.status_code, response.json()["status"]) == (200, told[verb])


@pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "revoke"])
def test_a_commit_that_failed_is_told_as_not_done(row, erin, bob, verb, monkeypatch):
    if verb == "revoke":
        services.approve(row, by=bob)
    client = client_of(erin if verb == "cancel" else bob)
    before = factories.fresh(row).status
    failing_commit(monkeypatch, before=True)
    response = move(client, verb, row)
    assert (response.status_code, response.json()["code"]) == (503, "gate_unavailable")
    assert factories.fresh(row).status == before


def test_a_database_that_is_gone_is_a_503(row, bob):
    client = client_of(bob)

    def gone(execute, sql, params, many, context):
        if "jit_approval_approvalrequest" in sql:
            raise OperationalError("gone")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(gone):
        answers = [
            client.get(url("detail", row)),
            client.get(url("list")),
            move(client, "approve", row),
        ]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "gate_unavailable")}

"""A call that the server runs: kept encrypted, run once by a worker as the requester, its answer fetched once."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from jit_approval import execution, secrets, services, tasks
from jit_approval.models import ApprovalRequest, AuditEvent, StoredAnswer, StoredCall
from jit_approval.states import Execution, Outcome, Status
from tests import factories
from tests.callers import Caller
from tests.testapp.models import Customer
from tests.testapp.views import RUNS

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/transfers/"
KEYS = {"SECRET_KEYS": ["k" * 40]}
BODY = b'{"amount": 12345, "card": "4111"}'


@pytest.fixture(autouse=True)
def _configured(settings: Any) -> None:
    settings.JIT_APPROVAL = KEYS
    RUNS.clear()


@pytest.fixture
def policy() -> Any:
    return factories.policy(execution=Execution.SERVER, actions="transfer.*\ncustomers.*")


@pytest.fixture
def caller(policy: Any) -> Caller:
    return Caller()


def held(caller: Caller, **headers: str) -> ApprovalRequest:
    return caller.row(caller.send(URL, BODY, **headers))


def approved(caller: Caller, **headers: str) -> ApprovalRequest:
    return services.approve(held(caller, **headers), by=caller.bob)


def result(caller: Caller, row: ApprovalRequest) -> Any:
    return caller.client.get(f"/approvals/{row.pk}/result/")


def why(row: ApprovalRequest) -> str:
    event = AuditEvent.objects.filter(approval_request=row, kind="revoked").get()
    return str(json.loads(event.body)["data"]["comment"])


# --- the answer to the first call ------------------------------------------------------------------------


def test_the_held_answer_says_that_the_server_will_run_it(caller):
    response = caller.send(URL, BODY)
    data = response.json()
    assert response.status_code == 403
    assert (data["next"], data["retryable"]) == ("server_runs", False)
    assert data["result_url"] == f"/approvals/{data['approval_id']}/result/"


def test_202_only_if_the_client_prefers_it(caller):
    response = caller.send(URL, BODY, HTTP_PREFER="wait=1, respond-async")
    assert response.status_code == 202
    assert response["Location"] == response.json()["status_url"]
    assert response["Preference-Applied"] == "respond-async"
    assert response["Content-Type"] == "application/json"
    assert response.json()["executed"] is False


def test_a_caller_executed_call_is_never_202(caller, policy):
    type(policy).objects.update(execution=Execution.CALLER)
    assert caller.send(URL, BODY, HTTP_PREFER="respond-async").status_code == 403
    assert not StoredCall.objects.exists()


def test_without_a_key_the_requester_repeats_it_and_is_told_why(caller, settings):
    settings.JIT_APPROVAL = {}
    response = caller.send(URL, BODY, HTTP_PREFER="respond-async")
    assert response.status_code == 403
    assert "SECRET_KEYS" in response.json()["detail"]
    row = caller.approve(response)
    assert row.execution == Execution.CALLER
    assert not StoredCall.objects.exists()
    assert caller.send(URL, BODY).status_code == 201


# --- at rest ---------------------------------------------------------------------------------------------


def test_what_is_stored_is_encrypted_and_bound_to_its_request(caller):
    first, second = held(caller), caller.row(caller.send(URL, b'{"amount": 2}'))
    kept = StoredCall.objects.get(pk=first.pk)
    assert "12345" not in kept.sealed
    assert base64.b64encode(BODY).decode() not in kept.sealed
    StoredCall.objects.filter(pk=second.pk).update(sealed=kept.sealed)
    services.approve(second, by=caller.bob)
    assert not execution.run(second.pk)
    assert RUNS == []
    assert Token.objects.get().key not in kept.sealed
    assert secrets.is_sealed_with_newest(kept.sealed)


@pytest.mark.parametrize("end", ["reject", "cancel", "revoke", "expire"])
def test_the_stored_call_goes_when_the_request_ends(caller, end):
    row = held(caller)
    if end == "reject":
        services.reject(row, by=caller.bob)
    elif end == "cancel":
        services.cancel(row, by=caller.user)
    elif end == "revoke":
        services.revoke(services.approve(row, by=caller.bob), by=caller.bob)
    else:
        ApprovalRequest.objects.filter(pk=row.pk).update(due_at=F("created_at"))
        services.expire(row)
    assert not StoredCall.objects.exists()


# --- running ---------------------------------------------------------------------------------------------


def test_it_runs_once_with_the_bytes_that_were_bound(caller):
    row = approved(caller)
    assert execution.run(row.pk)
    assert not execution.run(row.pk)
    assert RUNS == [("transfer", json.loads(BODY))]
    row.refresh_from_db()
    assert (row.status, row.outcome, row.response_status) == (
        Status.CONSUMED,
        Outcome.SUCCEEDED,
        201,
    )
    assert not StoredCall.objects.exists()


def test_nothing_runs_before_it_is_approved(caller):
    assert not execution.run(held(caller).pk)
    assert RUNS == []


def test_approving_never_runs_it_in_the_approvers_request(caller, monkeypatch):
    from django_q.conf import Conf

    row = held(caller)
    monkeypatch.setattr(Conf, "SYNC", True)
    monkeypatch.setattr(Conf, "ORM", None)
    admin = APIClient()
    admin.force_authenticate(caller.bob)
    assert admin.post(f"/approvals/{row.pk}/approve/").status_code == 200
    assert RUNS == []
    assert StoredCall.objects.get().next_attempt_at is not None


def test_approving_queues_a_task_that_runs_it(caller):
    from django_q.models import OrmQ

    row = approved(caller)
    calls = [task.task for task in OrmQ.objects.all()]
    queued = [call for call in calls if call["func"] == services.RUN]
    assert [call["args"] for call in queued] == [(str(row.pk),)]
    assert tasks.run(*queued[0]["args"])
    assert len(RUNS) == 1


def test_repeating_it_before_the_server_has_run_it_runs_nothing(caller):
    row = approved(caller)
    response = caller.send(URL, BODY)
    assert response.status_code == 403
    assert response.json()["next"] == "server_runs"
    assert RUNS == []
    assert factories.fresh(row).status == Status.APPROVED


def test_repeating_it_afterwards_is_answered_consumed_for_a_while(caller, settings):
    row = approved(caller)
    execution.run(row.pk)
    data = caller.send(URL, BODY).json()
    assert (data["code"], data["approval_id"]) == ("approval_consumed", str(row.pk))
    assert (data["next"], data["outcome"]) == ("fetch_result", "succeeded")
    settings.JIT_APPROVAL = {**KEYS, "RESULT_KEPT_FOR": 0}
    assert caller.send(URL, BODY).json()["code"] == "approval_pending"
    assert len(RUNS) == 1


def test_repeating_a_deletion_afterwards_is_answered_consumed(caller):
    customer = Customer.objects.create(name="Ada")
    url = f"/api/customers/{customer.pk}/"
    row = caller.approve(caller.send(url, method="DELETE"))
    assert execution.run(row.pk)
    assert not Customer.objects.exists()
    data = caller.send(url, method="DELETE").json()
    assert (data["code"], data["approval_id"]) == ("approval_consumed", str(row.pk))


# --- the mark --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["_jit_approval_ticket", "HTTP__JIT_APPROVAL_TICKET", "HTTP_JIT_APPROVAL_TICKET"]
)
def test_no_header_makes_a_call_the_servers_own(caller, name):
    row = approved(caller)
    assert caller.send(URL, BODY, **{name: str(row.pk)}).status_code == 403
    assert RUNS == []


def test_an_approval_that_the_caller_is_to_use_is_not_run_by_the_server(caller):
    row = held(caller)
    kept = StoredCall.objects.get()
    services.approve(row, by=caller.bob)
    ApprovalRequest.objects.update(execution=Execution.CALLER)
    StoredCall.objects.filter(pk=kept.pk).update(next_attempt_at=row.created_at)
    assert not execution.run(row.pk)
    assert RUNS == []


# --- checked anew ----------------------------------------------------------------------------------------


def test_a_requester_who_was_deactivated_is_not_run_for(caller):
    row = approved(caller)
    type(caller.user).objects.filter(pk=caller.user.pk).update(is_active=False)
    assert not execution.run(row.pk)
    assert RUNS == []
    assert factories.fresh(row).status == Status.REVOKED
    assert "401" in why(row) or "403" in why(row)


def test_a_credential_that_was_withdrawn_runs_nothing(caller):
    row = approved(caller)
    Token.objects.all().delete()
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


def test_a_credential_that_is_another_users_by_now_runs_nothing(caller):
    row = approved(caller)
    Token.objects.update(user=factories.user())
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


def test_an_object_that_was_edited_meanwhile_runs_nothing(caller):
    customer = Customer.objects.create(name="Ada")
    row = caller.approve(caller.send(f"/api/customers/{customer.pk}/", method="DELETE"))
    Customer.objects.update(name="Eve")
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": False},
        {"required_approvals": 2},
        {"effect": "deny"},
        {"execution": "caller"},
        {"actions": "other"},
    ],
)
def test_a_policy_that_is_off_or_stricter_by_now_runs_nothing(caller, policy, change):
    row = approved(caller)
    type(policy).objects.update(**change)
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


@pytest.mark.urls("tests.testapp.odd_urls")
def test_a_call_that_no_policy_names_any_more_runs_nothing(caller, policy):
    policy.actions = "bypolicy.*"
    policy.save()
    row = caller.approve(caller.send("/bypolicy/"))
    type(policy).objects.update(enabled=False)
    assert not execution.run(row.pk)
    assert factories.fresh(row).status == Status.REVOKED


def test_a_decider_who_may_not_decide_any_more_runs_nothing(caller):
    row = approved(caller)
    caller.bob.user_permissions.clear()
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


def test_a_grant_that_was_revoked_or_is_over_runs_nothing(caller):
    row = approved(caller)
    kept = StoredCall.objects.get()
    services.revoke(row, by=caller.bob)
    StoredCall(
        approval_request_id=row.pk, sealed=kept.sealed, next_attempt_at=row.created_at
    ).save()
    assert not execution.run(row.pk)
    assert RUNS == []


def test_a_grant_past_its_deadline_runs_nothing(caller):
    row = approved(caller)
    ApprovalRequest.objects.update(due_at=F("created_at"), usable_until=F("created_at"))
    assert not execution.run(row.pk)
    assert RUNS == []


def test_a_view_that_lost_its_gate_runs_nothing(caller, monkeypatch):
    from tests.testapp.views import TransferView

    row = approved(caller)
    monkeypatch.setattr(TransferView, "permission_classes", ())
    assert not execution.run(row.pk)
    assert RUNS == []
    assert "not gated any more" in why(row)


def test_a_method_that_is_not_gated_any_more_runs_nothing(caller, monkeypatch):
    from tests.testapp.views import TransferView

    row = approved(caller)
    monkeypatch.setattr(TransferView, "approval_methods", ["PUT"], raising=False)
    assert not execution.run(row.pk)
    assert RUNS == []
    assert "not gated any more" in why(row)


def test_a_call_that_was_altered_at_rest_runs_nothing(caller):
    from jit_approval.execution import keeping, kept

    row = approved(caller)
    stored = StoredCall.objects.get()
    call = kept.of_text(secrets.unseal(stored.sealed, bound_to=keeping.bound_to(row)))
    other = kept.Kept(call.environ, call.scheme, b'{"amount": 12346, "card": "4111"}')
    stored.sealed = secrets.seal(other.as_text(), bound_to=keeping.bound_to(row))
    stored.save()
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


# --- crashes ---------------------------------------------------------------------------------------------


def test_a_claimed_call_is_left_alone_until_its_lease_is_over(caller):
    row = approved(caller)
    StoredCall.objects.update(next_attempt_at=factories.fresh(row).now + timedelta(seconds=30))
    assert not execution.run(row.pk)
    StoredCall.objects.update(next_attempt_at=factories.fresh(row).now)
    assert execution.run(row.pk)


def test_the_sweep_runs_what_a_lost_task_did_not(caller):
    row = approved(caller)
    StoredCall.objects.update(next_attempt_at=row.created_at - timedelta(minutes=1))
    from jit_approval.sweeping import Sweeper

    assert Sweeper(run=execution.run).sweep()["run"] == 1
    assert len(RUNS) == 1


def test_a_call_that_kills_its_workers_is_given_up(caller):
    row = approved(caller)
    StoredCall.objects.update(attempts=execution.running.MAX_ATTEMPTS)
    assert not execution.run(row.pk)
    assert (RUNS, factories.fresh(row).status) == ([], Status.REVOKED)


# --- the result ------------------------------------------------------------------------------------------


def test_the_answer_is_for_the_requester_alone(caller):
    row = approved(caller)
    assert result(caller, row).json()["code"] == "result_pending"
    execution.run(row.pk)
    data = result(caller, row).json()
    assert (data["status"], data["outcome"]) == (201, "succeeded")
    assert json.loads(base64.b64decode(data["body"])) == {"moved": True}
    assert data["headers"]["Content-Type"] == "application/json"
    for other in (caller.bob, factories.user(), factories.user(is_superuser=True)):
        client = APIClient()
        client.force_authenticate(other)
        assert client.get(f"/approvals/{row.pk}/result/").status_code == 404


def test_the_answer_is_encrypted_capped_and_deleted(caller, settings):
    settings.JIT_APPROVAL = {**KEYS, "MAX_RESULT_BYTES": 5}
    row = approved(caller)
    execution.run(row.pk)
    assert "moved" not in StoredAnswer.objects.get().sealed
    data = result(caller, row).json()
    assert (base64.b64decode(data["body"]), data["truncated"]) == (b'{"mov', True)
    StoredAnswer.objects.update(delete_at=row.created_at)
    assert result(caller, row).json()["code"] == "result_gone"
    assert StoredAnswer.objects.exists()
    tasks.sweep()
    assert not StoredAnswer.objects.exists()


def test_a_rejected_call_has_no_answer(caller):
    row = held(caller)
    services.reject(row, by=caller.bob, comment="no")
    assert result(caller, row).json()["code"] == "approval_rejected"


@pytest.mark.parametrize("route", ["outerungated", "permissionspermethod", "wrapped"])
@pytest.mark.urls("tests.testapp.odd_urls")
def test_where_it_is_not_sure_that_the_gate_is_asked_again_the_requester_repeats(
    caller, policy, route
):
    policy.actions = "*"
    policy.save()
    response = caller.send(f"/{route}/")
    assert response.status_code == 403
    assert ApprovalRequest.objects.get().execution == Execution.CALLER
    assert not StoredCall.objects.exists()


def test_the_command_runs_calls_where_no_cluster_takes_a_task(caller, capsys):
    from django.core.management import call_command

    row = approved(caller)
    StoredCall.objects.update(next_attempt_at=row.created_at - timedelta(minutes=1))
    call_command("approval_sweep")
    assert len(RUNS) == 1
    assert "run=1" in capsys.readouterr().out


def test_the_scheduled_sweep_gives_it_to_a_task(caller):
    from django_q.models import OrmQ

    row = approved(caller)
    StoredCall.objects.update(next_attempt_at=row.created_at - timedelta(minutes=1))
    OrmQ.objects.all().delete()
    assert tasks.sweep()["run"] == 1
    assert RUNS == []
    assert services.RUN in [task.task["func"] for task in OrmQ.objects.all()]


def test_policies_of_which_the_server_cannot_keep_calls_are_warned_of(policy, settings):
    from jit_approval.checks import policies as checks

    assert "jit_approval.W017" not in [found.id for found in checks.check(["default"])]
    settings.JIT_APPROVAL = {}
    assert "jit_approval.W017" in [found.id for found in checks.check(["default"])]


@pytest.mark.parametrize(
    ("cluster", "run_limit", "expected"),
    [
        ({"timeout": 60, "retry": 120}, 900, ["W030"]),
        ({"timeout": 60, "retry": 120}, 60, []),
        ({"timeout": 900, "retry": 1000}, 900, []),
        ({"timeout": 900, "retry": 900}, 900, ["W031"]),
        ({"timeout": 60}, 900, ["W030", "W031"]),
        ({"retry": 60}, 900, []),
        ({}, 900, []),
    ],
)
def test_a_worker_that_cuts_off_what_the_server_may_still_run_is_warned_of(
    policy, settings, cluster, run_limit, expected
):
    from jit_approval.checks import policies as checks

    def found():
        ours = ("jit_approval.W030", "jit_approval.W031")
        return [one.id.split(".")[1] for one in checks.check(["default"]) if one.id in ours]

    settings.Q_CLUSTER = cluster
    settings.JIT_APPROVAL = {**KEYS, "RUN_LIMIT": run_limit}
    assert found() == expected
    # Where the server runs nothing there is nothing to cut off.
    type(policy).objects.update(execution=Execution.CALLER)
    assert found() == []
    type(policy).objects.update(execution=Execution.SERVER)
    settings.JIT_APPROVAL = {"RUN_LIMIT": run_limit}
    assert found() == []

"""However a view calls its own parts: no run without a grant, and no more runs than grants."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp.odd_views import RAN

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.testapp.odd_urls")]

# What decides once and runs its handler raw is one run by the gate's count; see the last two tests.
DISPATCHES = [
    "gated",
    "function",
    "plain",
    "retries",
    "retriesforgetful",
    "fetchesearly",
    "batch",
    "tolerantbatch",
    "loopshandler",
    "runstwice",
    "runsanyway",
    "runsbyaction",
    "initialbefore",
    "methodininitializerequest",
    "methodbeforeinitial",
    "methodafterinitial",
    "swallowsrefusals",
    "asksany",
    "deniesnothing",
    "runsonerror",
    "finalizestosuccess",
    "permissionspermethod",
    "wrapped",
    "twogates",
    "gatefirst",
    "onlygate",
]


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


def approve_all(bob) -> int:
    rows = list(ApprovalRequest.objects.filter(status=Status.PENDING))
    for row in rows:
        services.approve(row, by=bob)
    return len(rows)


def spent() -> int:
    return ApprovalRequest.objects.filter(status=Status.CONSUMED).count()


@pytest.mark.parametrize("view", DISPATCHES)
def test_nothing_runs_without_a_grant(erin, view):
    for _ in range(3):
        assert erin.post(f"/{view}/").status_code != 500
    assert RAN == []
    assert spent() == 0


@pytest.mark.parametrize("view", DISPATCHES)
def test_one_grant_is_one_run_however_often_it_is_called(erin, bob, view):
    erin.post(f"/{view}/")
    granted = approve_all(bob)
    assert granted >= 1
    erin.post(f"/{view}/")
    assert 1 <= len(RAN) <= granted
    for _ in range(3):
        erin.post(f"/{view}/")
    assert len(RAN) <= granted
    assert len(RAN) == spent()


@pytest.mark.parametrize("view", ["batch", "tolerantbatch"])
def test_a_batch_runs_one_object_per_http_request(erin, bob, view):
    for _ in range(4):
        erin.post(f"/{view}/")
        approve_all(bob)
    runs = []
    for _ in range(8):
        before = len(RAN)
        erin.post(f"/{view}/")
        approve_all(bob)
        runs.append(len(RAN) - before)
    assert max(runs) == 1
    assert len(RAN) == spent()


def test_a_batch_goes_on_to_an_approved_object_after_a_held_one(erin, bob):
    erin.post("/tolerantbatch/")
    (row,) = [
        row
        for row in ApprovalRequest.objects.all()
        if row == ApprovalRequest.objects.latest("created_at")
    ]
    services.approve(row, by=bob)
    erin.post("/tolerantbatch/")
    assert RAN == [3]
    row.refresh_from_db()
    assert (row.outcome, row.response_status) == (Outcome.SUCCEEDED, 200)


def test_a_call_that_looks_like_a_schema_probe_runs_nothing(erin, bob):
    response = erin.post("/withoutheaders/")
    assert (response.status_code, response.json()["code"]) == (503, "gate_unavailable")
    assert RAN == []
    assert not ApprovalRequest.objects.exists()


def test_an_error_in_the_gate_runs_nothing_even_where_the_view_swallows_it(erin):
    assert erin.post("/swallowseverything/").status_code == 503
    assert erin.post("/runsonerroringate/").status_code >= 500
    assert RAN == []


def test_an_approved_outer_view_does_not_carry_an_inner_one(erin, bob):
    for url in ("/outer/", "/outercopies/"):
        RAN.clear()
        erin.post(url)
        approve_all(bob)
        assert erin.post(url).json()["code"] == "approval_pending"
        assert RAN == ["outer"]


def test_an_inner_view_spends_one_grant_on_one_run(erin, bob):
    assert erin.post("/outerungated/").status_code == 403
    assert approve_all(bob) == 1
    assert erin.post("/outerungated/").status_code == 403
    assert RAN == ["post"]
    assert spent() == 1


def test_a_view_that_loads_its_object_does_not_pass_for_another(erin, bob):
    erin.post("/borrowsverdict/1/")
    assert RAN == []


# --- the method ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["methodininitializerequest", "methodbeforeinitial"])
def test_the_method_that_will_run_is_the_one_held(erin, bob, view):
    headers = {"X-HTTP-Method-Override": "DELETE"}
    assert erin.post(f"/{view}/", headers=headers).json()["action"] == f"{view}.delete"
    assert erin.get(f"/{view}/", headers=headers).status_code == 403
    assert erin.options(f"/{view}/", headers=headers).status_code in (403, 503)
    assert RAN == []
    approve_all(bob)
    assert erin.post(f"/{view}/", headers=headers).status_code == 204
    assert RAN == ["delete"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_method_changed_after_the_gate_was_asked_runs_nothing(erin, bob, method):
    headers = {"X-HTTP-Method-Override": "DELETE"}
    call = getattr(erin, method)
    call("/methodafterinitial/", headers=headers)
    approve_all(bob)
    response = call("/methodafterinitial/", headers=headers)
    assert (response.status_code, response.json()["code"]) == (503, "gate_unavailable")
    assert RAN == []


def test_the_action_is_the_one_that_will_run_not_the_one_first_announced(erin):
    factories.policy(actions="*.destroy")
    response = erin.post("/overriding/", headers={"X-HTTP-Method-Override": "DELETE"})
    assert response.status_code == 403
    assert RAN == []


# --- what the handler may do -----------------------------------------------------------------------------


def test_a_handler_that_calls_itself_is_one_run(erin, bob):
    erin.post("/callsitself/")
    approve_all(bob)
    assert erin.post("/callsitself/").status_code == 201
    assert RAN == ["step 2", "step 1", "step 0"]
    assert ApprovalRequest.objects.get().outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize("view", ["loopshandler", "runstwice", "runsbyaction"])
def test_a_second_run_on_one_verdict_is_refused_in_our_words(erin, bob, settings, view):
    erin.post(f"/{view}/")
    approve_all(bob)
    response = erin.post(f"/{view}/")
    assert response.status_code == 503
    assert response.json()["code"] == "gate_unavailable"
    assert len(RAN) == 1


def test_a_405_is_drfs_and_never_a_catch_all(erin):
    assert erin.put("/catchall/").status_code == 405
    assert RAN == []
    assert not ApprovalRequest.objects.exists()


def test_by_policy_a_catch_all_runs_where_no_policy_names_it(erin):
    assert erin.put("/catchallbypolicy/").status_code == 200
    factories.policy(actions="catchallbypolicy.*")
    assert erin.put("/catchallbypolicy/").status_code == 405
    assert RAN == ["catch-all"]


@pytest.mark.parametrize("view", ["orgate", "nestedorgate", "andgate", "notgate", "lateorgate"])
def test_a_composed_gate_is_an_error_at_the_first_call(erin, view):
    erin.raise_request_exception = False
    assert erin.post(f"/{view}/").status_code == 500
    assert RAN == []
    assert not ApprovalRequest.objects.exists()

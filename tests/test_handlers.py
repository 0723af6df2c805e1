"""What becomes of a run is recorded as it was, and an error before it began says that nothing ran."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connection
from django.http import Http404
from django.test import RequestFactory
from django.urls import path
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.test import APIClient, force_authenticate
from rest_framework.views import APIView

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.permissions import RequiresApproval
from jit_approval.states import Outcome, Status
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]
RAN: list[str] = []


def ends_with(error: type[BaseException]):
    def end() -> Response:
        raise error()

    return end


ENDS = {
    "created": lambda: Response({}, status=201),
    "refused": lambda: Response({}, status=409),
    "invalid": ends_with(ValidationError),
    "missing": ends_with(Http404),
    "broken": ends_with(KeyError),
    "stopped": ends_with(SystemExit),
    "nothing": lambda: None,
}


class Ends(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request, end):
        RAN.append(end)
        return ENDS[end]()


urlpatterns = [path("ends/<end>/", Ends.as_view())]


class Failing:
    """A database that fails on statements that contain a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, execute, sql, params, many, context):
        if self.text in sql:
            raise OperationalError("the database has gone away")
        return execute(sql, params, many, context)


@pytest.fixture
def bob():
    RAN.clear()
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


def approved(client, bob, end: str) -> ApprovalRequest:
    client.post(f"/ends/{end}/")
    return services.approve(ApprovalRequest.objects.get(), by=bob)


@pytest.mark.parametrize(
    ("end", "outcome", "status", "exception"),
    [
        ("created", Outcome.SUCCEEDED, 201, ""),
        ("refused", Outcome.FAILED, 409, ""),
        ("invalid", Outcome.FAILED, 400, "rest_framework.exceptions.ValidationError"),
        ("missing", Outcome.FAILED, 404, "django.http.response.Http404"),
        ("broken", Outcome.FAILED, None, "builtins.KeyError"),
        ("nothing", Outcome.UNKNOWN, None, ""),
    ],
)
def test_the_outcome_is_the_status_or_the_class_of_the_exception(
    erin, bob, end, outcome, status, exception
):
    row = approved(erin, bob, end)
    erin.post(f"/ends/{end}/")
    row.refresh_from_db()
    assert RAN == [end]
    assert (row.outcome, row.response_status, row.exception) == (outcome, status, exception)


def test_a_process_that_is_stopped_leaves_an_unknown_outcome_and_is_not_run_again(bob):
    user = factories.user("erin")
    client = APIClient()
    client.force_authenticate(user)
    row = approved(client, bob, "stopped")
    request = RequestFactory().post("/ends/stopped/")
    force_authenticate(request, user)
    with pytest.raises(SystemExit):
        client.post("/ends/stopped/")
    row.refresh_from_db()
    assert row.outcome == Outcome.UNKNOWN
    assert client.post("/ends/stopped/").json()["code"] == "approval_consumed"
    assert RAN == ["stopped"]


@pytest.mark.parametrize("text", ["UPDATE", "INSERT", "jit_approval_approvalpolicy"])
def test_a_database_error_while_spending_is_503_and_nothing_runs(erin, bob, text):
    row = approved(erin, bob, "created")
    with connection.execute_wrapper(Failing(text)):
        answer = erin.post("/ends/created/")
    assert (answer.status_code, answer.json()["code"]) == (503, "gate_unavailable")
    assert answer.json()["executed"] is False
    assert RAN == []
    row.refresh_from_db()
    assert row.status == Status.APPROVED


def test_a_trail_that_refuses_writes_lets_nothing_run(erin, bob):
    approved(erin, bob, "created")
    with connection.execute_wrapper(Failing("jit_approval_auditevent")):
        assert erin.post("/ends/created/").status_code == 503
    assert RAN == []


def test_a_database_error_while_opening_is_503_and_nothing_is_open(erin):
    with connection.execute_wrapper(Failing("jit_approval_notification")):
        assert erin.post("/ends/created/").status_code == 503
    assert not ApprovalRequest.objects.exists()


def test_an_outcome_that_cannot_be_recorded_leaves_the_answer_and_running(erin, bob):
    row = approved(erin, bob, "created")

    class OnceTheHandlerRan(Failing):
        def __call__(self, execute, sql, params, many, context):
            return (super().__call__ if RAN else _plain)(execute, sql, params, many, context)

    def _plain(execute, sql, params, many, context):
        return execute(sql, params, many, context)

    with connection.execute_wrapper(OnceTheHandlerRan("jit_approval_approvalrequest")):
        assert erin.post("/ends/created/").status_code == 201
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.RUNNING)
    assert erin.post("/ends/created/").json()["code"] == "approval_consumed"
    assert RAN == ["created"]

"""The shortest ways around the gate, each closed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from rest_framework.decorators import api_view, permission_classes
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import AdminRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.schemas.openapi import SchemaGenerator
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp.models import Customer
from tests.testapp.views import CustomerViewSet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

RAN: list[object] = []


class Gated(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request, **kwargs):
        RAN.append(kwargs.get("pk", True))
        return Response({"ran": True})


class Retries(Gated):
    def dispatch(self, request, *args, **kwargs):
        for _ in range(3):
            response = super().dispatch(request, *args, **kwargs)
        return response


class FetchesEarly(Gated):
    def dispatch(self, request, *args, **kwargs):
        handler = self.post
        self.args, self.kwargs = args, kwargs
        self.headers = {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            self.initial(self.request, *args, **kwargs)
            response = handler(self.request, *args, **kwargs)
        except Exception as error:
            response = self.handle_exception(error)
        return self.finalize_response(self.request, response)


class Batch(Gated):
    """Runs its handler for three objects on one request."""

    def dispatch(self, request, *args, **kwargs):
        self.args, self.headers = args, {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            for pk in (1, 2, 3):
                self.kwargs = {"pk": pk}
                self.initial(self.request, *args, pk=pk)
                response = self.post(self.request, *args, pk=pk)
        except Exception as error:
            response = self.handle_exception(error)
        return self.finalize_response(self.request, response)


class Outer(Gated):
    """Calls another gated view with the same HttpRequest."""

    def post(self, request, **kwargs):
        RAN.append("outer")
        return Gated.as_view()(request._request)


class SwallowsRefusals(Gated):
    def check_permissions(self, request):
        with suppress(PermissionDenied):  # ours is none: it goes on being raised
            super().check_permissions(request)


class TwoAMinute(SimpleRateThrottle):
    rate = "2/min"

    def get_cache_key(self, request, view):
        return f"smoke-{request.user.pk}"


class Throttled(Gated):
    throttle_classes = (TwoAMinute,)


class Browsable(Gated):
    renderer_classes = (JSONRenderer, BrowsableAPIRenderer, AdminRenderer)

    def get(self, request):
        return Response({"read": True})


class Composed(Gated):
    permission_classes = (IsAuthenticated & RequiresApproval,)


class Async(Gated):
    async def post(self, request, **kwargs):
        RAN.append("async")
        return Response({})


@api_view(["POST"])
@permission_classes([IsAuthenticated, RequiresApproval])
async def async_function(request):
    RAN.append("async")
    return Response({})


class Fails(Gated):
    def post(self, request, **kwargs):
        RAN.append("fails")
        Customer.objects.create(name="half done")
        raise ZeroDivisionError


class Reads(Gated):
    def get(self, request, **kwargs):
        Customer.objects.create(name="half read")
        raise ZeroDivisionError


class ByPolicy(Gated):
    permission_classes = (RequiresApprovalByPolicy,)


urlpatterns = [
    path("approvals/", include("jit_approval.urls")),
    path("gated/", Gated.as_view()),
    path("retries/", Retries.as_view()),
    path("early/", FetchesEarly.as_view()),
    path("batch/", Batch.as_view()),
    path("outer/", Outer.as_view()),
    path("swallows/", SwallowsRefusals.as_view()),
    path("throttled/", Throttled.as_view()),
    path("browsable/", Browsable.as_view()),
    path("composed/", Composed.as_view()),
    path("async/", Async.as_view()),
    path("async-function/", async_function),
    path("fails/", Fails.as_view()),
    path("reads/", Reads.as_view()),
    path("by-policy/", ByPolicy.as_view()),
    path("customers/<int:pk>/", CustomerViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
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


def approve_all(bob) -> None:
    for row in ApprovalRequest.objects.filter(status=Status.PENDING):
        services.approve(row, by=bob)


@pytest.mark.parametrize("view", ["retries", "early", "batch", "swallows", "gated"])
def test_no_dispatch_runs_anything_without_a_grant_or_twice_on_one(erin, bob, view):
    for _ in range(2):
        erin.post(f"/{view}/")
    assert RAN == []
    approve_all(bob)
    for _ in range(3):
        erin.post(f"/{view}/")
    assert len(RAN) == 1


def test_an_approved_outer_view_does_not_carry_an_inner_one(erin, bob):
    erin.post("/outer/")
    approve_all(bob)
    response = erin.post("/outer/")
    assert RAN == ["outer"]
    assert response.json()["code"] == "approval_pending"


def test_held_calls_do_not_escape_the_throttle(erin):
    statuses = [erin.post("/throttled/").status_code for _ in range(10)]
    assert statuses == [403, 403, *[429] * 8]


@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/html; format=admin"])
def test_probes_open_and_spend_nothing(erin, bob, accept):
    erin.post("/browsable/")
    approve_all(bob)
    before = ApprovalRequest.objects.count()
    assert erin.get("/browsable/", headers={"Accept": accept}).status_code == 200
    assert erin.get("/browsable/?format=admin").status_code == 200
    assert erin.options("/browsable/", headers={"Accept": accept}).status_code == 200
    erin.head("/browsable/")
    request = Request(APIRequestFactory().get("/"))
    request.user = ApprovalRequest.objects.get().requester
    generator = SchemaGenerator(title="t", patterns=urlpatterns)
    generator._initialise_endpoints()
    _, endpoints = generator._get_paths_and_endpoints(request)
    page = [endpoint for endpoint in endpoints if endpoint[0] == "/browsable/"]
    assert {method for _, method, _ in page} == {"GET", "POST"}
    assert all(generator.has_view_permissions(*endpoint) for endpoint in page)
    assert ApprovalRequest.objects.count() == before
    assert RAN == []
    assert ApprovalRequest.objects.usable().count() == 1


@pytest.mark.parametrize("view", ["composed", "async", "async-function"])
def test_what_cannot_be_gated_is_an_error_not_a_pass(erin, bob, view):
    assert erin.post(f"/{view}/").status_code == 500
    assert RAN == []
    assert not ApprovalRequest.objects.exists()


def test_an_unknown_object_is_404_and_reaches_nobody(erin):
    assert erin.delete("/customers/99/").status_code == 404
    assert not ApprovalRequest.objects.exists()


def test_an_unimplemented_method_is_405_and_opens_nothing(erin):
    assert erin.delete("/gated/").status_code == 405
    assert not ApprovalRequest.objects.exists()


def test_anonymous_callers_open_nothing(bob):
    assert APIClient().post("/gated/").status_code in (401, 403)
    assert not ApprovalRequest.objects.exists()


def test_an_exception_is_recorded_with_its_class(erin, bob):
    erin.post("/fails/")
    approve_all(bob)
    assert erin.post("/fails/").status_code == 500
    row = ApprovalRequest.objects.get()
    assert (row.outcome, row.exception) == (Outcome.FAILED, "builtins.ZeroDivisionError")


@pytest.fixture
def _atomic_requests():
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False
    for callback in filter(None, (one.callback for one in urlpatterns)):
        for name in ("_non_atomic_requests", "_jit_approval_atomic"):
            vars(callback).pop(name, None)


@pytest.mark.usefixtures("_atomic_requests")
def test_atomic_requests_without_the_middleware_is_closed(erin):
    response = erin.post("/gated/")
    assert (response.status_code, response.json()["code"]) == (503, "gate_unavailable")
    assert RAN == []


@pytest.mark.usefixtures("_atomic_requests")
def test_atomic_requests_with_the_middleware_keeps_handlers_atomic(erin, bob, settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "jit_approval.middleware.GateBeforeTransaction",
    ]
    assert erin.post("/fails/").json()["code"] == "approval_pending"
    approve_all(bob)
    assert erin.post("/fails/").status_code == 500
    assert RAN == ["fails"]
    assert ApprovalRequest.objects.get().status == Status.CONSUMED
    assert erin.get("/reads/").status_code == 500
    assert not Customer.objects.exists()


def test_a_caller_in_a_transaction_is_refused(erin, bob):
    erin.post("/gated/")
    approve_all(bob)
    with transaction.atomic():
        assert erin.post("/gated/").status_code == 503
    assert RAN == []
    assert ApprovalRequest.objects.usable().count() == 1


def test_by_policy_holds_what_a_policy_names_and_nothing_else(erin, bob):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert erin.post("/by-policy/").status_code == 200
    asked = [query["sql"] for query in queries if "jit_approval" in query["sql"]]
    assert len(asked) == 1
    factories.policy(actions="bypolicy.post")
    assert erin.post("/by-policy/").json()["code"] == "approval_pending"
    assert len(RAN) == 1


def test_a_grant_is_void_once_its_policy_is_disabled_or_tightened(erin, bob):
    policy = factories.policy(actions="gated.*")
    for change in ({"required_approvals": 2}, {"enabled": False}):
        factories.decider()
        held = erin.post("/gated/").json()["approval_id"]
        approve_all(bob)
        for name, value in change.items():
            setattr(policy, name, value)
        policy.save()
        again = erin.post("/gated/").json()
        assert again["code"] == "approval_pending"
        assert again["approval_id"] != held
        policy.enabled, policy.required_approvals = True, 1
        policy.save()
        ApprovalRequest.objects.filter(status=Status.PENDING).update(
            status=Status.CANCELLED, open_key=None, due_at=None
        )
    assert RAN == []


def test_a_grant_is_void_once_who_gave_it_is_no_decider_any_more(erin, bob):
    carol = factories.decider("carol")
    erin.post("/gated/")
    approve_all(bob)
    bob.user_permissions.remove(Permission.objects.get(codename="decide"))
    assert erin.post("/gated/").json()["code"] == "approval_pending"
    assert RAN == []
    approve_all(carol)
    assert erin.post("/gated/").status_code == 200

"""Kinds of views, overrides and projects: what is gated is held, whatever it is built of."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import transaction
from django.test import TestCase, override_settings
from django.urls import path
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient
from rest_framework.views import APIView

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.permissions import RequiresApproval
from tests import factories
from tests.testapp.views import RUNS, purge_cache

RAN: list[str] = []


class Gated(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)
    http_method_names = [*APIView.http_method_names, "purge"]

    def post(self, request, **kwargs):
        RAN.append("post")
        return Response({})

    def purge(self, request):
        RAN.append("purge")
        return Response({})


class OwnInitial(Gated):
    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        super().initial(request, *args, **kwargs)


class OverriddenMethod(Gated):
    """Takes the method from a header, as DRF once did."""

    def initialize_request(self, request, *args, **kwargs) -> Request:
        made = super().initialize_request(request, *args, **kwargs)
        made.method = request.headers.get("X-Method", request.method)
        return made

    def get(self, request):
        return Response({})


class OwnPermissions(Gated):
    permission_classes = ()

    def get_permissions(self):
        return [IsAuthenticated(), RequiresApproval()]


class ComposedInPermissions(Gated):
    permission_classes = ()

    def get_permissions(self):
        return [(IsAuthenticated & RequiresApproval)()]


class GateFirst(Gated):
    permission_classes = (RequiresApproval, IsAuthenticated)


class OwnAnswers(Gated):
    """A project that answers everything with 200."""

    def get_exception_handler(self):
        return lambda exc, context: Response({"fine": True})


class Exports(Gated):
    approval_methods = ("get",)

    def get(self, request):
        RAN.append("get")
        return Response({})


class Things(viewsets.ViewSet):
    permission_classes = (IsAuthenticated, RequiresApproval)
    approval_action = None

    def list(self, request):
        return Response([])

    @action(detail=False, methods=["post"], approval_action="things.zap")
    def named(self, request):
        RAN.append("named")
        return Response({})

    @action(detail=False, methods=["post"])
    def plain(self, request):
        RAN.append("plain")
        return Response({})


router = SimpleRouter()
router.register("things", Things, basename="things")
VIEWS = {
    "initial": OwnInitial,
    "method": OverriddenMethod,
    "permissions": OwnPermissions,
    "composed": ComposedInPermissions,
    "first": GateFirst,
    "answers": OwnAnswers,
    "exports": Exports,
}
urlpatterns = [
    *[path(f"{name}/", view.as_view()) for name, view in VIEWS.items()],
    path("purge-cache/", purge_cache),
    *router.urls,
]
transactional = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture
def bob():
    RAN.clear()
    RUNS.clear()
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


@transactional
@pytest.mark.parametrize(
    ("url", "label", "ran"),
    [
        ("/initial/", "owninitial.post", ["post"]),
        ("/permissions/", "ownpermissions.post", ["post"]),
        ("/first/", "gatefirst.post", ["post"]),
        ("/answers/", "ownanswers.post", ["post"]),
        ("/things/named/", "things.zap", ["named"]),
        ("/things/plain/", "things.plain", ["plain"]),
        ("/purge-cache/", "purge_cache.post", []),
    ],
)
def test_every_kind_of_view_is_held_and_runs_once(erin, bob, url, label, ran):
    held = erin.post(url)
    assert (held.status_code, held.json()["code"]) == (403, "approval_pending")
    row = ApprovalRequest.objects.get()
    assert row.action == label
    services.approve(row, by=bob)
    assert erin.post(url).status_code == 200
    assert erin.post(url).status_code == 403
    assert ran == RAN
    assert len(RAN) + len(RUNS) == 1


@transactional
def test_an_export_is_gated_with_its_head_and_nothing_else(erin):
    assert erin.get("/exports/").json()["code"] == "approval_pending"
    assert erin.head("/exports/").status_code == 403
    assert RAN == []
    assert erin.post("/exports/").status_code == 200


@transactional
def test_methods_beyond_the_usual_ones_are_gated(erin):
    assert erin.generic("PURGE", "/first/").json()["code"] == "approval_pending"
    assert RAN == []


@transactional
def test_a_method_from_a_header_is_the_method_that_is_gated(erin):
    answer = erin.get("/method/", headers={"X-Method": "POST"})
    assert answer.json()["code"] == "approval_pending"
    assert RAN == []


@transactional
def test_a_gate_composed_where_no_check_sees_it_is_an_error(erin):
    assert erin.post("/composed/").status_code == 500
    assert RAN == []


@transactional
def test_permissions_listed_after_the_gate_refuse_first(bob):
    assert APIClient().post("/first/").status_code in (401, 403)
    assert not ApprovalRequest.objects.exists()


@transactional
def test_with_autocommit_off_nothing_runs(erin, bob):
    erin.post("/first/")
    services.approve(ApprovalRequest.objects.get(), by=bob)
    transaction.set_autocommit(False)
    try:
        assert erin.post("/first/").status_code == 503
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert RAN == []


@override_settings(ROOT_URLCONF=__name__)
class HostTest(TestCase):
    """What a project's own tests look like: Django's TestCase, which wraps each in a transaction."""

    def test_the_whole_story_works_inside_a_plain_test_case(self):
        RAN.clear()
        bob, erin = factories.decider(), APIClient()
        erin.force_authenticate(factories.user())
        self.assertEqual(erin.post("/first/").status_code, 403)
        services.approve(ApprovalRequest.objects.get(), by=bob)
        self.assertEqual(erin.post("/first/").status_code, 200)
        self.assertEqual(RAN, ["post"])


def test_accounts_in_a_second_database_and_the_gate_as_default(tmp_path):
    environment = {**os.environ, "JIT_TWO_DATABASES": str(tmp_path)}
    environment["DJANGO_SETTINGS_MODULE"] = "tests.two_databases"
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_databases"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[200, 'approval_pending', 204, 0, 'succeeded']"

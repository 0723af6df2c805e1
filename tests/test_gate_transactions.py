"""What is decided stays decided, whatever transaction the project, the view or the test is in."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.conf import settings as project
from django.db import connection, connections, transaction
from django.test import TestCase, override_settings
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp import odd_urls
from tests.testapp.models import Customer
from tests.testapp.odd_views import RAN, LeavesOpen

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.testapp.odd_urls")]
MIDDLEWARE = [*project.MIDDLEWARE, "jit_approval.middleware.GateBeforeTransaction"]


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


def approve_all(by) -> None:
    for row in ApprovalRequest.objects.filter(status=Status.PENDING):
        services.approve(row, by=by)


def ensure_closed(answer) -> None:
    """The gate could not do its work, said so, and nothing ran or was opened or spent."""
    assert (answer.status_code, answer.json()["code"]) == (503, "gate_unavailable")
    assert answer.json()["executed"] is False
    assert RAN == []
    assert not ApprovalRequest.objects.filter(status=Status.CONSUMED).exists()


# --- ATOMIC_REQUESTS -------------------------------------------------------------------------------------


@contextmanager
def atomic_requests():
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        yield
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
        for callback in filter(None, (one.callback for one in odd_urls.urlpatterns)):
            for name in ("_non_atomic_requests", "_jit_approval_atomic"):
                vars(callback).pop(name, None)


@pytest.fixture
def _atomic():
    with atomic_requests():
        yield


@pytest.fixture
def _middleware(settings):
    settings.MIDDLEWARE = MIDDLEWARE


@pytest.mark.usefixtures("_atomic")
def test_atomic_requests_without_the_middleware_is_closed(erin):
    ensure_closed(erin.post("/gated/"))
    assert not ApprovalRequest.objects.exists()


@pytest.mark.usefixtures("_atomic")
def test_atomic_requests_without_the_middleware_spends_no_grant(erin, bob):
    connection.settings_dict["ATOMIC_REQUESTS"] = False
    erin.post("/gated/")
    approve_all(bob)
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    ensure_closed(erin.post("/gated/"))


@pytest.mark.usefixtures("_atomic", "_middleware")
@pytest.mark.parametrize("body", [{}, {"no": 1}])
def test_a_handler_that_fails_is_rolled_back_and_the_gate_is_not(erin, bob, body):
    erin.post("/writes/", body)
    approve_all(bob)
    answer = erin.post("/writes/", body)
    assert answer.status_code == (400 if body else 500)
    row = ApprovalRequest.objects.get()
    assert (row.status, row.outcome, RAN) == (Status.CONSUMED, Outcome.FAILED, ["post"])
    assert not Customer.objects.exists()


@pytest.mark.usefixtures("_atomic", "_middleware")
def test_a_handler_that_ends_well_is_committed(erin, bob):
    erin.post("/gated/")
    approve_all(bob)
    assert erin.post("/gated/").status_code == 200
    assert ApprovalRequest.objects.get().outcome == Outcome.SUCCEEDED


@pytest.mark.usefixtures("_atomic", "_middleware")
def test_methods_that_are_not_gated_keep_their_transaction(erin):
    assert erin.get("/writes/").status_code == 500
    assert RAN == ["get"]
    assert not Customer.objects.exists()


@pytest.mark.usefixtures("_atomic", "_middleware")
@pytest.mark.parametrize("path", ["/permissionspermethod/", "/writesunasked/"])
def test_a_view_that_may_not_ask_the_gate_keeps_its_transaction(erin, path):
    ensure_closed(erin.post(path))
    erin.get(path)
    assert not Customer.objects.exists()


@pytest.mark.usefixtures("_atomic", "_middleware")
def test_a_commit_that_fails_leaves_an_unknown_outcome(erin, bob):
    hows = ["hook", "row"] if connection.features.can_defer_constraint_checks else ["hook"]
    for how in hows:
        RAN.clear()
        erin.post("/failsatcommit/", {"how": how})
        approve_all(bob)
        assert erin.post("/failsatcommit/", {"how": how}).status_code == 500
        row = ApprovalRequest.objects.latest("created_at")
        assert (row.outcome, RAN) == (Outcome.UNKNOWN, ["post"])
        answer = erin.post("/failsatcommit/", {"how": how}).json()
        assert (answer["code"], answer["outcome"]) == ("approval_consumed", "unknown")
    assert Customer.objects.count() == 1  # the hook ran after its commit


# --- transactions of others ------------------------------------------------------------------------------


def test_a_view_inside_a_transaction_of_its_own_is_closed(erin):
    ensure_closed(erin.post("/intransaction/"))


def test_a_caller_inside_a_transaction_is_refused_and_spends_nothing(erin, bob):
    erin.post("/gated/")
    approve_all(bob)
    with transaction.atomic():
        ensure_closed(erin.post("/gated/"))
    assert erin.post("/gated/").status_code == 200


def test_with_autocommit_off_it_is_closed(erin, bob):
    erin.post("/gated/")
    approve_all(bob)
    transaction.set_autocommit(False)
    try:
        answer = erin.post("/gated/")
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    ensure_closed(answer)


def test_what_cannot_be_recorded_stays_running_and_is_answered_all_the_same(erin, bob):
    erin.post("/leavesopen/")
    approve_all(bob)
    answer = erin.post("/leavesopen/")
    LeavesOpen.opened.pop().__exit__(None, None, None)
    assert answer.json() == {"done": True}
    assert ApprovalRequest.objects.get().outcome == Outcome.RUNNING
    assert erin.post("/leavesopen/").json()["code"] == "approval_consumed"
    assert RAN == ["post"]


# --- a database that fails -------------------------------------------------------------------------------


@contextmanager
def missing(model):
    """The table is gone for a while: every statement on it fails."""
    table = model._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(model, table, "gone_for_a_while")
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(model, "gone_for_a_while", table)


MODELS = ["ApprovalRequest", "AuditEvent", "Decision", "ApprovalPolicy"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.skipif(
    project.TEST_DB == "sqlite", reason="SQLite rewrites foreign keys when a table is renamed"
)
def test_a_table_that_cannot_be_reached_lets_nothing_run(erin, bob, name):
    from django.apps import apps

    erin.post("/gated/")
    approve_all(bob)
    with missing(apps.get_model("jit_approval", name)):
        answer = erin.post("/gated/")
    ensure_closed(answer)
    assert erin.post("/gated/").status_code == 200


# --- databases -------------------------------------------------------------------------------------------


class Replicated:
    """Reads of the gate's own rows go to a replica that has none of them yet."""

    def db_for_read(self, model, **hints):
        return "replica" if model._meta.app_label == "jit_approval" else None

    def allow_relation(self, one, other, **hints):
        return True


@contextmanager
def further_database(alias, folder, **changes):
    """A database beside the suite's, without a single table."""
    connections.settings[alias] = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / f"{alias}.sqlite3",
        "OPTIONS": {},
        **changes,
    }
    connections[alias].connect()  # by hand: the test case knows nothing of it
    try:
        yield
    finally:
        connections[alias].close()
        del connections.settings[alias], connections[alias]


@pytest.fixture
def _replica(settings, tmp_path):
    settings.DATABASE_ROUTERS = [Replicated()]
    with further_database("replica", tmp_path):
        yield


def test_a_transaction_on_the_database_of_the_business_is_one_too_many(erin, bob, tmp_path):
    erin.post("/gated/")
    approve_all(bob)
    with further_database("business", tmp_path, ATOMIC_REQUESTS=True):
        ensure_closed(erin.post("/gated/"))
    assert erin.post("/gated/").status_code == 200


@pytest.mark.usefixtures("_replica")
def test_no_replica_is_read_to_hold_decide_and_run(erin, bob):
    factories.policy(actions="gated.*")
    held = erin.post("/gated/").json()["approval_id"]
    assert erin.post("/gated/").json()["approval_id"] == held
    row = ApprovalRequest.objects.using("default").get()
    services.approve(row, by=bob)
    assert erin.post("/gated/").status_code == 200
    again = erin.post("/gated/").json()["approval_id"]
    services.reject(ApprovalRequest.objects.using("default").get(pk=again), by=bob, comment="no")
    rejected = erin.post("/gated/").json()
    assert (rejected["code"], rejected["comment"]) == ("approval_rejected", "no")
    assert RAN == ["post"]


@pytest.mark.usefixtures("_replica")
def test_no_replica_is_read_by_the_status_api(erin, bob):
    held = erin.post("/gated/").json()
    assert erin.get(held["status_url"]).json()["next"] == "wait"
    client = APIClient(raise_request_exception=False)
    client.force_login(bob)
    assert client.post(f"{held['status_url']}approve/").status_code == 200
    decisions = erin.get(held["status_url"]).json()["decisions"]
    assert [one["by"] for one in decisions] == ["bob"]


# --- a host's own tests ----------------------------------------------------------------------------------


@override_settings(ROOT_URLCONF="tests.testapp.odd_urls")
class TestOfAHost(TestCase):
    """Django's TestCase wraps each test in a transaction; the journey works inside it."""

    def setUp(self):
        RAN.clear()
        self.bob = factories.decider("bob")
        self.erin = APIClient(raise_request_exception=False)
        self.erin.force_login(factories.user("erin"))

    def journey(self):
        refused = APIClient().post("/gated/")
        self.assertIn(refused.status_code, (401, 403))
        self.assertEqual(self.erin.post("/gated/").json()["code"], "approval_pending")
        approve_all(self.bob)
        self.assertEqual(self.erin.post("/gated/").status_code, 200)
        self.assertEqual(RAN, ["post"])
        self.assertEqual(ApprovalRequest.objects.get().outcome, Outcome.SUCCEEDED)

    def test_the_journey_of_a_call(self):
        self.journey()

    @override_settings(MIDDLEWARE=MIDDLEWARE)
    def test_the_journey_under_atomic_requests(self):
        with atomic_requests():
            self.journey()
            self.erin.post("/writes/", {"no": 1})
            approve_all(self.bob)
            self.assertEqual(self.erin.post("/writes/", {"no": 1}).status_code, 400)
            self.assertFalse(Customer.objects.exists())
            self.assertEqual(self.erin.get("/writes/").status_code, 500)
            self.assertFalse(Customer.objects.exists())

    def test_a_view_inside_a_transaction_of_its_own_is_closed(self):
        ensure_closed(self.erin.post("/intransaction/"))

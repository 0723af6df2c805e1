"""Every kind of view, who is asked first, what is recorded, and when a grant is void."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from rest_framework.response import Response
from rest_framework.test import APIClient

from jit_approval import services
from jit_approval.models import ApprovalRequest
from jit_approval.permissions import RequiresApproval
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp.models import Customer
from tests.testapp.odd_views import RAN, Gated, TwoAMinute

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.testapp.odd_urls")]


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()
    TwoAMinute.counted.clear()
    cache.clear()


@pytest.fixture
def bob():
    return factories.decider("bob")


@pytest.fixture
def erin(bob):
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ada")


def approve_all(by) -> None:
    for row in ApprovalRequest.objects.filter(status=Status.PENDING):
        services.approve(row, by=by)


def opened() -> int:
    return ApprovalRequest.objects.count()


# --- kinds -----------------------------------------------------------------------------------------------

BODY = {"name": "Ada", "email": "", "balance": "0.00"}
KINDS = [
    ("post", "/function/", "function.post", "function"),
    ("post", "/gated/", "gated.post", "post"),
    ("delete", "/deletes/", "deletes.delete", "delete"),
    ("get", "/export/", "export.get", "get"),
    ("head", "/export/", "export.get", "get"),
    ("get", "/exportbypolicy/", "exportbypolicy.get", "get"),
    ("head", "/exportbypolicy/", "exportbypolicy.get", "get"),
    ("purge", "/cache/", "cache.purge", "purge"),
    ("link", "/cache/", "cache.link", "link"),
    ("purge", "/cachethatnames/", "cachethatnames.purge", "purge"),
    ("post", "/plain/", "plain.create", "create"),
    ("post", "/customers/", "customers.create", "create"),
    ("put", "/customers/{pk}/", "customers.update", "update"),
    ("patch", "/customers/{pk}/", "customers.partial_update", "update"),
    ("delete", "/customers/{pk}/", "customers.destroy", "destroy"),
    ("post", "/customers/{pk}/freeze/", "customers.freeze_for_good", "freeze"),
    ("post", "/customers/{pk}/thaw/", "customers.melt", "thaw"),
    ("post", "/customers/everyone/", "customers.everyone", "everyone"),
    ("delete", "/customers/everyone/", "customers.everyone", "everyone"),
]


@pytest.mark.parametrize(("method", "path", "action", "ran"), KINDS)
def test_every_kind_of_view_is_held_and_runs_once(erin, bob, customer, method, path, action, ran):
    factories.policy(actions=action)  # what is held by policy alone is named by it
    path = path.format(pk=customer.pk)
    body = BODY if method in ("post", "put", "patch") else None
    for expected in ([], [ran], [ran]):
        answer = (
            erin.generic(method.upper(), path)
            if body is None
            else getattr(erin, method)(path, body)
        )
        assert ran in expected or answer.status_code == 403
        approve_all(bob) if not expected else None
        assert RAN == expected
    row = ApprovalRequest.objects.order_by("created_at").first()
    assert (row.action, row.status, row.outcome) == (action, Status.CONSUMED, Outcome.SUCCEEDED)
    assert opened() == 2  # the third call is held anew


@pytest.mark.parametrize(
    ("method", "path"),
    [("delete", "/gated/"), ("put", "/function/"), ("delete", "/plain/"), ("purge", "/gated/")],
)
def test_a_method_the_view_does_not_have_is_405_and_opens_nothing(erin, method, path):
    assert erin.generic(method.upper(), path).status_code == 405
    assert opened() == 0


@pytest.mark.parametrize("path", ["/customers/99/", "/generic/99/", "/customers/99/freeze/"])
def test_an_object_that_is_not_there_is_404_and_opens_nothing(erin, path):
    method = erin.post if path.endswith("freeze/") else erin.delete
    assert method(path).status_code == 404
    assert opened() == 0


@pytest.mark.parametrize("path", ["/async_function/", "/asyncviewset/"])
def test_an_async_handler_is_an_error_that_says_so_and_spends_nothing(erin, path):
    erin.raise_request_exception = True
    with pytest.raises(ImproperlyConfigured, match="must not be async"):
        erin.post(path)
    assert (RAN, opened()) == ([], 0)


def test_an_async_class_is_closed_too(erin):
    assert (
        erin.post("/asyncview/").status_code == 500
    )  # Django runs it where no database may be asked
    assert (RAN, opened()) == ([], 0)


def test_what_is_not_drf_is_an_error_that_says_so(erin):
    answer = erin.post("/plain_django/")
    assert (answer.status_code, b"REST framework" in answer.content) == (501, True)
    with pytest.raises(ImproperlyConfigured):
        RequiresApproval().has_permission(RequestFactory().post("/"), Gated())  # type: ignore[arg-type]
    assert RAN == []


# --- who is asked first ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/refusedbefore/", "/refusedafter/"])
def test_other_permissions_refuse_before_anything_opens(erin, path):
    answer = erin.post(path)
    assert (answer.status_code, answer.json()["detail"]) == (403, "never")
    assert opened() == 0


@pytest.mark.parametrize("path", ["/gated/", "/gatefirst/", "/onlygate/", "/function/"])
def test_anonymous_callers_are_refused_and_open_nothing(bob, path):
    assert APIClient().post(path).status_code in (401, 403)
    assert opened() == 0


def test_a_throttle_counts_each_held_call_once_and_stops_the_rest(erin):
    statuses = [erin.post("/throttled/").status_code for _ in range(10)]
    assert statuses == [403, 403, *[429] * 8]
    assert len(TwoAMinute.counted) == 2
    assert opened() == 1


def test_a_throttled_call_leaves_its_grant_unspent(erin, bob):
    erin.post("/throttled/")
    erin.post("/throttled/")
    approve_all(bob)
    assert erin.post("/throttled/").status_code == 429
    assert RAN == []
    cache.clear()
    assert erin.post("/throttled/").status_code == 200
    assert len(TwoAMinute.counted) == 3


def _principals():
    user_model = get_user_model()
    yield "no row", SimpleNamespace(is_authenticated=True, is_active=True, pk=1)
    yield "unsaved", user_model(username="new")
    yield "unsaved with a key", user_model(username="new", pk=uuid.uuid4().int % 10**6)
    yield "inactive", user_model.objects.create_user("gone", is_active=False)


@pytest.mark.parametrize("name", ["no row", "unsaved", "unsaved with a key", "inactive"])
def test_a_principal_without_an_account_opens_nothing(bob, name):
    client = APIClient()
    client.force_authenticate(dict(_principals())[name])
    assert client.post("/onlygate/").status_code == 403
    assert (RAN, opened()) == ([], 0)


# --- what is recorded ------------------------------------------------------------------------------------

OUTCOMES = [
    (200, 200, Outcome.SUCCEEDED, 200, ""),
    (404, 404, Outcome.FAILED, 404, ""),
    (502, 502, Outcome.FAILED, 502, ""),
    ("api", 500, Outcome.FAILED, 500, "rest_framework.exceptions.APIException"),
    ("404", 404, Outcome.FAILED, 404, "django.http.response.Http404"),
    ("zero", 500, Outcome.FAILED, None, "builtins.ZeroDivisionError"),
    ("none", 500, Outcome.UNKNOWN, None, ""),
]


@pytest.mark.parametrize(("how", "answered", "outcome", "status", "exception"), OUTCOMES)
def test_how_a_run_ended_is_recorded(erin, bob, how, answered, outcome, status, exception):
    erin.post("/answers/", {"how": how})
    approve_all(bob)
    assert erin.post("/answers/", {"how": how}).status_code == answered
    row = ApprovalRequest.objects.get()
    assert (row.outcome, row.response_status, row.exception) == (outcome, status, exception)
    assert RAN == ["answers"]


def test_a_process_that_stops_midway_leaves_an_unknown_outcome(erin, bob):
    erin.post("/answers/", {"how": "exit"})
    approve_all(bob)
    with pytest.raises(SystemExit):
        erin.post("/answers/", {"how": "exit"})
    row = ApprovalRequest.objects.get()
    assert (row.outcome, row.exception) == (Outcome.UNKNOWN, "builtins.SystemExit")
    again = erin.post("/answers/", {"how": "exit"}).json()
    assert (again["code"], again["outcome"]) == ("approval_consumed", "unknown")
    assert RAN == ["answers"]


def test_an_identical_call_of_one_that_still_runs_is_refused(erin, bob):
    erin.post("/gated/")
    approve_all(bob)
    row = ApprovalRequest.objects.with_now().get()
    services.consume(row, state_digest=row.state_digest)
    for _ in range(2):
        assert erin.post("/gated/").json()["code"] == "approval_consumed"
    assert (RAN, opened()) == ([], 1)


# --- by policy -------------------------------------------------------------------------------------------


def test_by_policy_an_unnamed_call_passes_for_one_query(erin):
    erin.post("/bypolicy/")
    with CaptureQueriesContext(connection) as queries:
        assert erin.post("/bypolicy/").status_code == 200
    assert sum("jit_approval" in query["sql"] for query in queries) == 1
    assert opened() == 0


def test_by_policy_a_named_call_is_held(erin, bob):
    factories.policy(actions="bypolicy.*")
    assert erin.post("/bypolicy/").json()["code"] == "approval_pending"
    approve_all(bob)
    assert erin.post("/bypolicy/").status_code == 200
    assert RAN == ["post"]


# --- between approval and run ----------------------------------------------------------------------------


def _disable(policy):
    policy.enabled = False


def _tighten(policy):
    policy.required_approvals = 2


def _shorten(policy):
    policy.usable_within /= 2


def _ask_for_reasons(policy):
    policy.require_reason = True


def _be_preceded(policy):
    factories.policy(actions="gated.post", priority=policy.priority - 1)


@pytest.mark.parametrize("change", [_disable, _tighten, _shorten, _ask_for_reasons, _be_preceded])
def test_a_policy_that_is_stricter_by_now_voids_the_grant(erin, bob, change):
    factories.decider("carol")
    policy = factories.policy(actions="gated.*", priority=50)
    erin.post("/gated/")
    approve_all(bob)
    (row,) = ApprovalRequest.objects.all()
    change(policy)
    policy.save()
    answer = erin.post("/gated/", headers={"Approval-Reason": "because"}).json()
    assert answer["code"] == "approval_pending"
    assert answer["approval_id"] != str(row.pk)
    row.refresh_from_db()
    assert (row.status, RAN) == (Status.REVOKED, [])


def test_a_policy_that_is_laxer_by_now_loosens_no_open_request(erin, bob):
    carol = factories.decider("carol")
    policy = factories.policy(actions="gated.*", required_approvals=2)
    erin.post("/gated/")
    policy.required_approvals = 1
    policy.save()
    approve_all(bob)
    assert erin.post("/gated/").json()["code"] == "approval_pending"
    assert RAN == []
    approve_all(carol)
    assert erin.post("/gated/").status_code == 200


def _lose_permission(user):
    user.user_permissions.remove(Permission.objects.get(codename="decide"))


def _deactivate(user):
    user.is_active = False
    user.save()


@pytest.mark.parametrize("change", [_lose_permission, _deactivate])
def test_a_voter_who_is_no_decider_by_now_voids_the_grant(erin, bob, change):
    factories.decider("carol")
    erin.post("/gated/")
    approve_all(bob)
    (row,) = ApprovalRequest.objects.all()
    change(bob)
    assert erin.post("/gated/").json()["approval_id"] != str(row.pk)
    row.refresh_from_db()
    assert (row.status, RAN) == (Status.REVOKED, [])


# --- one request, one verdict ----------------------------------------------------------------------------


def test_one_http_request_spends_one_grant_and_names_it(erin, bob):
    held = erin.post("/twogates/")
    approve_all(bob)
    done = erin.post("/twogates/")
    assert (done["Approval-Id"], done["Approval-Status"]) == (held["Approval-Id"], "consumed")
    assert RAN == ["post"]


# --- the project's EXCEPTION_HANDLER ---------------------------------------------------------------------


def says_ok(exc, context):
    return Response({"ok": True}, status=200)


def says_nothing(exc, context):
    return None


def wraps(exc, context):
    return Response({"error": {"message": str(exc)}}, status=400, headers={"X-Wrapped": "1"})


@pytest.mark.parametrize("handler", ["says_ok", "says_nothing", "wraps"])
@pytest.mark.parametrize("path", ["/gated/", "/runsanyway/", "/runsonerror/"])
def test_the_body_is_ours_whatever_the_exception_handler(erin, settings, handler, path):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": f"{__name__}.{handler}",
    }
    answer = erin.post(path)
    assert answer.status_code in (403, 503)
    assert answer["Content-Type"] == "application/problem+json"
    assert (answer.json()["executed"], RAN) == (False, [])


def test_a_browser_gets_a_page_that_says_so(erin):
    answer = erin.post("/gated/", headers={"Accept": "text/html"})
    assert answer.status_code == 403
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert b"approval_pending" in answer.content

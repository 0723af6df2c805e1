"""Plain Django views behind the gate: functions, classes, forms, browsers, ATOMIC_REQUESTS."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import PermissionRequiredMixin
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import Http404, HttpResponse, JsonResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.views import View
from django.views.generic import DeleteView
from rest_framework.views import APIView

from jit_approval import services
from jit_approval.decorators import requires_approval
from jit_approval.execution import running
from jit_approval.models import ApprovalRequest
from jit_approval.states import Outcome, Status
from tests import factories
from tests.testapp.models import Customer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

RAN: list[Any] = []


@requires_approval
def close_year(request: Any, year: int) -> HttpResponse:
    RAN.append((request.method, year, request.POST.get("note")))
    return HttpResponse(f"closed {year}", status=201)


@login_required
@requires_approval(action="reports.export", methods=["GET"])
def export(request: Any) -> JsonResponse:
    RAN.append("export")
    return JsonResponse({"rows": 3})


@requires_approval
def fails(request: Any) -> HttpResponse:
    RAN.append("fails")
    raise Http404


@requires_approval
def upload(request: Any) -> HttpResponse:
    RAN.append(request.FILES["file"].read() if request.FILES else request.body)
    return HttpResponse()


@requires_approval(by_policy=True)
def open_unless_named(request: Any) -> HttpResponse:
    RAN.append("open")
    return HttpResponse()


@requires_approval(
    get_object=lambda request, pk: Customer.objects.get(pk=pk),
    context=lambda request, obj: {"asked by": request.user.username, "name": obj.name},
)
def freeze(request: Any, pk: int) -> HttpResponse:
    RAN.append(("freeze", pk))
    return HttpResponse()


@requires_approval
class Erase(PermissionRequiredMixin, DeleteView):
    model = Customer
    permission_required = "testapp.delete_customer"
    success_url = "/gone/"

    def get_approval_context(self, request: Any, obj: Any) -> dict[str, Any]:
        return {"who": request.user.username, "name": obj.name}


@requires_approval
class Base(View):
    def post(self, request: Any) -> HttpResponse:
        raise AssertionError("overridden")


class Inherits(Base):
    def post(self, request: Any) -> HttpResponse:
        RAN.append("inherits")
        return HttpResponse()


@requires_approval
class OwnDispatch(View):
    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        RAN.append("dispatch")
        return HttpResponse()


@requires_approval
class AnswersAnything(View):
    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        RAN.append("anything")
        return HttpResponse()


urlpatterns = [
    path("anything/", AnswersAnything.as_view()),
    path("close/<int:year>/", close_year),
    path("export/", export),
    path("fails/", fails),
    path("upload/", upload),
    path("open/", open_unless_named),
    path("freeze/<int:pk>/", freeze),
    path("erase/<int:pk>/", Erase.as_view()),
    path("inherits/", Inherits.as_view()),
    path("dispatch/", OwnDispatch.as_view()),
]


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@pytest.fixture
def bob() -> Any:
    return factories.decider("bob")


@pytest.fixture
def erin(bob: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


def approve(response: Any, bob: Any) -> ApprovalRequest:
    assert (response.status_code, response.json()["code"]) == (403, "approval_pending"), response
    return services.approve(ApprovalRequest.objects.get(pk=response["Approval-Id"]), by=bob)


def test_a_plain_view_is_held_approved_and_runs_once(erin, bob) -> None:
    held = erin.post("/close/2026/", {"note": "a"}, headers={"Approval-Reason": "audit is done"})
    row = approve(held, bob)
    assert (row.action, row.reason, RAN) == ("close_year.post", "audit is done", [])
    assert erin.post("/close/2026/", {"note": "b"}).status_code == 403
    answer = erin.post("/close/2026/", {"note": "a"})
    assert (answer.status_code, answer.content) == (201, b"closed 2026")
    assert answer["Approval-Status"] == "consumed"
    assert RAN == [("POST", 2026, "a")]
    row.refresh_from_db()
    assert (row.status, row.outcome, row.response_status) == ("consumed", "succeeded", 201)
    assert erin.post("/close/2026/", {"note": "a"}).json()["code"] == "approval_pending"
    assert len(RAN) == 1


def test_what_is_not_held_runs_as_if_nothing_were_there(erin) -> None:
    answer = erin.get("/close/2026/")
    assert answer.status_code == 201
    assert not {"Allow", "Vary", "Approval-Id"} & set(answer.headers)
    assert len(RAN) == 1


@pytest.mark.parametrize("path", ["/close/2026/", "/export/"])
def test_no_function_is_called_by_methods_that_cannot_be_held(erin, path) -> None:
    answer = erin.options(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert "POST" in answer["Allow"]
    assert erin.trace(path).status_code == 405
    assert (RAN, ApprovalRequest.objects.count()) == ([], 0)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_a_function_that_is_held_on_reading_is_held_on_all_else(erin, method) -> None:
    assert erin.generic(method, "/export/").status_code == 403
    assert RAN == []


def test_methods_of_ones_own_choice_are_held(erin, bob) -> None:
    row = approve(erin.get("/export/"), bob)
    assert row.action == "reports.export"
    assert erin.get("/export/").json() == {"rows": 3}
    assert RAN == ["export"]


@pytest.mark.parametrize("methods", [["GET", "FETCH"], ["OPTIONS"], ["get", 5]])
def test_what_is_no_method_that_can_be_held_is_an_error_and_runs_nothing(erin, methods) -> None:
    @requires_approval(methods=methods)
    def view(request: Any) -> HttpResponse:
        RAN.append("view")
        return HttpResponse()

    request = RequestFactory().get("/")
    request.user = factories.user()
    with pytest.raises(ImproperlyConfigured, match="cannot be gated"):
        view(request)
    assert RAN == []


def test_others_refuse_first_and_the_anonymous_open_nothing() -> None:
    assert Client().get("/export/").status_code == 302
    assert Client().post("/close/2026/").status_code == 403
    assert (RAN, ApprovalRequest.objects.count()) == ([], 0)


def test_a_method_of_the_projects_own_does_not_slip_by(erin) -> None:
    assert erin.generic("PURGE", "/close/2026/").status_code == 405
    assert erin.generic("PURGE", "/dispatch/").status_code == 405
    assert erin.generic("PURGE", "/inherits/").status_code == 405
    assert RAN == []


def test_what_the_view_raises_is_djangos_to_answer(erin, bob) -> None:
    row = approve(erin.post("/fails/"), bob)
    answer = erin.post("/fails/")
    assert answer.status_code == 404
    assert b"<h1>Not Found</h1>" in answer.content
    row.refresh_from_db()
    assert (row.outcome, row.response_status) == (Outcome.FAILED, 404)


def test_the_csrf_check_is_djangos_still(bob) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.user())
    answer = client.post("/close/2026/")
    assert answer.status_code == 403
    assert b"CSRF" in answer.content
    assert not ApprovalRequest.objects.exists()


@pytest.mark.parametrize("multipart", [False, True])
def test_another_csrf_token_is_the_same_call_and_another_field_is_not(erin, bob, multipart) -> None:
    def send(**data: str) -> Any:
        if multipart:
            return erin.post("/close/2026/", data)
        return erin.generic(
            "POST",
            "/close/2026/",
            "&".join(f"{name}={value}" for name, value in data.items()),
            content_type="application/x-www-form-urlencoded",
        )

    approve(send(csrfmiddlewaretoken="one", note="a"), bob)
    for other in ({"note": "b"}, {"note": "a", "more": "1"}, {"xcsrfmiddlewaretoken": "1"}):
        assert send(csrfmiddlewaretoken="one", **other).status_code == 403
    assert RAN == []
    assert send(csrfmiddlewaretoken="two", note="a").status_code == 201
    assert "one" not in ApprovalRequest.objects.get(status="consumed").payload


def test_files_and_other_bodies_reach_the_view_unread(erin, bob) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    def send() -> Any:
        return erin.post("/upload/", {"file": SimpleUploadedFile("a.csv", b"1;2")})

    approve(send(), bob)
    assert send().status_code == 200
    approve(erin.generic("PUT", "/upload/", b"raw\xff", content_type="text/csv"), bob)
    assert erin.generic("PUT", "/upload/", b"raw", content_type="text/csv").status_code == 403
    assert erin.generic("PUT", "/upload/", b"raw\xff", content_type="text/csv").status_code == 200
    assert RAN == [b"1;2", b"raw\xff"]


def test_by_policy_only_what_a_policy_names_is_held(erin, bob) -> None:
    assert erin.post("/open/").status_code == 200
    factories.policy(actions="open_unless_named.*")
    assert erin.post("/open/").json()["code"] == "approval_pending"
    assert RAN == ["open"]


def test_a_functions_object_is_shown_and_must_not_change(erin, bob) -> None:
    customer = Customer.objects.create(name="Ada")
    url = f"/freeze/{customer.pk}/"
    row = approve(erin.post(url), bob)
    assert (row.object_pk, row.context) == (
        str(customer.pk),
        {"asked by": "erin", "name": "Ada"},
    )
    Customer.objects.update(name="Eve")
    assert erin.post(url).status_code == 412
    assert RAN == []


def test_a_class_is_gated_after_its_mixins_and_shows_its_object(erin, bob) -> None:
    customer = Customer.objects.create(name="Ada")
    url = f"/erase/{customer.pk}/"
    assert erin.post(url).status_code == 403
    assert not ApprovalRequest.objects.exists()  # not permitted: nobody is asked
    from django.contrib.auth.models import Permission, User

    permission = Permission.objects.get(codename="delete_customer")
    User.objects.get(username="erin").user_permissions.add(permission)
    assert erin.post("/erase/999999/").status_code == 404
    row = approve(erin.post(url), bob)
    assert (row.action, row.object_label) == ("erase.post", str(customer))
    assert row.context == {"who": "erin", "name": "Ada"}
    assert erin.post(url).status_code == 302
    assert not Customer.objects.exists()


def test_a_class_that_descends_from_a_gated_one_is_gated(erin, bob) -> None:
    approve(erin.post("/inherits/"), bob)
    assert RAN == []
    assert erin.post("/inherits/").status_code == 200
    assert RAN == ["inherits"]


def test_a_dispatch_of_the_projects_own_is_gated_as_a_whole(erin, bob) -> None:
    approve(erin.post("/dispatch/"), bob)
    assert RAN == []
    assert erin.post("/dispatch/").status_code == 200
    assert erin.post("/dispatch/").status_code == 403
    assert RAN == ["dispatch"]


def test_a_view_that_answers_methods_it_has_no_handler_for_is_gated_as_a_whole(erin, bob) -> None:
    approve(erin.post("/anything/"), bob)
    assert RAN == []
    assert erin.post("/anything/").status_code == 200
    assert erin.generic("PURGE", "/anything/").status_code == 405
    assert RAN == ["anything"]


@pytest.mark.parametrize("multipart", [False, True])
def test_the_server_may_run_a_plain_view_with_the_session_it_came_with(
    bob, settings, multipart
) -> None:
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    factories.policy(actions="close_year.post", execution="server")
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.user())
    client.cookies["csrftoken"] = token = "t" * 32
    data = {"note": "a", "csrfmiddlewaretoken": token}
    how = {} if multipart else {"content_type": "application/x-www-form-urlencoded"}
    body: Any = data if multipart else urlencode(data)
    held = client.post("/close/2026/", body, headers={"Accept": "text/html"}, **how)
    assert b"do not send it again" in held.content
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    assert running.run(row.pk)
    assert RAN == [("POST", 2026, "a")]
    row.refresh_from_db()
    assert (row.status, row.outcome) == (Status.CONSUMED, Outcome.SUCCEEDED)
    assert client.post("/close/2026/", body, **how).json()["code"] == "approval_consumed"
    assert len(RAN) == 1


def test_the_server_runs_nothing_once_the_session_is_over(bob, settings) -> None:
    settings.JIT_APPROVAL = {"SECRET_KEYS": ["k" * 40]}
    factories.policy(actions="close_year.post", execution="server")
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.user())
    client.cookies["csrftoken"] = token = "t" * 32
    client.post("/close/2026/", {"csrfmiddlewaretoken": token})
    row = services.approve(ApprovalRequest.objects.get(), by=bob)
    client.logout()
    assert not running.run(row.pk)
    row.refresh_from_db()
    assert (RAN, row.status) == ([], Status.REVOKED)


def test_a_browser_is_shown_a_page(erin) -> None:
    answer = erin.post("/close/2026/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert ApprovalRequest.objects.get().match_code in answer.content.decode()


@pytest.mark.parametrize("atomic", [True, False])
def test_atomic_requests_are_respected(erin, bob, settings, atomic) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "jit_approval.middleware.GateBeforeTransaction",
    ][: len(settings.MIDDLEWARE) + atomic]
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    for callback in (close_year,):
        for name in ("_non_atomic_requests", "_jit_approval_atomic"):
            vars(callback).pop(name, None)
    try:
        client = Client()
        client.force_login(factories.user())
        held = client.post("/close/2026/")
        if not atomic:
            assert (held.status_code, held.json()["code"]) == (503, "gate_unavailable")
            return
        approve(held, bob)
        assert client.post("/close/2026/").status_code == 201
        assert ApprovalRequest.objects.get().status == Status.CONSUMED
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
        for name in ("_non_atomic_requests", "_jit_approval_atomic"):
            vars(close_year).pop(name, None)


async def _async_view(request: Any) -> HttpResponse:
    return HttpResponse()


class _Api(APIView):
    pass


class _AsyncClass(View):
    async def post(self, request: Any) -> HttpResponse:
        return HttpResponse()


@pytest.mark.parametrize("view", [_async_view, _Api, _Api.as_view(), _AsyncClass, type, "name"])
def test_what_cannot_be_gated_is_refused_where_it_is_written(view: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        requires_approval(view)


def test_the_inventory_lists_gated_plain_views() -> None:
    from jit_approval.inventory import actions

    found = {name for name in actions.known()}
    assert {"close_year.post", "reports.export", "erase.post"} <= found


def test_the_system_checks_find_nothing_wrong_with_gated_plain_views() -> None:
    from django.core.checks import run_checks

    found = [each for each in run_checks() if str(each.id).startswith("jit_approval")]
    assert found == []


def test_the_system_checks_look_at_gated_plain_views(settings) -> None:
    from django.core.checks import run_checks

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert any("GateBeforeTransaction" in f"{each.msg} {each.hint}" for each in run_checks())
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

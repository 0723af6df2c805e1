"""DRF asks "what if" in many places: none of them opens, spends or runs anything."""

from __future__ import annotations

import pytest
from rest_framework.request import Request
from rest_framework.schemas.openapi import SchemaGenerator
from rest_framework.test import APIClient, APIRequestFactory

from jit_approval import services
from jit_approval.models import ApprovalRequest, AuditEvent
from tests import factories
from tests.testapp import odd_urls
from tests.testapp.models import Customer
from tests.testapp.odd_views import RAN, CustomerActions, Gated

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.testapp.odd_urls")]

FORMATS = ["application/json", "text/html"]


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()


@pytest.fixture
def erin():
    client = APIClient(raise_request_exception=False)
    client.force_login(factories.user("erin"))
    return client


@pytest.fixture
def customer():
    return Customer.objects.create(name="Ada")


@pytest.fixture
def _grants(erin, customer):
    """A usable grant for every unsafe method that the pages show a form for."""
    bob = factories.decider("bob")
    body = {"name": "Ada", "email": "", "balance": "0.00"}
    for held in (
        erin.post("/gated/"),
        erin.post("/customers/", body),
        erin.put(f"/customers/{customer.pk}/", body),
        erin.delete(f"/customers/{customer.pk}/"),
        erin.get("/export/"),
    ):
        services.approve(ApprovalRequest.objects.get(pk=held["Approval-Id"]), by=bob)


@pytest.fixture
def _untouched(_grants):
    """Fails a test after which a grant is spent, a request opened, an event written or a handler run."""
    yield
    assert RAN == []
    assert ApprovalRequest.objects.usable().count() == ApprovalRequest.objects.count() == 5
    assert AuditEvent.objects.count() == 10


pytestmark.append(pytest.mark.usefixtures("_untouched"))


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("query", ["", "?format=admin"])
def test_a_page_with_forms_spends_nothing(erin, customer, accept, query):
    for path in ("/gated/", "/customers/", f"/customers/{customer.pk}/"):
        answer = erin.get(path + query, headers={} if query else {"Accept": accept})
        assert answer.status_code == 200
    if accept == "text/html":
        assert b"<form" in answer.content


@pytest.mark.parametrize("accept", FORMATS)
def test_options_spends_nothing(erin, customer, accept):
    for path in ("/gated/", "/customers/", f"/customers/{customer.pk}/", "/export/"):
        assert erin.options(path, headers={"Accept": accept}).status_code == 200
    answer = erin.options(f"/customers/{customer.pk}/").json()
    assert "PUT" in answer["actions"]


def test_head_spends_nothing(erin, customer):
    for path in ("/gated/", "/customers/", f"/customers/{customer.pk}/"):
        assert erin.head(path).status_code == 200


@pytest.mark.parametrize("public", [True, False])
def test_schema_generation_spends_nothing(erin, public):
    urls = [
        one
        for one in odd_urls.urlpatterns
        if str(one.pattern) in ("gated/", "customers/", "export/")
    ]
    request = APIRequestFactory().get("/")
    request.user = ApprovalRequest.objects.first().requester
    generator = SchemaGenerator(title="t", patterns=urls)
    generator._initialise_endpoints()
    asked = Request(request)
    asked.user = request.user
    _, endpoints = generator._get_paths_and_endpoints(None if public else asked)
    shown = {
        (method, path): generator.has_view_permissions(path, method, view)
        for path, method, view in endpoints
    }
    assert shown["POST", "/gated/"]
    assert shown["GET", "/gated/"]


def test_a_write_probe_that_turns_out_to_be_a_call_runs_nothing(erin):
    answer = erin.post("/withoutheaders/")
    assert (answer.status_code, answer.json()["executed"]) == (503, False)


def test_an_action_called_by_its_name_after_a_probe_runs_nothing(customer):
    """As a schema generator makes a view: never dispatched."""
    request = Request(APIRequestFactory().delete("/"))
    request.user = ApprovalRequest.objects.first().requester
    view = CustomerActions(**{"basename": "customers"})
    view.action_map, view.action, view.args = {"delete": "destroy"}, "destroy", ()
    view.kwargs, view.request, view.format_kwarg = {"pk": customer.pk}, request, None
    view.delete = view.destroy
    view.check_permissions(request)
    for name in ("delete", "destroy"):
        with pytest.raises(Exception, match="has not let this call through"):
            getattr(view, name)(request, pk=customer.pk)


def test_a_get_probe_is_answered_no(customer):
    """AdminRenderer runs `view.get()` on a yes."""
    request = Request(APIRequestFactory().get("/"))
    request.user = ApprovalRequest.objects.first().requester
    view = Gated()
    view.approval_methods = ["GET"]
    permission = view.get_permissions()[-1]
    assert permission.has_permission(request, view) is False


def test_an_invalid_form_on_the_admin_page_does_not_run_a_gated_get(erin):
    answer = erin.post("/export/?format=admin", {"a": 1})
    assert answer.status_code == 400


def test_not_even_where_the_view_denies_nothing(erin):
    assert erin.post("/deniesnoexport/?format=admin", {"a": 1}).status_code in (400, 500)

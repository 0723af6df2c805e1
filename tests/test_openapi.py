"""Schemas of gated APIs: valid, as the API answers, opening nothing; and a generated client drives the flow."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.wsgi import get_wsgi_application
from django.urls import include, path
from rest_framework import generics, permissions

pytest.importorskip("drf_spectacular")

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from jit_approval import services
from jit_approval.decorators import requires_approval
from jit_approval.models import ApprovalRequest, AuditEvent
from jit_approval.openapi import schemas
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from jit_approval.states import Effect
from tests import factories
from tests.callers import Caller, token_of
from tests.testapp.models import Customer
from tests.testapp.views import RUNS, CustomerSerializer, CustomerViewSet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


class ByPolicy(generics.CreateAPIView):
    serializer_class = CustomerSerializer
    permission_classes = (permissions.IsAuthenticated, RequiresApprovalByPolicy)


class NeedsARequest(generics.CreateAPIView):
    serializer_class = CustomerSerializer

    def get_permissions(self) -> list[Any]:
        return [RequiresApproval()] if self.request.user.pk else []


@requires_approval
def plain(request: Any) -> Any: ...


urlpatterns = [
    path("approvals/", include("jit_approval.urls")),
    path("customers/", CustomerViewSet.as_view({"get": "list", "post": "create"})),
    path("customers/<int:pk>/", CustomerViewSet.as_view({"delete": "destroy", "get": "retrieve"})),
    path("by-policy/", ByPolicy.as_view()),
    path("needs-a-request/", NeedsARequest.as_view()),
    path("plain/", plain),
]


@pytest.fixture(autouse=True)
def _spectacular(settings: Any) -> None:
    RUNS.clear()
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_SCHEMA_CLASS": "jit_approval.openapi.AutoSchema",
    }


def schema(version: str = "3.0.3", *, public: bool = True, request: Any = None) -> dict[str, Any]:
    before = spectacular_settings.OAS_VERSION
    spectacular_settings.OAS_VERSION = version
    try:
        made: dict[str, Any] = SchemaGenerator().get_schema(request=request, public=public)
    finally:
        spectacular_settings.OAS_VERSION = before
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_the_schema_is_valid_and_drf_spectacular_has_nothing_to_say(version, capfd) -> None:
    made = schema(version)
    validate(made)
    validate_schema(made)
    told = [
        line
        for line in capfd.readouterr().err.splitlines()
        if ("Warning" in line or "Error" in line) and "NeedsARequest" not in line
    ]
    assert told == []


def test_gated_operations_say_what_the_gate_answers() -> None:
    factories.policy(actions="customer.*", slug="customers", required_approvals=2)
    factories.policy(actions="customer.destroy", effect=Effect.OBSERVE)
    operation = schema()["paths"]["/customers/{id}/"]["delete"]
    headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
    assert headers == {
        "Approval-Id",
        "Approval-Reason",
        "Approval-Agent",
        "Idempotency-Key",
        "Prefer",
    }
    answers = operation["responses"]
    assert {"202", "204", "400", "403", "412", "422", "429", "503"} <= set(answers)
    problem = {"$ref": "#/components/schemas/ApprovalProblem"}
    assert answers["403"]["content"]["application/problem+json"]["schema"] == problem
    assert {"Approval-Id", "Location", "Retry-After"} <= set(answers["403"]["headers"])
    assert "Approval-Status" in answers["204"]["headers"]
    about = operation["x-approval-policy"]
    assert (about["action"], about["gate"]) == ("customer.destroy", "always")
    assert [each["policy"] for each in about["policies"]] == ["customers"]
    assert about["policies"][0]["approvals_required"] == 2
    assert about["otherwise"]["decide_within"] == 900


def test_what_is_not_gated_is_left_alone() -> None:
    paths = schema()["paths"]
    for operation in (paths["/customers/"]["get"], paths["/customers/{id}/"]["get"]):
        assert "x-approval-policy" not in operation
        assert set(operation["responses"]) == {"200"}
    assert "/plain/" not in paths  # of Django, not of the API


def test_a_gate_by_policy_is_documented_though_no_policy_names_the_call_yet() -> None:
    about = schema()["paths"]["/by-policy/"]["post"]["x-approval-policy"]
    assert (about["gate"], about["policies"], about["otherwise"]) == ("by_policy", [], None)


def test_a_condition_is_nobodys_business() -> None:
    pytest.importorskip("cel_expr_python")
    factories.policy(actions="customer.*", condition='request.data.name == "s3cret"')
    made = schema()
    assert "s3cret" not in json.dumps(made)
    about = made["paths"]["/customers/"]["post"]["x-approval-policy"]
    assert about["policies"][0]["conditional"] is True


@pytest.mark.parametrize("public", [True, False])
def test_making_a_schema_opens_nothing_and_runs_nothing(public: bool) -> None:
    from rest_framework.request import Request
    from rest_framework.test import APIRequestFactory, force_authenticate

    factories.decider()
    http = APIRequestFactory().get("/schema/")
    force_authenticate(http, factories.user())
    request = Request(http)
    request.user = factories.user()
    made = schema(public=public, request=request)
    assert "post" in made["paths"]["/customers/"]
    assert (ApprovalRequest.objects.count(), AuditEvent.objects.count(), RUNS) == (0, 0, [])


def valid(name: str, value: Any) -> None:
    before = spectacular_settings.OAS_VERSION
    spectacular_settings.OAS_VERSION = "3.1.0"
    try:
        components = schemas.all_of_them()
    finally:
        spectacular_settings.OAS_VERSION = before
    for one in components.values():
        one["additionalProperties"] = False
    root = {"components": {"schemas": components}, "$ref": f"#/components/schemas/{name}"}
    Draft202012Validator(root).validate(value)


def test_what_the_api_answers_is_what_the_schema_says() -> None:
    caller = Caller()
    customer = Customer.objects.create(name="Ada")
    held = caller.send(f"/customers/{customer.pk}/", method="DELETE")
    valid("ApprovalProblem", held.json())
    row = caller.row(held)
    url = f"/approvals/{row.pk}/"
    valid("ApprovalRequest", caller.client.get(url).json())
    services.approve(row, by=caller.bob, comment="yes")
    valid("ApprovalRequest", caller.client.get(url).json())
    valid("ApprovalRequestPage", caller.client.get("/approvals/").json() | {"results": []})
    named = {"HTTP_APPROVAL_ID": str(row.pk)}
    Customer.objects.update(name="Eve")
    valid("ApprovalProblem", caller.send(f"/customers/{customer.pk}/", method="DELETE").json())
    for answer in (
        caller.send("/customers/", b'{"name": "x"}', **named),
        caller.client.get("/approvals/nonsense/"),
        caller.client.post(f"{url}approve/"),
    ):
        valid("ApprovalProblem", answer.json())


# --- a generated client ------------------------------------------------------------------------------------


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: Any) -> Any:
    """What openapi-python-client makes of the schema, as a package that can be imported."""
    pytest.importorskip("openapi_python_client")
    made = schema()
    made["info"] = {"title": "Back office", "version": "1"}
    (tmp_path / "schema.json").write_text(json.dumps(made))
    (tmp_path / "config.yml").write_text(
        "post_hooks: []\npackage_name_override: generated_office\n"
    )
    command = ["generate", "--path", "schema.json", "--config", "config.yml", "--meta", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--fail-on-warning"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: importlib.import_module(f"generated_office.{name}")


@pytest.mark.slow
def test_a_generated_client_drives_the_whole_flow(generated: Any) -> None:
    def client_of(user: Any) -> Any:
        client = generated("client").Client(base_url="http://testserver")
        return client.set_httpx_client(
            httpx.Client(
                transport=httpx.WSGITransport(app=get_wsgi_application()),
                base_url="http://testserver",
                headers={"Authorization": token_of(user)},
            )
        )

    bob, erin = client_of(factories.decider()), client_of(factories.user())
    create = generated("api.customers.customers_create")
    customer = generated("models").Customer(id=0, name="Ada")
    retrieve = generated("api.approvals.approvals_retrieve")
    approve = generated("api.approvals.approvals_approve")

    held = create.sync_detailed(client=erin, body=customer, approval_reason="a new customer")
    assert (held.status_code, held.parsed.code) == (403, "approval_pending")
    pk = str(held.parsed.approval_id)
    seen = retrieve.sync(pk, client=erin)
    assert (seen.next_, seen.reason) == ("wait", "a new customer")
    comment = generated("models").ApprovalComment(comment="yes")
    assert approve.sync(pk, client=bob, body=comment).status == "approved"
    assert retrieve.sync(pk, client=erin).next_ == "repeat_call"
    ran = create.sync_detailed(client=erin, body=customer, approval_id=pk)
    assert (ran.status_code, ran.parsed.name) == (201, "Ada")
    assert RUNS == [("create", "Ada")]

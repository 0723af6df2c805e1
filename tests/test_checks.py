"""System checks: each has a case that triggers it and one that leaves it quiet."""

from __future__ import annotations

import functools
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.checks import run_checks
from django.db import connection, connections, transaction
from django.test import override_settings
from django.urls import include, path, re_path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from guardian.admin import GuardedModelAdmin
from guardian.shortcuts import assign_perm
from rest_framework import generics, viewsets
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.views import APIView

from jit_approval.admin import ApprovalPolicyAdmin
from jit_approval.audit import keys
from jit_approval.conditions import library
from jit_approval.middleware import GateBeforeTransaction
from jit_approval.models import ApprovalPolicy, Delegation, PolicyUserPermission
from jit_approval.notifications.channels import webhook
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from tests import factories
from tests.testapp.models import Customer
from tests.testapp.views import CustomerSerializer, CustomerViewSet

GATE = (IsAuthenticated, RequiresApproval)
MIDDLEWARE = "jit_approval.middleware.GateBeforeTransaction"


class OwnMiddleware(GateBeforeTransaction):
    """A project's subclass."""


class Plain(APIView):
    permission_classes = GATE

    def get(self, request, **kwargs):
        return Response()

    def post(self, request, **kwargs):
        return Response()


class Generic(generics.RetrieveUpdateDestroyAPIView):
    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    permission_classes = GATE


class Viewset(viewsets.ModelViewSet):
    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    permission_classes = GATE
    approval_methods = None


def found(*patterns: Any, deploy: bool = False, **settings: Any) -> list[str]:
    """The ids of our findings, on these URL patterns if any are given."""
    if patterns:
        urlconf = ModuleType("urls_of_a_test")
        urlconf.urlpatterns = list(patterns)
        settings["ROOT_URLCONF"] = urlconf
    with override_settings(**settings):
        messages = run_checks(tags=["jit_approval"], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return [message.id.removeprefix("jit_approval.") for message in messages]


def routed(viewset: type, **kwargs: Any) -> Any:
    router = DefaultRouter()
    router.register("customers", viewset, **kwargs)
    return path("api/", include(router.urls))


def view(base: type = Plain, **attributes: Any) -> Any:
    """A class like `base` but for these attributes."""
    return type(base.__name__, (base,), {"__module__": __name__, **attributes})


@pytest.fixture
def atomic(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


# --- quiet -----------------------------------------------------------------------------------------------


def test_the_test_project_is_found_in_order():
    assert found() == []


@pytest.mark.parametrize("atomic_requests", ["0", "1"])
def test_the_example_project_is_found_in_order(atomic_requests):
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--tag", "jit_approval", "--fail-level", "WARNING"],
        cwd=root,
        env={
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "EXAMPLE_SECRET_KEY": "x" * 60,
            "EXAMPLE_ATOMIC_REQUESTS": atomic_requests,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_checks_ask_the_database_nothing(django_assert_num_queries, db):
    with django_assert_num_queries(0):
        found(deploy=True)


def test_a_project_without_a_urlconf_is_checked_all_the_same():
    assert found(ROOT_URLCONF=None, USE_TZ=False) == ["E008"]


# --- E001: composed --------------------------------------------------------------------------------------

COMPOSED = {
    "and": IsAuthenticated & RequiresApproval,
    "or": IsAdminUser | RequiresApproval,
    "not": ~RequiresApproval,
    "deep": IsAuthenticated & (IsAdminUser | ~RequiresApprovalByPolicy),
}
or_gate = COMPOSED["or"]


@pytest.mark.parametrize("holder", COMPOSED.values(), ids=COMPOSED)
def test_a_composed_gate_is_an_error(holder):
    composed = view(permission_classes=[holder])
    assert found(path("x/", composed.as_view())) == ["E001"]


def test_a_composed_gate_is_found_wherever_the_view_hides():
    @api_view(["POST"])
    @permission_classes([or_gate])
    def function(request):
        return Response()

    class Extra(Viewset):
        permission_classes = (IsAuthenticated,)

        @action(detail=True, methods=["post"], permission_classes=[or_gate])
        def freeze(self, request, pk=None):
            return Response()

    composed = view(permission_classes=[or_gate])
    by_keyword = Plain.as_view(permission_classes=[or_gate])
    nested = path("a/", include([path("b/", include([path("c/", composed.as_view())]))]))
    assert found(path("x/", function)) == ["E001"]
    assert found(path("x/", by_keyword)) == ["E001"]
    assert found(path("x/", never_cache(by_keyword))) == ["E001"]
    assert found(path("x/", functools.partial(by_keyword))) == ["E001"]
    assert found(nested) == ["E001"]
    assert found(routed(Extra)) == ["E001"]


def test_a_finding_is_made_once_however_many_routes_lead_to_it():
    composed = view(Viewset, permission_classes=[or_gate])
    assert found(routed(composed)) == ["E001"]


def test_a_composed_default_is_an_error():
    defaults = {"DEFAULT_PERMISSION_CLASSES": ["tests.test_checks.or_gate"]}
    assert found(path("x/", Plain.as_view()), REST_FRAMEWORK=defaults) == ["E001"]


def test_a_gate_by_itself_beside_composed_others_is_right():
    fine = view(permission_classes=[IsAdminUser | IsAuthenticated, RequiresApproval])
    defaults = {"DEFAULT_PERMISSION_CLASSES": ["jit_approval.permissions.RequiresApprovalByPolicy"]}
    assert found(path("x/", fine.as_view()), REST_FRAMEWORK=defaults) == []


# --- E002, E003: what a view says ------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["POST", ["POTS"], ["OPTIONS"], [5], 5, ["POST", "TRACE"]])
def test_approval_methods_are_a_list_of_methods_that_can_be_gated(value):
    assert found(path("x/", view(approval_methods=value).as_view())) == ["E002"]


@pytest.mark.parametrize("value", [None, [], ["post"], ("GET", "DELETE"), {"PATCH"}])
def test_approval_methods_that_can_be_gated_are_right(value):
    assert found(path("x/", view(approval_methods=value).as_view())) == []


def test_the_approval_methods_of_an_action_are_looked_at():
    class Extra(Viewset):
        @action(detail=True, methods=["get"], approval_methods=["EXPORT"])
        def export(self, request, pk=None):
            return Response()

    assert found(routed(Extra)) == ["E002"]


def test_approval_action_does_not_name_a_whole_viewset():
    assert found(routed(view(Viewset, approval_action="customers.touch"))) == ["E003"]


def test_approval_action_names_a_view_or_one_action():
    class Extra(Viewset):
        approval_action = None

        @action(detail=True, methods=["post"], approval_action="customers.freeze")
        def freeze(self, request, pk=None):
            return Response()

    named = view(approval_action="caches.purge").as_view()
    assert found(path("x/", named), routed(Extra)) == []


# --- E004: async -----------------------------------------------------------------------------------------


async def _async_handler(self, request, **kwargs):
    return Response()


class Async(APIView):
    permission_classes = GATE
    get = _async_handler
    post = _async_handler


def test_a_gated_async_handler_is_an_error():
    @api_view(["POST"])
    @permission_classes(GATE)
    async def function(request):
        return Response()

    assert found(path("x/", Async.as_view())) == ["E004"]
    assert found(routed(view(Viewset, create=_async_handler))) == ["E004"]
    assert found(path("x/", function)) == ["E004"]


def test_an_async_handler_that_is_not_gated_is_none_of_our_business():
    open_view = view(Async, permission_classes=[IsAuthenticated])
    assert found(path("x/", open_view.as_view())) == []
    assert found(path("x/", view(Async, approval_methods=[]).as_view())) == []
    assert found(path("x/", view(Async, http_method_names=["get"]).as_view())) == []


# --- E005, E006: ATOMIC_REQUESTS -------------------------------------------------------------------------


def get_permissions(self):
    return [IsAuthenticated(), RequiresApproval()]


def get_other_permissions(self):
    return [IsAuthenticated()]


def test_a_gated_view_in_a_transaction_needs_the_middleware(atomic):
    assert found(path("x/", Plain.as_view()), routed(Viewset)) == ["E005"]


@pytest.mark.parametrize("listed", [MIDDLEWARE, "tests.test_checks.OwnMiddleware"])
def test_a_gated_view_in_a_transaction_is_right_with_the_middleware(atomic, listed):
    assert found(path("x/", Plain.as_view()), MIDDLEWARE=[listed]) == []


def test_nothing_needs_the_middleware_without_atomic_requests():
    assert found(path("x/", Plain.as_view())) == []


def test_a_view_that_is_not_gated_or_not_atomic_needs_no_middleware(atomic):
    spared = transaction.non_atomic_requests(Plain.as_view())
    reads = view(http_method_names=["get", "head"])
    other = view(permission_classes=[IsAuthenticated])
    assert found(path("a/", spared), path("b/", reads.as_view()), path("c/", other.as_view())) == []


@pytest.mark.parametrize("listed", [GATE, (IsAuthenticated,)])
def test_under_atomic_requests_a_gated_view_does_not_override_get_permissions(atomic, listed):
    own = view(get_permissions=get_permissions, permission_classes=listed)
    assert found(path("x/", own.as_view()), MIDDLEWARE=[MIDDLEWARE]) == ["E006"]


def test_overriding_get_permissions_is_right_elsewhere(atomic, monkeypatch):
    ungated = view(get_permissions=get_other_permissions, permission_classes=[IsAuthenticated])
    assert found(path("x/", ungated.as_view()), MIDDLEWARE=[MIDDLEWARE]) == []
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", False)
    assert found(path("x/", view(get_permissions=get_permissions).as_view())) == []


# --- E007: the object ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        path("x/<int:id>/", Generic.as_view()),
        path("x/", Generic.as_view()),
        path("x/<int:pk>/", view(Generic, queryset=None).as_view()),
        path("x/<int:pk>/", view(Generic, lookup_url_kwarg="number").as_view()),
        path("x/<slug:slug>/", view(Generic, lookup_field="slug").as_view()),
        path("x/<int:id>/", Viewset.as_view({"delete": "destroy"})),
        path("x/<int:id>/", Viewset.as_view({"patch": "partial_update"})),
    ],
)
def test_the_object_of_a_gated_detail_route_can_be_loaded(pattern):
    assert found(pattern) == ["E007"]


def own_queryset(self):
    return Customer.objects.filter(balance__gt=0)


def own_object(self):
    return Customer.objects.first()


def own_destroy(self, request, **kwargs):
    return Response()


@pytest.mark.parametrize(
    "pattern",
    [
        path("x/<int:pk>/", Generic.as_view()),
        re_path(r"^x/(?P<pk>\d+)/$", Generic.as_view()),
        path("x/", Generic.as_view(), {"pk": 1}),
        path("x/<int:pk>/", include([path("y/", Generic.as_view())])),
        path("x/<int:id>/", view(Generic, lookup_url_kwarg="id").as_view()),
        path("x/<int:id>/", view(Generic, lookup_field="id").as_view()),
        path("x/<str:name>/", view(Generic, lookup_field="name").as_view()),
        path("x/<int:pk>/", view(Generic, queryset=None, get_queryset=own_queryset).as_view()),
        path("x/", view(Generic, queryset=None, get_object=own_object).as_view()),
        path("x/<int:id>/", view(Generic, permission_classes=[IsAuthenticated]).as_view()),
        path("x/<int:owner>/", Viewset.as_view({"post": "create", "get": "list"})),
        path("x/<int:n>/", view(Viewset, destroy=own_destroy).as_view({"delete": "destroy"})),
        routed(Viewset),
    ],
)
def test_a_route_whose_object_can_be_loaded_or_that_has_none_is_right(pattern):
    assert found(pattern) == []


# --- W003: ways of its own ----------------------------------------------------------------------------------


def own_dispatch(self, request, *args, **kwargs):
    return self.post(request)


def own_check_permissions(self, request):
    return None


@pytest.mark.parametrize("name", ["dispatch", "check_permissions"])
def test_a_gated_view_with_ways_of_its_own_is_warned_of(name):
    own = {"dispatch": own_dispatch, "check_permissions": own_check_permissions}[name]
    assert found(path("x/", view(**{name: own}).as_view())) == ["W003"]
    harmless = view(permission_classes=(), **{name: own})
    assert found(path("x/", harmless.as_view())) == []


def test_a_decorated_dispatch_is_the_stock_one():
    decorated = method_decorator(never_cache, name="dispatch")(type("Decorated", (Plain,), {}))
    assert found(path("x/", decorated.as_view())) == []


# --- E008, E009, E010, W002: settings --------------------------------------------------------------------


def test_local_time_is_an_error():
    assert found(USE_TZ=False) == ["E008"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"DECIDE_WITHIM": 5},
        {"DECIDE_WITHIN": "soon"},
        {"USABLE_WITHIN": 0},
        {"DECIDE_WITHIN": 10**8},
        {"REQUIRED_APPROVALS": 0},
        {"REQUIRED_APPROVALS": True},
        {"OPENINGS_PER_REQUESTER": "many"},
        {"REDACT_KEYS": "pin"},
    ],
)
def test_malformed_settings_are_an_error(value):
    assert found(JIT_APPROVAL=value) == ["E009"]
    assert found(JIT_APPROVAL=value, deploy=True) == ["E009"]


not_callable = 5
SECRET = webhook.make_secret()


def persons(request):
    return []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_JSON_DEPTH", 100_000),
        ("RUN_LIMIT", 0),
        ("FINGERPRINT_KEY", "short"),
        ("AUDIT_WEBHOOK_URL", "https://siem.example.com/trail"),
        ("AUDIT_WEBHOOK_SECRETS", ["garbage"]),
        ("AUDIT_WEBHOOK_SECRETS", [SECRET, "whsec_c2hvcnQ="]),
        ("AUDIT_EXPORT_DIR", "trail"),
        ("BASE_URL", "backoffice.example"),
        ("BASE_URL", "javascript://x/"),
        ("BASE_URL", "https://[x"),
        ("PERSON_KEY", ""),
        ("PERSON_KEY", "employee"),
        ("PERSON_KEY", "groups"),
        ("PERSON_KEY", "email__domain"),
        ("REQUEST_PERSONS", "tests.nowhere.persons"),
        ("REQUEST_PERSONS", "persons"),
        ("REQUEST_PERSONS", "tests.test_checks.not_callable"),
    ],
)
def test_unsafe_settings_are_an_error(name, value):
    assert found(JIT_APPROVAL={name: value}) == ["E010"]


@pytest.mark.parametrize(
    "url",
    ["nonsense", "http://siem.example.com/trail", "https://10.0.0.1/x", "https://u:p@a.example/"],
)
def test_a_trail_that_would_be_sent_nowhere_is_an_error(url):
    values = {"AUDIT_WEBHOOK_URL": url, "AUDIT_WEBHOOK_SECRETS": [SECRET]}
    assert found(JIT_APPROVAL=values) == ["E010"]
    values["AUDIT_WEBHOOK_URL"] = "https://siem.example.com/trail"
    assert found(JIT_APPROVAL=values) == []


def test_a_key_that_cannot_be_used_is_told(tmp_path):
    path = tmp_path / "trail.key"
    assert found(JIT_APPROVAL={"AUDIT_KEY_FILE": str(path)}) == ["W032"]
    keys.generate("approvals.example/trail", path)
    assert found(JIT_APPROVAL={"AUDIT_KEY_FILE": str(path)}) == []
    path.chmod(0o644)
    assert found(JIT_APPROVAL={"AUDIT_KEY_FILE": str(path)}) == ["W032"]


def test_a_directory_that_is_not_there_to_be_exported_to_is_told(tmp_path):
    assert found(JIT_APPROVAL={"AUDIT_EXPORT_DIR": str(tmp_path / "trail")}) == ["W033"]
    (tmp_path / "trail").mkdir()
    assert found(JIT_APPROVAL={"AUDIT_EXPORT_DIR": str(tmp_path / "trail")}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_JSON_DEPTH", 200),
        ("FINGERPRINT_KEY", "k" * 16),
        ("BASE_URL", "http://127.0.0.1:8000"),
        ("BASE_URL", "https://backoffice.example/approvals-at-work/"),
        ("PERSON_KEY", "pk"),
        ("PERSON_KEY", "email"),
        ("REQUEST_PERSONS", "tests.test_checks.persons"),
    ],
)
def test_safe_settings_are_right(name, value):
    assert found(JIT_APPROVAL={name: value}) == []


@pytest.mark.parametrize(
    ("path_to_person", "findings"),
    [
        ("owner__name", []),
        ("owner__pk", []),
        ("owner_id", []),
        ("owner", ["E010"]),
        ("owner__accounts", ["E010"]),
        ("owner_id__name", ["E010"]),
    ],
)
def test_a_person_key_ends_in_a_plain_field(path_to_person, findings):
    settings = {
        "AUTH_USER_MODEL": "testapp.Account",
        "JIT_APPROVAL": {"PERSON_KEY": path_to_person},
    }
    assert [one for one in found(**settings) if one != "E013"] == findings


def test_messages_without_links_are_warned_of_in_deployment_only():
    assert found(deploy=True) == ["W002"]
    assert found() == []
    assert found(deploy=True, JIT_APPROVAL={"BASE_URL": "https://x.example"}) == []


# --- E011, E012, E013, E015, W001: databases --------------------------------------------------------------


def test_a_database_of_another_kind_is_an_error(monkeypatch):
    monkeypatch.setattr(connection, "vendor", "oracle")
    assert found() == ["E011"]


@pytest.mark.parametrize(
    ("options", "findings"),
    [
        ({}, ["W001"]),
        ({"transaction_mode": None}, ["W001"]),
        ({"transaction_mode": "DEFERRED"}, ["W001"]),
        ({"transaction_mode": "immediate"}, []),
        ({"transaction_mode": "EXCLUSIVE"}, []),
    ],
)
def test_sqlite_is_used_with_immediate_transactions(monkeypatch, options, findings):
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert found() == findings


class Router:
    """Sends what a test names to another database."""

    def __init__(self, *labels: str) -> None:
        self.labels = labels

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model._meta.app_label in self.labels else None


@pytest.mark.parametrize("label", ["auth", "contenttypes"])
def test_what_is_read_together_lives_in_one_database(label):
    assert found(DATABASE_ROUTERS=[Router(label)]) == ["E012"]


def test_other_apps_may_live_anywhere():
    assert found(DATABASE_ROUTERS=[Router("testapp")]) == []


@pytest.mark.parametrize(
    ("vendor", "zone", "findings"),
    [
        ("mysql", "Europe/Berlin", ["E015"]),
        ("sqlite", "America/New_York", ["E015"]),
        ("postgresql", "Europe/Berlin", []),
        ("mysql", "UTC", []),
        ("mysql", None, []),
    ],
)
def test_a_database_that_keeps_local_times_is_an_error(monkeypatch, vendor, zone, findings):
    monkeypatch.setattr(connection, "vendor", vendor)
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"transaction_mode": "IMMEDIATE"})
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", zone)
    assert found() == findings


def test_a_user_model_without_permissions_is_an_error():
    assert found(AUTH_USER_MODEL="testapp.Customer") == ["E013"]


def test_the_stock_viewset_of_the_tests_is_gated():
    # If it were not, half of the quiet cases above would prove nothing.
    assert RequiresApproval in CustomerViewSet.permission_classes


# --- the policies that are stored --------------------------------------------------------------------------


def stored(*databases: str, **settings: Any) -> dict[str, str]:
    """Our findings with `check --database …`, by id."""
    with override_settings(**settings):
        messages = run_checks(
            tags=["jit_approval", "jit_approval_policies"], databases=list(databases or ["default"])
        )
    assert all(message.hint for message in messages)
    return {message.id.removeprefix("jit_approval."): message.msg for message in messages}


def outnumbered(**fields: Any) -> Any:
    """An enabled policy that asks for more than its one decider can give."""
    made = factories.policy(slug="erasure", required_approvals=2, **fields)
    assign_perm("jit_approval.decide", factories.user(), made)
    return made


@pytest.mark.django_db
def test_policy_without_enough_deciders_is_named():
    outnumbered()
    factories.policy(slug="fine", required_approvals=1)
    factories.user(is_superuser=True)
    assert stored() == {}
    factories.policy(slug="three", required_approvals=3)
    messages = stored()
    assert list(messages) == ["W010"]
    assert messages["W010"].endswith(": three.")


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [{"enabled": False}, {"effect": "allow"}, {"effect": "observe"}])
def test_policy_that_holds_nothing_needs_no_deciders(fields):
    outnumbered(**fields)
    assert stored() == {}


@pytest.mark.django_db
def test_policy_that_counts_on_the_object_is_warned_about_softly():
    outnumbered(object_permission="testapp.change_customer")
    assert list(stored()) == ["W011"]


@pytest.mark.django_db
def test_condition_without_a_library_is_named(monkeypatch):
    factories.user(is_superuser=True)
    factories.policy(slug="big", condition="request.data.amount > 1")
    assert stored() == {}
    monkeypatch.setattr(library, "MODULE", "no_such_library")
    assert "big" in stored()["W012"]


@pytest.mark.django_db
def test_policy_changed_past_its_versions_is_named():
    factories.user(is_superuser=True)
    made = factories.policy(slug="erasure")
    type(made).objects.filter(pk=made.pk).update(priority=1)
    assert "erasure" in stored()["W013"]
    made.refresh_from_db()
    made.save()
    assert stored() == {}


GATED = {"JIT_APPROVAL": {"GATE_POLICY_CHANGES": True}}


def editor(name: str, make: Any = factories.user, **extra: Any) -> Any:
    made = make(name, **extra)
    made.user_permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    return made


@pytest.mark.django_db
def test_gated_changes_that_nobody_could_approve_are_told():
    assert list(stored(**GATED)) == ["W014"]
    editor("nora")
    assert list(stored(**GATED)) == ["W014"]
    factories.decider("dora")
    assert stored(**GATED) == {}


@pytest.mark.django_db
def test_gated_changes_that_nobody_but_the_editor_could_approve_are_told():
    root = factories.user("root", is_superuser=True)
    messages = stored(**GATED)
    assert list(messages) == ["W016"]
    assert messages["W016"].endswith(" by: root.")
    assert stored() == {}
    # What others change, root approves; what root changes, nobody.
    editor("nora")
    assert stored(**GATED) == messages
    factories.user("gone", is_superuser=True, is_active=False)
    assert stored(**GATED) == messages
    dora = editor("dora", factories.decider)
    assert stored(**GATED) == {}
    # The stand-in of who made a change does not approve it.
    now = timezone.now()
    Delegation.objects.create(
        delegator=root,
        stand_in=dora,
        starts_at=now,
        ends_at=now + timedelta(hours=1),
        reason="leave",
    )
    assert stored(**GATED)["W016"].endswith(" by: root.")


@pytest.mark.django_db
def test_gated_changes_are_looked_at_under_the_policy_that_names_them():
    factories.user("root", is_superuser=True)
    factories.decider("dora")
    assert stored(**GATED) == {}
    changes = "jit_approval.policy.change"
    factories.policy(actions=changes, effect="allow", priority=1)
    factories.policy(actions=changes, condition="true", required_approvals=9, priority=2)
    factories.policy(actions=changes, effect="observe", required_approvals=9, priority=3)
    assert set(stored(**GATED)) == {"W010"}
    factories.policy(actions=changes, required_approvals=2, priority=4)
    assert set(stored(**GATED)) == {"W010", "W016"}
    factories.policy(actions=changes, effect="deny", priority=3)
    assert set(stored(**GATED)) == {"W010"}


@pytest.mark.django_db
def test_two_accounts_of_one_person_do_not_approve_each_others_changes():
    group = Group.objects.create(name="editors")
    group.permissions.add(Permission.objects.get(codename="change_approvalpolicy"))
    for name in ("ann", "ann-admin"):
        factories.decider(name, last_name="Lee").groups.add(group)
    of_one = {"JIT_APPROVAL": {"GATE_POLICY_CHANGES": True, "PERSON_KEY": "last_name"}}
    assert stored(**GATED) == {}
    assert stored(**of_one)["W016"].endswith(" by: ann, ann-admin.")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("value", "finding"),
    [
        ({"PERSON_KEY": "nope"}, "E010"),
        ({"PERSON_KEY": "groups__name"}, "E010"),
        ({"PERSON_KEY": "pk__more"}, "E010"),
        ({"PERSON_KEY": ""}, "E010"),
        ({"NOPE": 1}, "E009"),
    ],
)
def test_settings_by_which_nobody_can_be_found_are_told_instead_of_asked_by(value, finding):
    outnumbered()
    gated = {} if finding == "E009" else {"GATE_POLICY_CHANGES": True}
    assert list(stored(JIT_APPROVAL=value | gated)) == [finding]


@pytest.mark.django_db
@pytest.mark.filterwarnings("ignore:.*naive datetime:RuntimeWarning")
def test_policies_are_asked_whatever_else_is_wrong_with_the_settings():
    outnumbered()
    unsafe = {"METRICS_TOKEN": "short"}
    assert sorted(stored(USE_TZ=False, JIT_APPROVAL=unsafe)) == ["E008", "E010", "W010"]


@pytest.mark.django_db
def test_policies_are_asked_of_their_own_database_alone():
    outnumbered()
    assert found() == []
    assert stored("other") == {}


@pytest.mark.django_db
def test_database_without_our_tables_is_quiet(monkeypatch):
    outnumbered()
    introspection = type(connection.introspection)
    monkeypatch.setattr(introspection, "table_names", lambda *_args, **_kwargs: [])
    assert stored() == {}


def test_page_of_the_admin_that_gets_around_the_gate_is_an_answer():
    class Guarded(GuardedModelAdmin, ApprovalPolicyAdmin):
        pass

    class Inline(admin.TabularInline):
        model = PolicyUserPermission

    class Users(admin.ModelAdmin):
        inlines = (Inline,)

    site = admin.AdminSite(name="another")
    assert found(**GATED) == []
    site.register(ApprovalPolicy, Guarded)
    assert found(**GATED) == ["W015"]
    site.unregister(ApprovalPolicy)
    site.register(get_user_model(), Users)
    assert found(**GATED) == ["W015"]
    assert found() == []


# --- waiting on the line -----------------------------------------------------------------------------------

LINE = "jit_approval.middleware.WaitForApproval"
COMMON = "django.middleware.common.CommonMiddleware"


def waiting_ids(**changed: Any) -> list[str]:
    from jit_approval.checks import waiting

    with override_settings(**{"JIT_APPROVAL": {"MAX_WAIT": 60}, **changed}):
        return [message.id[-4:] for message in waiting.check()]


@pytest.mark.parametrize(
    "middleware, found", [([LINE, COMMON], []), ([COMMON], ["W040"]), ([COMMON, LINE], ["W041"])]
)
def test_callers_that_may_wait_need_the_middleware_first(middleware, found):
    assert waiting_ids(MIDDLEWARE=middleware) == found
    assert waiting_ids(MIDDLEWARE=middleware, JIT_APPROVAL={}) == []
    assert waiting_ids(MIDDLEWARE=middleware, JIT_APPROVAL={"MAX_WAIT": "x"}) == []


def test_under_atomic_requests_nobody_waits(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert waiting_ids(MIDDLEWARE=[LINE]) == ["W042"]

"""The inventory: which routes can write, what stands before them, and what is amiss with that."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.contrib.auth.views import LogoutView
from django.core.management import CommandError, call_command
from django.db import models
from django.http import HttpResponse
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import include, path, re_path
from django.views.generic import TemplateView
from rest_framework import generics, serializers, viewsets
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.decorators import action, api_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.views import APIView

from jit_approval import inventory
from jit_approval.inventory.as_json import as_json
from jit_approval.inventory.as_text import as_text
from jit_approval.models import PolicyGroupRequirement
from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from tests import bindapp, factories
from tests.testapp.models import Account, Customer
from tests.testapp.views import CustomerSerializer

pytestmark = pytest.mark.django_db

GATE = (IsAuthenticated, RequiresApproval)
BY_POLICY = (IsAuthenticated, RequiresApprovalByPolicy)
ROOT = Path(__file__).resolve().parent.parent


class Plain(APIView):
    permission_classes = GATE

    def get(self, request, **kwargs):
        return Response()

    def post(self, request, **kwargs):
        return Response()


class Customers(viewsets.ModelViewSet):
    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    permission_classes = GATE


class AccountSerializer(serializers.ModelSerializer):
    class Meta:
        model = Account
        fields = ("id", "balance")


def view(base: type = Plain, **attributes: Any) -> Any:
    """A class like `base` but for these attributes."""
    return type(base.__name__, (base,), {"__module__": __name__, **attributes})


def routed(viewset: type = Customers, prefix: str = "customers") -> Any:
    router = DefaultRouter()
    router.register(prefix, viewset, basename=prefix)
    return path("api/", include(router.urls))


def urls(*patterns: Any) -> Any:
    urlconf = ModuleType("urls_of_a_test")
    urlconf.urlpatterns = list(patterns)
    return override_settings(ROOT_URLCONF=urlconf)


def taken(*patterns: Any, **kwargs: Any) -> inventory.Inventory:
    with urls(*patterns):
        return inventory.take(**kwargs)


def lines(found: inventory.Inventory) -> dict[tuple[str, str], Any]:
    """The lines by method and path."""
    return {(line.method, one.path): line for one in found.routes for line in one.lines}


def only(*patterns: Any, **kwargs: Any) -> Any:
    """The one line there is."""
    (line,) = lines(taken(*patterns, **kwargs)).values()
    return line


def listed(file: Path, *entries: str) -> list[inventory.Entry]:
    file.write_text("\n".join(entries))
    return inventory.read(file)


def run(*args: str) -> str:
    out = io.StringIO()
    call_command("approval_actions", *args, stdout=out)
    return out.getvalue()


# --- which routes, which methods, under which names ------------------------------------------------------


def test_every_writing_method_is_listed_with_its_action_and_no_reading_one():
    found = lines(taken(routed(), path("plain/<int:pk>/", Plain.as_view())))
    assert {place: line.action for place, line in found.items()} == {
        ("POST", "/api/customers/"): "customers.create",
        ("PUT", "/api/customers/<pk>/"): "customers.update",
        ("PATCH", "/api/customers/<pk>/"): "customers.partial_update",
        ("DELETE", "/api/customers/<pk>/"): "customers.destroy",
        ("POST", "/plain/<int:pk>/"): "plain.post",
    }


def test_a_read_that_is_held_is_listed():
    export = view(approval_methods=["GET"], post=None)
    assert only(path("x/", export.as_view())).method == "GET"


def test_methods_of_the_projects_own_are_listed():
    cache = view(http_method_names=["get", "purge"], purge=Plain.post)
    line = only(path("x/", cache.as_view()))
    assert (line.method, line.action, line.status) == ("PURGE", "plain.purge", "gated")


def test_a_handler_beside_the_actions_of_a_viewset_is_listed():
    odd = view(Customers, delete=lambda self, request, **kwargs: Response())
    found = lines(taken(path("x/", odd.as_view({"get": "list"}))))
    assert [method for method, _ in found] == ["DELETE"]


def test_an_action_named_by_the_view_is_the_one_listed():
    class Extra(Customers):
        approval_action = None  # so that @action may set it

        @action(detail=True, methods=["post"], approval_action="customers.freeze_for_good")
        def freeze(self, request, pk=None):
            return Response()

    named = view(approval_action="caches.purge")
    found = lines(taken(routed(Extra), path("x/", named.as_view())))
    assert found["POST", "/api/customers/<pk>/freeze/"].action == "customers.freeze_for_good"
    assert found["POST", "/x/"].action == "caches.purge"


def test_format_suffixes_are_folded_into_their_route():
    found = taken(routed())
    assert [one.also for one in found.routes] == [
        ("/api/customers.<format>/",),
        ("/api/customers/<pk>.<format>/",),
    ]


def test_a_route_with_another_view_is_not_folded():
    other = view(permission_classes=())
    found = taken(path("x/", Plain.as_view()), re_path(r"^x\.(?P<format>[a-z]+)$", other.as_view()))
    assert [line.status for line in lines(found).values()] == ["gated", "ungated"]


def test_a_view_that_answers_any_method_itself_is_listed():
    catch_all = view(permission_classes=(), post=None, http_method_not_allowed=Plain.get)
    line = only(path("x/", catch_all.as_view()))
    assert (line.method, line.status) == ("*", "ungated")


def test_no_urlconf_is_an_empty_inventory():
    with override_settings(ROOT_URLCONF=None):
        assert inventory.take().routes == ()


# --- the gate --------------------------------------------------------------------------------------------


class StrictGate(RequiresApproval):
    """A subclass that changes nothing that matters."""


class OwnGate(RequiresApproval):
    def has_permission(self, request, view):
        return request.user.is_superuser or super().has_permission(request, view)


def get_permissions(self):
    return [RequiresApproval()] if self.request.user.is_staff else []


def computed(self):
    return [RequiresApproval] if self.request.user.is_staff else []


def own_initial(self, request, *args, **kwargs):
    self.perform_authentication(request)


def careful_initial(self, request, *args, **kwargs):
    super(Plain, self).initial(request, *args, **kwargs)


def own_method(self, request, *args, **kwargs):
    return Response()


def own_init(self, **kwargs):
    raise ZeroDivisionError("a secret of the view")


@pytest.mark.parametrize(
    ("attributes", "gate", "status"),
    [
        ({}, "always", "gated"),
        ({"permission_classes": [StrictGate]}, "always", "gated"),
        ({"permission_classes": [RequiresApprovalByPolicy, RequiresApproval]}, "always", "gated"),
        ({"permission_classes": BY_POLICY}, "by_policy", "ungated"),
        ({"permission_classes": [IsAuthenticated]}, "none", "ungated"),
        ({"permission_classes": []}, "none", "ungated"),
        ({"approval_methods": ["DELETE"]}, "always", "ungated"),
        ({"approval_methods": ["POST"]}, "always", "gated"),
        ({"initial": careful_initial}, "always", "gated"),
        ({"permission_classes": [IsAuthenticated | RequiresApproval]}, None, "cannot_tell"),
        ({"permission_classes": [OwnGate]}, None, "cannot_tell"),
        ({"permission_classes": property(computed)}, None, "cannot_tell"),
        ({"get_permissions": get_permissions}, None, "cannot_tell"),
        ({"check_permissions": own_method}, None, "cannot_tell"),
        ({"dispatch": own_method}, None, "cannot_tell"),
        ({"initial": own_initial}, None, "cannot_tell"),
        ({"approval_methods": "POST"}, "always", "cannot_tell"),
        ({"approval_methods": property(computed)}, "always", "cannot_tell"),
        ({"approval_action": property(computed)}, "always", "cannot_tell"),
        ({"__init__": own_init}, None, "cannot_tell"),
    ],
)
def test_what_stands_before_a_method_is_told_or_said_not_to_be(attributes, gate, status):
    line = only(path("x/", view(**attributes).as_view()))
    assert (line.gate, line.status) == (gate or "cannot_tell", status)
    assert line.fails is (status != "gated")


def test_a_gate_given_to_as_view_or_to_an_action_counts():
    class Extra(Customers):
        permission_classes = (IsAuthenticated,)

        @action(detail=True, methods=["post"], permission_classes=GATE)
        def freeze(self, request, pk=None):
            return Response()

    free = view(permission_classes=())
    found = lines(taken(routed(Extra), path("x/", free.as_view(permission_classes=GATE))))
    held = {place for place, line in found.items() if line.status == "gated"}
    assert held == {("POST", "/api/customers/<pk>/freeze/"), ("POST", "/x/")}


def test_default_permission_classes_count(monkeypatch):
    class Bare(APIView):
        post = Plain.post

    @api_view(["POST"])
    def function(request):
        return Response()

    assert only(path("x/", Bare.as_view())).gate == "none"
    # What DEFAULT_PERMISSION_CLASSES is read into when DRF is imported.
    monkeypatch.setattr(APIView, "permission_classes", [RequiresApproval])
    assert only(path("x/", Bare.as_view())).status == "gated"
    assert taken(path("x/", function)).routes[0].view == "tests.test_inventory.function"


def test_a_permission_that_may_ask_the_gate_is_no_gate_to_rely_on():
    with override_settings(ROOT_URLCONF="tests.testapp.odd_urls"):
        found = lines(inventory.take())
    assert found["POST", "/wrapped/"].status == "cannot_tell"
    assert found["POST", "/outerungated/"].status == "ungated"
    assert found["POST", "/catchall/"].status == "gated"
    assert found["*", "/catchallbypolicy/"].status == "cannot_tell"


# --- policies and deciders -------------------------------------------------------------------------------


def test_the_first_policies_that_may_apply_are_named_in_order():
    for slug, fields in {
        "big": {"condition": "request.data.amount > 10", "required_approvals": 2, "priority": 1},
        "others": {"actions": "customers.*", "priority": 2},
        "small": {"effect": "allow", "priority": 3},
        "watch": {"effect": "observe", "priority": 5},
        "never": {"effect": "deny", "priority": 4},
        "off": {"enabled": False, "priority": 0},
    }.items():
        factories.policy(slug=slug, **fields)
    line = only(path("x/", Plain.as_view()))
    chain = [(one.slug, one.effect, one.condition) for one in line.naming.chain]
    assert chain == [("big", "require", "request.data.amount > 10"), ("small", "allow", "")]
    assert line.naming.observed == ("watch",)
    assert (line.otherwise, line.status) == ("", "gated")


def test_without_a_policy_the_settings_apply_or_nothing_is_held():
    settings_apply = only(path("x/", Plain.as_view()))
    assert (settings_apply.status, settings_apply.otherwise) == ("gated", "settings")
    free = only(path("x/", view(permission_classes=BY_POLICY).as_view()))
    assert (free.status, free.why, free.otherwise) == ("ungated", "no_policy", "")


@pytest.mark.parametrize(
    ("fields", "status", "otherwise"),
    [
        ({"actions": "plain.post"}, "gated", ""),
        ({"effect": "deny"}, "gated", ""),
        ({"condition": "user.is_staff"}, "gated", "passes"),
        ({"effect": "observe"}, "ungated", ""),
        ({"actions": "other.*"}, "ungated", ""),
        ({"enabled": False}, "ungated", ""),
    ],
)
def test_a_gate_by_policy_holds_where_a_policy_in_force_names_the_action(fields, status, otherwise):
    factories.policy(**fields)
    line = only(path("x/", view(permission_classes=BY_POLICY).as_view()))
    assert (line.status, line.otherwise) == (status, otherwise)


def test_deciders_suffice_when_enough_persons_may_approve():
    factories.policy(required_approvals=2)
    gated = path("x/", Plain.as_view())
    factories.decider()
    assert only(gated).deciders == "too_few"
    factories.decider(is_active=False)
    assert only(gated).deciders == "too_few"
    factories.decider()
    assert only(gated).deciders == "enough"


@pytest.mark.parametrize(
    ("required", "said"), [(1, "requires 3 approvals"), (5, "requires 5 approvals")]
)
def test_approvals_are_counted_with_the_groups_that_must_be_represented(required, said):
    policy = factories.policy(required_approvals=required)
    for name, count in (("security", 2), ("finance", 1)):
        group = Group.objects.create(name=name)
        PolicyGroupRequirement.objects.create(policy=policy, group=group, count=count)
    found = taken(path("x/", Plain.as_view()))
    assert said in " ".join(" ".join(as_text(found)).split())
    (line,) = as_json(found)["routes"][0]["methods"]
    assert [one["required_approvals"] for one in line["policies"]] == [max(required, 3)]


def test_deciders_suffice_when_groups_can_be_represented():
    group = Group.objects.create(name="security")
    policy = factories.policy()
    PolicyGroupRequirement.objects.create(policy=policy, group=group, count=1)
    decider = factories.decider()
    assert only(path("x/", Plain.as_view())).deciders == "too_few"
    decider.groups.add(group)
    assert only(path("x/", Plain.as_view())).deciders == "enough"


def test_deciders_of_the_settings_are_looked_at_where_no_policy_is_sure_to_apply():
    assert only(path("x/", Plain.as_view())).deciders == "too_few"
    factories.policy(effect="allow", condition="user.is_staff")
    assert only(path("x/", Plain.as_view())).deciders == "too_few"
    factories.decider()
    assert only(path("x/", Plain.as_view())).deciders == "enough"


def test_holders_of_a_permission_on_the_object_may_make_up_for_deciders():
    factories.policy(object_permission="testapp.change_customer")
    assert only(path("x/", Plain.as_view())).deciders == "by_object"


def test_nobody_need_decide_what_is_allowed_or_denied():
    factories.policy(effect="deny")
    assert only(path("x/", Plain.as_view())).deciders == "not_asked"


def test_policies_are_read_once_per_action_however_many_routes(django_assert_max_num_queries):
    factories.policy()
    patterns = [path(f"x{number}/", Plain.as_view()) for number in range(50)]
    with django_assert_max_num_queries(10):
        taken(*patterns)


# --- ways around -----------------------------------------------------------------------------------------


def ways(*patterns: Any, **kwargs: Any) -> list[tuple[str, str, str]]:
    """How, what gets around, and around what."""
    found = taken(*patterns, **kwargs).ways_around
    return [(one.how, str(one.free), str(one.held or "")) for one in found]


def test_a_bulk_action_without_the_gate_is_pointed_out():
    class Bulk(Customers):
        http_method_names = ["get", "post", "delete"]

        def create(self, request, **kwargs):
            return Response()

        @action(detail=False, methods=["delete"], permission_classes=[IsAuthenticated])
        def erase_all(self, request):
            return Response()

    assert ways(routed(Bulk)) == [
        (
            "same_model",
            "DELETE /api/customers/erase_all/ (customers.erase_all)",
            "DELETE /api/customers/<pk>/ (customers.destroy)",
        )
    ]


class Free(generics.DestroyAPIView):
    queryset = Customer.objects.all()
    permission_classes = (IsAuthenticated,)


class BySerializer(generics.CreateAPIView):
    serializer_class = CustomerSerializer
    permission_classes = ()

    def get_queryset(self):
        return Customer.objects.filter(balance=0)


@pytest.mark.parametrize(
    "other",
    [Free, view(Free, queryset=bindapp.Unspeakable.objects.all()), BySerializer],
    ids=["queryset", "proxy", "serializer"],
)
def test_another_view_of_a_gated_model_without_a_gate_is_pointed_out(other):
    found = ways(routed(), path("owners/<int:owner>/customers/<int:pk>/", other.as_view()))
    assert [how for how, _, _ in found] == ["same_model"]
    assert "/owners/<int:owner>/customers/<int:pk>/" in found[0][1]


@isolate_apps("tests.testapp")
def test_a_view_of_a_model_that_inherits_the_gated_ones_table_is_pointed_out():
    class Person(models.Model):
        class Meta:
            app_label = "testapp"

    class Employee(Person):
        class Meta:
            app_label = "testapp"

    gated = view(Free, queryset=Person.objects.all(), permission_classes=GATE)
    free = view(Free, queryset=Employee.objects.all())
    patterns = path("a/<int:pk>/", gated.as_view()), path("b/<int:pk>/", free.as_view())
    assert [how for how, _, _ in ways(*patterns)] == ["same_model"]


def test_views_of_other_models_and_gated_ones_get_around_nothing():
    other = view(Free, queryset=Account.objects.all(), serializer_class=AccountSerializer)
    gated = view(Free, permission_classes=GATE)
    patterns = path("a/<int:pk>/", other.as_view()), path("b/<int:pk>/", gated.as_view())
    assert ways(routed(), *patterns) == []
    assert ways(path("x/<int:pk>/", Free.as_view())) == []


def test_methods_that_approval_methods_leaves_out_are_pointed_out():
    found = ways(routed(view(Customers, approval_methods=["DELETE", "PUT", "PATCH"])))
    assert found == [
        (
            "approval_methods",
            "POST /api/customers/ (customers.create)",
            "PUT /api/customers/<pk>/ (customers.update)",
        )
    ]
    assert [how for how, _, _ in ways(path("x/", view(approval_methods=[]).as_view()))] == [
        "approval_methods"
    ]


def test_the_admin_of_a_gated_model_is_pointed_out_once(monkeypatch):
    class CustomerAdmin(admin.ModelAdmin):
        pass

    site = admin.AdminSite(name="admin")
    site.register(Customer, CustomerAdmin)
    patterns = routed(), path("admin/", site.urls)
    assert ways(*patterns) == []
    assert taken(*patterns).left_out_around == 6
    (way,) = ways(*patterns, everything=True)
    assert way[:2] == ("same_model", "* /admin/testapp/customer/")


# --- policies that hold nothing --------------------------------------------------------------------------


def idle(*patterns: Any) -> list[tuple[str, tuple[str, ...], bool, str]]:
    return [(one.slug, one.globs, one.whole, one.why) for one in taken(*patterns).idle]


def test_a_policy_whose_globs_name_no_action_is_reported_with_what_they_may_have_meant():
    factories.policy(slug="gone", actions="customers.destory\nledger.*")
    found = taken(routed())
    assert idle(routed()) == [("gone", ("customers.destory", "ledger.*"), True, "no_route")]
    assert "customers.destroy" in found.idle[0].similar


def test_a_policy_is_reported_for_its_dead_globs_alone():
    factories.policy(slug="half", actions="customers.destroy\nclients.*")
    assert idle(routed()) == [("half", ("clients.*",), False, "no_route")]


def test_a_policy_that_names_only_actions_without_a_gate_is_reported():
    factories.policy(slug="vain", actions="plain.*")
    free = path("x/", view(permission_classes=()).as_view())
    assert idle(free) == [("vain", ("plain.*",), True, "no_gate")]
    assert idle(free, path("y/", view(approval_action="plain.y").as_view())) == []


def test_a_policy_that_names_only_reads_that_are_not_held_is_reported():
    factories.policy(slug="reads", actions="customers.list")
    assert idle(routed()) == [("reads", ("customers.list",), True, "no_gate")]


def test_policies_of_policy_changes_and_those_out_of_force_are_not_reported():
    factories.policy(actions="jit_approval.policy.change")
    factories.policy(actions="nothing.*", enabled=False)
    factories.policy(actions="plain.post", effect="observe")
    assert idle(path("x/", view(permission_classes=BY_POLICY).as_view())) == []


# --- what is left out ------------------------------------------------------------------------------------


def plain_django(request):
    return HttpResponse()


OTHERS = (
    path("approvals/", include("jit_approval.urls")),
    path("admin/", admin.site.urls),
    path("logout/", LogoutView.as_view()),
    path("function/", plain_django),
    path("page/", TemplateView.as_view(template_name="x.html")),
)


def test_other_views_are_counted_and_listed_on_demand():
    found = taken(*OTHERS, path("x/", Plain.as_view()))
    assert [one.path for one in found.routes] == ["/x/"]
    assert found.left_out.keys() == {"own", "admin", "django"}
    assert (found.left_out["own"], found.left_out["django"]) == (7, 2)
    everything = taken(*OTHERS, everything=True)
    status = {one.path: (one.kind, one.lines[0].status) for one in everything.routes}
    assert everything.left_out == {}
    assert status["/logout/"] == status["/function/"] == ("django", "ungated")
    assert status["/admin/login/"] == status["/admin/auth/group/"] == ("admin", "ungated")
    assert status["/approvals/<str:pk>/approve/"] == ("own", "exempt")
    assert "/page/" not in status


def test_a_projects_own_subclass_of_the_packages_views_is_the_projects():
    from jit_approval.api.views import ApproveView

    own = type("ApproveAtOnce", (ApproveView,), {"__module__": __name__})
    assert only(path("x/", own.as_view())).status == "ungated"


# --- the allow-list --------------------------------------------------------------------------------------

FREE = path("api/token/", obtain_auth_token)


@pytest.mark.parametrize(
    "entry",
    [
        "POST /api/token/",
        "* /api/token/",
        "POST obtainauthtoken.post",
        "POST obtain*",
        "POST /api/*  # logging in changes nothing",
    ],
)
def test_an_entry_names_a_method_and_a_path_or_action(tmp_path, entry):
    line = only(FREE, allow=listed(tmp_path / "allow", "# not gated", "", entry))
    assert (line.allowed, line.fails, line.status) == (3, False, "ungated")


@pytest.mark.parametrize("entry", ["GET /api/token/", "POST /API/token/", "POST token"])
def test_an_entry_for_something_else_allows_nothing(tmp_path, entry):
    found = taken(FREE, allow=listed(tmp_path / "allow", entry))
    assert len(found.failing) == 1
    assert [str(one) for one in found.unknown] == [entry]


def test_an_entry_for_what_cannot_be_told_is_in_use(tmp_path):
    doubtful = view(get_permissions=get_permissions)
    found = taken(path("x/", doubtful.as_view()), allow=listed(tmp_path / "allow", "POST /x/"))
    assert (found.stale, found.failing) == ((), [])


def test_what_is_held_is_not_said_to_be_allowed(tmp_path):
    line = only(path("x/", Plain.as_view()), allow=listed(tmp_path / "allow", "POST /x/"))
    assert (line.status, line.allowed) == ("gated", None)


def test_entries_that_are_not_needed_any_more_are_reported(tmp_path):
    allow = listed(tmp_path / "allow", "POST plain.post", "POST /gone/", "POST /api/token/")
    found = taken(FREE, path("x/", Plain.as_view()), allow=allow)
    assert [str(one) for one in found.stale] == ["POST plain.post"]
    assert [str(one) for one in found.unknown] == ["POST /gone/"]


def test_an_entry_for_a_route_that_is_left_out_is_in_use(tmp_path):
    allow = listed(tmp_path / "allow", "* /admin/*")
    found = taken(*OTHERS, allow=allow)
    assert (found.stale, found.unknown) == ((), ())


@pytest.mark.parametrize(
    "line",
    ["POST", "/api/token/", "POST /a /b", "post /a", "* *", "POST ??*", "* /*", "P0ST /a"],
)
def test_a_malformed_allow_list_is_refused_with_its_line(tmp_path, line):
    file = tmp_path / "allow"
    file.write_text(f"POST /fine/\n{line}\n")
    with pytest.raises(CommandError, match="line 2") as refused:
        run("--allow", str(file))
    assert refused.value.returncode == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_allow_list_that_cannot_be_read_is_refused(tmp_path, content):
    file = tmp_path / "allow"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CommandError) as refused:
        run("--fail-ungated", "--allow", str(file))
    assert refused.value.returncode == 2


# --- the command -----------------------------------------------------------------------------------------


def failure(*patterns: Any, args: tuple[str, ...] = ()) -> CommandError | None:
    with urls(*patterns):
        try:
            run("--fail-ungated", *args)
        except CommandError as error:
            return error
    return None


@pytest.mark.parametrize(
    "attributes",
    [
        {"permission_classes": ()},
        {"permission_classes": BY_POLICY},
        {"approval_methods": ["DELETE"]},
        {"get_permissions": get_permissions},
    ],
    ids=["no gate", "no policy", "left out", "cannot tell"],
)
def test_fail_ungated_fails_for_a_writing_method_without_a_sure_gate(attributes, tmp_path):
    pattern = path("x/", view(**attributes).as_view())
    error = failure(pattern)
    assert error is not None and error.returncode == 1
    assert "POST /x/ (plain.post)" in str(error)
    (tmp_path / "allow").write_text("POST /x/")
    assert failure(pattern, args=("--allow", str(tmp_path / "allow"))) is None


def test_fail_ungated_minds_what_is_listed():
    held = path("x/", Plain.as_view())
    assert failure(held, *OTHERS) is None
    assert failure(held, *OTHERS, args=("--all",)) is not None


def test_without_fail_ungated_nothing_fails():
    with urls(FREE):
        assert "NO GATE" in run()


def test_the_table_fits_and_says_what_matters():
    long = "a-rather-long-name-for-a-route-of-an-api/" * 4
    factories.policy(slug="big", condition="request.data.amount > 1000 && " * 5 + "true")
    factories.policy(slug="gone", actions="gone.*")
    with urls(
        routed(view(Customers, approval_methods=["DELETE"])),
        path(long, view(approval_action="x." + "very-long-label-" * 5).as_view()),
        path("bulk/", Free.as_view()),
        *OTHERS,
    ):
        text = run("--all") + run()
    assert max(map(len, text.splitlines())) <= 120
    for part in (
        "customers.destroy",
        "big requires 1 approval if request.data.amount > 1000 &&",
        "else required by the settings; TOO FEW DECIDERS",
        "left out by approval_methods",
        "Ways around a gate",
        "writes testapp.Customer without a gate",
        "gone names no action there is: gone.*",
        "Left out:",
        "tests.test_inventory.Plain",
    ):
        assert part in " ".join(text.split()), part


def test_text_from_outside_cannot_mislead_the_terminal():
    factories.policy(actions="gone\x1b[2K\u202e")
    free = view(Free, approval_action="x\x1b[2K\u202e")
    with urls(routed(), path("x/\x1b[2K\u202e", free.as_view())):
        text = run()
    assert "Ways around" in text and "name no route" in text
    assert "\x1b" not in text and "\u202e" not in text


KEYS = {
    "": "version routes ways_around idle_policies allow_list left_out left_out_on_held_models "
    "reading_routes failing",
    "routes": "path also view kind models methods",
    "methods": "method action gate status why policies observed_by otherwise deciders "
    "allowed_by_line",
    "policies": "slug effect condition required_approvals deciders",
    "ways_around": "how model free held allowed",
    "idle_policies": "slug globs whole why similar",
    "allow_list": "unknown stale",
    "unknown": "line entry",
    "free": "method path action",
}


def test_the_keys_of_the_json_stay_as_documented(tmp_path):
    factories.policy(actions="customers.destroy\ngone.*")
    (tmp_path / "allow").write_text("POST /nowhere/")
    with urls(routed(), path("bulk/", Free.as_view())):
        document = json.loads(run("--json", "--allow", str(tmp_path / "allow")))
    held = document["routes"][1]["methods"][2]
    seen = {
        "": document,
        "routes": document["routes"][0],
        "methods": held,
        "policies": held["policies"][0],
        "ways_around": document["ways_around"][0],
        "idle_policies": document["idle_policies"][0],
        "allow_list": document["allow_list"],
        "unknown": document["allow_list"]["unknown"][0],
        "free": document["ways_around"][0]["free"],
    }
    assert {name: " ".join(value) for name, value in seen.items()} == KEYS
    manual = (ROOT / "docs" / "inventory.md").read_text()
    assert [key for keys in KEYS.values() for key in keys.split() if f"`{key}`" not in manual] == []


# --- projects --------------------------------------------------------------------------------------------


def test_the_test_project_is_listed():
    found = lines(inventory.take())
    assert {line.status for line in found.values()} == {"gated"}
    assert found["POST", "/api/purge/"].action == "purge_cache.post"


def in_example(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(folder),
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "EXAMPLE_SECRET_KEY": "x" * 60,
            "EXAMPLE_SQLITE_PATH": str(folder / "db.sqlite3"),
        }
        | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with the example project's database in it."""
    folder = tmp_path_factory.mktemp("example")
    done = in_example(folder, "demo_data")
    assert done.returncode == 0, done.stderr
    return folder


IN_CI = ("approval_actions", "--fail-ungated", "--json")


def test_without_tables_nothing_is_said_to_be_in_order(tmp_path):
    done = in_example(tmp_path, *IN_CI)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_the_example_project_is_listed_with_its_policies(example):
    done = in_example(example, *IN_CI)
    assert done.returncode == 1
    assert "POST /api/customers/ (customers.create)" in done.stderr
    document = json.loads(done.stdout)
    held = {
        line["action"]: [policy["slug"] for policy in line["policies"]]
        for route in document["routes"]
        for line in route["methods"]
        if line["status"] == "gated"
    }
    assert held["transfers.create"] == ["transfers"]
    assert held["customers.export"] == ["customer-data"]
    assert document["idle_policies"] == []


def test_the_example_project_passes_with_an_allow_list(example, tmp_path):
    (tmp_path / "allow").write_text("POST customers.create\nPOST /api/token/\n")
    assert in_example(example, *IN_CI, "--allow", str(tmp_path / "allow")).returncode == 0


def test_a_project_wide_gate_by_policy_holds_what_a_policy_names(example):
    (example / "late_settings.py").write_text(
        "from example_project.settings import *\n"
        "GATE = 'jit_approval.permissions.RequiresApprovalByPolicy'\n"
        "REST_FRAMEWORK |= {'DEFAULT_PERMISSION_CLASSES': [GATE]}\n"
        "ROOT_URLCONF = 'late_urls'\n"
    )
    (example / "late_urls.py").write_text(
        "from django.urls import path\n"
        "from rest_framework.views import APIView\n"
        "class Import(APIView):\n"
        "    def post(self, request): ...\n"
        "class Transfer(Import):\n"
        "    approval_action = 'transfers.create'\n"
        "urlpatterns = [path('a/', Import.as_view()), path('b/', Transfer.as_view())]\n"
    )
    done = in_example(example, *IN_CI, DJANGO_SETTINGS_MODULE="late_settings")
    found = [
        (line["gate"], line["status"], line["why"])
        for route in json.loads(done.stdout)["routes"]
        for line in route["methods"]
    ]
    assert found == [("by_policy", "ungated", "no_policy"), ("by_policy", "gated", "")]

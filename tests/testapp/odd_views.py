"""Views that use DRF in unusual ways, each of which may try to run what nobody approved. `RAN` counts."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import Http404, HttpResponse
from rest_framework import viewsets
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import AdminRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval, RequiresApprovalByPolicy
from tests.testapp.models import Account, Customer
from tests.testapp.views import CustomerSerializer

RAN: list[Any] = []


class Gated(APIView):
    """The plainest gated view; the odd ones differ from it in one thing each."""

    permission_classes = (IsAuthenticated, RequiresApproval)
    renderer_classes = (JSONRenderer, BrowsableAPIRenderer, AdminRenderer)

    def get(self, request, **kwargs):
        return Response({"read": True})

    def post(self, request, **kwargs):
        RAN.append(kwargs.get("pk", "post"))
        return Response({"ran": True})


class Deletes(Gated):
    def delete(self, request, **kwargs):
        RAN.append("delete")
        return Response(status=204)


# --- dispatch --------------------------------------------------------------------------------------------


class Retries(Gated):
    def dispatch(self, request, *args, **kwargs):
        for _ in range(3):
            response = super().dispatch(request, *args, **kwargs)
        return response


class RetriesForgetful(Gated):
    """Removes what tells a probe from a call, so that every try is live."""

    def dispatch(self, request, *args, **kwargs):
        for _ in range(3):
            vars(self).pop("response", None)
            response = super().dispatch(request, *args, **kwargs)
        return response


class OwnDispatch(Gated):
    """What the views with a dispatch of their own have in common."""

    def dispatch(self, request, *args, **kwargs):
        self.args, self.kwargs, self.headers = args, kwargs, {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            response = self.go(self.request, *args, **kwargs)
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(self.request, response)
        return self.response

    def go(self, request, *args, **kwargs):
        raise NotImplementedError


class FetchesEarly(OwnDispatch):
    def go(self, request, *args, **kwargs):
        handler = self.post
        self.initial(request, *args, **kwargs)
        return handler(request, *args, **kwargs)


class Batch(OwnDispatch):
    """Decides and runs for three objects on one request."""

    def go(self, request, *args, **kwargs):
        for pk in (1, 2, 3):
            self.kwargs = {"pk": pk}
            self.initial(request, pk=pk)
            response = self.post(request, pk=pk)
        return response


class TolerantBatch(OwnDispatch):
    """The same, going on to the next after a refusal."""

    def go(self, request, *args, **kwargs):
        for pk in (1, 2, 3):
            self.kwargs = {"pk": pk}
            with suppress(APIException):
                self.initial(request, pk=pk)
            with suppress(APIException):
                self.post(request, pk=pk)
        return Response({})


class LoopsHandler(OwnDispatch):
    """Decides once and runs for three objects."""

    def go(self, request, *args, **kwargs):
        self.initial(request, *args, **kwargs)
        for pk in (None, 2, 3):
            response = self.post(request, **({"pk": pk} if pk else {}))
        return response


class RunsTwice(OwnDispatch):
    def go(self, request, *args, **kwargs):
        self.initial(request, *args, **kwargs)
        self.initial(request, *args, **kwargs)
        self.post(request, *args, **kwargs)
        return self.post(request, *args, **kwargs)


class RunsAnyway(OwnDispatch):
    """Asks, and goes on whatever the answer."""

    def go(self, request, *args, **kwargs):
        with suppress(Exception):
            self.initial(request, *args, **kwargs)
        return self.post(request, *args, **kwargs)


class WithoutHeaders(OwnDispatch):
    """Looks like a schema generator's probe, and runs the handler."""

    def go(self, request, *args, **kwargs):
        del self.headers
        try:
            self.initial(request, *args, **kwargs)
            return self.post(request, *args, **kwargs)
        finally:
            self.headers = {}


class Outer(Gated):
    """Runs another gated view inside, with the same HttpRequest."""

    def post(self, request, **kwargs):
        RAN.append("outer")
        return Gated.as_view()(request._request)


class OuterCopies(Gated):
    """The same with copies, twice: one approval of the inner view is good for one."""

    def post(self, request, **kwargs):
        RAN.append("outer")
        for _ in range(2):
            response = Gated.as_view()(copy.copy(request._request))
        return response


class OuterUngated(APIView):
    """Runs a gated view inside, three times over."""

    permission_classes = (IsAuthenticated,)

    def post(self, request, **kwargs):
        for _ in range(3):
            response = Gated.as_view()(copy.copy(request._request))
        return Response(response.data, status=response.status_code)


class BorrowsVerdict(Gated):
    """Asks another view's permissions with its own request while its object is being loaded."""

    lookup_field = "pk"

    def get_object(self):
        other = Gated()
        other.setup(self.request._request)
        other.headers = {}
        other.request = self.request
        other.check_permissions(self.request)
        other.post(self.request)
        return None


# --- DRF's hooks -----------------------------------------------------------------------------------------


class InitialBefore(Gated):
    def initial(self, request, *args, **kwargs):
        request.seen = True
        super().initial(request, *args, **kwargs)


class MethodInInitializeRequest(Deletes):
    def initialize_request(self, request, *args, **kwargs):
        made = super().initialize_request(request, *args, **kwargs)
        override = request.META.get("HTTP_X_HTTP_METHOD_OVERRIDE")
        if override:
            made.method = override
        return made


class MethodBeforeInitial(Deletes):
    def initial(self, request, *args, **kwargs):
        request.method = request.META.get("HTTP_X_HTTP_METHOD_OVERRIDE", request.method)
        super().initial(request, *args, **kwargs)


class MethodAfterInitial(Deletes):
    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        request.method = request.META.get("HTTP_X_HTTP_METHOD_OVERRIDE", request.method)


class SwallowsRefusals(Gated):
    def check_permissions(self, request):
        with suppress(APIException):
            super().check_permissions(request)


class SwallowsEverything(Gated):
    def get_approval_context(self, request, obj):
        raise ZeroDivisionError

    def check_permissions(self, request):
        with suppress(Exception):
            super().check_permissions(request)


class AsksAny(Gated):
    """One yes is enough for it; the gate is the first it asks."""

    permission_classes = (RequiresApproval, IsAuthenticated)

    def check_permissions(self, request):
        for permission in self.get_permissions():
            with suppress(APIException):
                if permission.has_permission(request, self):
                    return
        self.permission_denied(request)


class DeniesNothing(Gated):
    def permission_denied(self, request, message=None, code=None):
        pass


class DeniesNoExport(DeniesNothing):
    approval_methods = ("GET",)

    def get(self, request, **kwargs):
        RAN.append("get")
        return Response({"exported": True})

    def post(self, request, **kwargs):
        raise ValidationError("no")


class RunsOnError(Gated):
    def handle_exception(self, exc):
        return self.post(self.request)


class RunsOnErrorInGate(RunsOnError):
    def get_approval_context(self, request, obj):
        raise ZeroDivisionError


class FinalizesToSuccess(Gated):
    def finalize_response(self, request, response, *args, **kwargs):
        made = super().finalize_response(request, response, *args, **kwargs)
        made["X-Final"] = "yes"
        return made


class CatchAll(Gated):
    """Has no handler for PUT, and does PUT's work where DRF says 405."""

    def http_method_not_allowed(self, request, *args, **kwargs):
        RAN.append("catch-all")
        return Response({})


class CatchAllByPolicy(CatchAll):
    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)


class PermissionsPerMethod(Gated):
    def get_permissions(self):
        gates = [RequiresApproval()] if self.request.method != "GET" else []
        return [IsAuthenticated(), *gates]


class WrapsTheGate(BasePermission):
    """A permission that asks the gate itself."""

    def has_permission(self, request, view):
        return RequiresApproval().has_permission(request, view)


class Wrapped(Gated):
    permission_classes = (IsAuthenticated, WrapsTheGate)


# --- composition -----------------------------------------------------------------------------------------


class OrGate(Gated):
    permission_classes = (IsAuthenticated | RequiresApproval,)


class NestedOrGate(Gated):
    permission_classes = ((IsAuthenticated & IsAuthenticated) | RequiresApproval,)


class AndGate(Gated):
    permission_classes = (IsAuthenticated & RequiresApproval,)


class NotGate(Gated):
    permission_classes = (~RequiresApproval,)


class LateOrGate(Gated):
    def get_permissions(self):
        return [(IsAuthenticated | RequiresApproval)()]


# --- order -----------------------------------------------------------------------------------------------


class Never(BasePermission):
    message = "never"

    def has_permission(self, request, view):
        return False


class RefusedBefore(Gated):
    permission_classes = (Never, RequiresApproval)


class RefusedAfter(Gated):
    permission_classes = (RequiresApproval, Never)


class GateFirst(Gated):
    permission_classes = (RequiresApproval, IsAuthenticated)


class OnlyGate(Gated):
    permission_classes = (RequiresApproval,)


class TwoGates(Gated):
    permission_classes = (RequiresApprovalByPolicy, IsAuthenticated, RequiresApproval)


class TwoAMinute(SimpleRateThrottle):
    rate = "2/min"
    counted: list[str] = []

    def get_cache_key(self, request, view):
        return f"odd-{request.user.pk}"

    def throttle_success(self):
        self.counted.append(self.key)
        return super().throttle_success()


class Throttled(Gated):
    throttle_classes = (TwoAMinute,)


class ByPolicy(Gated):
    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)


# --- kinds -----------------------------------------------------------------------------------------------


class Export(Gated):
    approval_methods = ["get"]

    def get(self, request, **kwargs):
        RAN.append("get")
        return Response({"exported": True})

    def post(self, request, **kwargs):
        raise ValidationError("no")  # beside which AdminRenderer shows the GET page


class ExportByPolicy(Export):
    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)


class Cache(Gated):
    """Methods of its own, beyond RFC 9110's."""

    http_method_names = ["get", "purge", "link", "options"]

    def purge(self, request, **kwargs):
        RAN.append("purge")
        return Response({})

    def link(self, request, **kwargs):
        RAN.append("link")
        return Response({})


class CacheThatNames(Cache):
    approval_methods = ["DELETE"]


class CustomerActions(viewsets.ModelViewSet):
    queryset = Customer.objects.order_by("pk")
    serializer_class = CustomerSerializer
    permission_classes = (IsAuthenticated, RequiresApproval)
    renderer_classes = Gated.renderer_classes
    approval_action = None  # so that @action may set it

    def perform_destroy(self, instance):
        RAN.append("destroy")

    def perform_update(self, serializer):
        RAN.append("update")

    def perform_create(self, serializer):
        RAN.append("create")

    @action(detail=True, methods=["post"], approval_action="customers.freeze_for_good")
    def freeze(self, request, pk=None):
        RAN.append("freeze")
        return Response({})

    @action(detail=True, methods=["post"])
    def thaw(self, request, pk=None):
        RAN.append("thaw")
        return Response({})

    thaw.approval_action = "customers.melt"  #

    @action(detail=False, methods=["post", "delete"])
    def everyone(self, request):
        RAN.append("everyone")
        return Response({})


class PlainViewSet(viewsets.ViewSet):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def list(self, request):
        return Response([])

    def create(self, request):
        RAN.append("create")
        return Response({}, status=201)


class OverridingViewSet(PlainViewSet):
    """Creates on POST and destroys on DELETE, whichever the header says."""

    permission_classes = (IsAuthenticated, RequiresApprovalByPolicy)

    def destroy(self, request):
        RAN.append("destroy")
        return Response(status=204)

    def initial(self, request, *args, **kwargs):
        request.method = request.META.get("HTTP_X_HTTP_METHOD_OVERRIDE", request.method)
        super().initial(request, *args, **kwargs)


class RunsByAction(PlainViewSet):
    """Calls the action itself, more than once."""

    def dispatch(self, request, *args, **kwargs):
        self.args, self.kwargs, self.headers = args, kwargs, {}
        self.request = self.initialize_request(request, *args, **kwargs)
        try:
            self.initial(self.request)
            for _ in range(3):
                response = getattr(self, self.action)(self.request)
        except Exception as error:
            response = self.handle_exception(error)
        return self.finalize_response(self.request, response)


class CallsItself(PlainViewSet):
    """One approved call that does its work in steps, through itself."""

    def create(self, request, steps=2):
        RAN.append(f"step {steps}")
        return self.create(request, steps=steps - 1) if steps else Response({}, status=201)


class AsyncView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    async def post(self, request, **kwargs):
        RAN.append("async")
        return Response({})


@api_view(["POST"])
@permission_classes([IsAuthenticated, RequiresApproval])
async def async_function(request):
    RAN.append("async")
    return Response({})


class AsyncViewSet(viewsets.ViewSet):
    permission_classes = (IsAuthenticated, RequiresApproval)

    async def create(self, request):
        RAN.append("async")
        return Response({})


@api_view(["GET", "POST"])
@permission_classes([IsAuthenticated, RequiresApproval])
def function(request):
    if request.method == "POST":
        RAN.append("function")
    return Response({})


def plain_django(request):
    """No DRF: the gate refuses to answer for it."""
    try:
        RequiresApproval().has_permission(request, object())  # type: ignore[arg-type]
    except ImproperlyConfigured as error:
        return HttpResponse(str(error), status=501)
    RAN.append("plain")
    return HttpResponse("ran")


# --- outcomes and transactions ---------------------------------------------------------------------------


class Answers(Gated):
    """Ends as the payload says."""

    def post(self, request, **kwargs):
        RAN.append("answers")
        how = request.data["how"]
        raises = {
            "api": APIException("no"),
            "404": Http404(),
            "zero": ZeroDivisionError(),
            "exit": SystemExit(3),
        }
        if how in raises:
            raise raises[how]
        return None if how == "none" else Response({}, status=how)


class Writes(Gated):
    """Writes a row and then fails, whatever the method."""

    def get(self, request, **kwargs):
        RAN.append("get")
        Customer.objects.create(name="half done")
        raise ZeroDivisionError

    def post(self, request, **kwargs):
        RAN.append("post")
        Customer.objects.create(name="half done")
        raise ValidationError("no") if "no" in request.data else ZeroDivisionError


class WritesUnasked(Writes):
    """The middleware cannot tell whether its gate is asked."""

    def check_permissions(self, request):
        if request.method != "GET":
            super().check_permissions(request)


class FailsAtCommit(Gated):
    """Succeeds; its transaction does not."""

    def post(self, request, **kwargs):
        RAN.append("post")
        Customer.objects.create(name="not to be")
        if request.data["how"] == "hook":
            transaction.on_commit(_fail)
        else:
            Account.objects.create(owner_id=999)  # found out at the commit
        return Response({})


def _fail():
    raise ZeroDivisionError


class LeavesOpen(Gated):
    """Leaves a transaction open behind it, so that nothing can be recorded."""

    opened: list[Any] = []

    def post(self, request, **kwargs):
        RAN.append("post")
        block = transaction.atomic()
        block.__enter__()
        self.opened.append(block)
        return Response({"done": True})


class InTransaction(Gated):
    def dispatch(self, request, *args, **kwargs):
        with transaction.atomic():
            return super().dispatch(request, *args, **kwargs)

"""Views for the tests of what is bound and shown; what they see can be set from outside in `SEEN`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.urls import path, re_path
from rest_framework import generics, parsers, versioning
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.parsers import FileUploadParser, FormParser, JSONParser, MultiPartParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval
from tests.testapp.models import Customer
from tests.testapp.views import CustomerSerializer

RUNS: list[Any] = []
SEEN = SimpleNamespace()


def reset() -> None:
    """Forget what ran, and what the hooks of the views answer."""
    RUNS.clear()
    SEEN.__dict__.clear()
    SEEN.__dict__.update(scope=None, context={}, version="fields", asked_with=[], action=None)


class Gated(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)
    parser_classes = (JSONParser, FormParser, MultiPartParser)

    def handle(self, request, *args, **kwargs):
        RUNS.append(kept(request.data))
        return Response({"done": True}, status=201)

    post = put = patch = delete = handle


def kept(data: Any) -> Any:
    """The data a view got, files as their contents: they are closed when the request ends."""
    if hasattr(data, "lists"):
        return {
            name: [v.read() if hasattr(v, "read") else v for v in values]
            for name, values in data.lists()
        }
    if isinstance(data, dict):
        return {name: v.read() if hasattr(v, "read") else v for name, v in data.items()}
    return data


class PayView(Gated):
    pass


class ActionView(Gated):
    @property
    def approval_action(self):
        return SEEN.action


class ScopedView(Gated):
    def get_approval_scope(self, request):
        return SEEN.scope


class ContextView(Gated):
    def get_approval_context(self, request, obj):
        SEEN.asked_with.append(obj)
        return SEEN.context

    def get_approval_object_version(self, obj):
        SEEN.asked_with.append(obj)
        return None


class VersionedView(Gated):
    versioning_class = versioning.AcceptHeaderVersioning


class UploadView(Gated):
    parser_classes = (FileUploadParser,)


class UnrelatedJSONParser(parsers.BaseParser):
    """As faster ones are: it parses JSON and does not descend from DRF's."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None):
        import json

        return json.loads(stream.read())


class LenientJSONParser(JSONParser):
    """Takes what the standard does not allow."""

    def parse(self, stream, media_type=None, parser_context=None):
        import json

        return json.loads(stream.read().decode("utf-8-sig"))


class NestingParser(MultiPartParser):
    """Puts files where the project wants them, as parsers for nested forms do."""

    def parse(self, stream, media_type=None, parser_context=None):
        parsed = super().parse(stream, media_type, parser_context)
        return {"document": {"scan": parsed.files["file"]}}


class UnrelatedJSONView(Gated):
    parser_classes = (UnrelatedJSONParser,)


class LenientView(Gated):
    parser_classes = (LenientJSONParser,)


class NestingView(Gated):
    parser_classes = (NestingParser,)

    def handle(self, request):
        RUNS.append(request.data["document"]["scan"].read())
        return Response(status=204)

    post = handle


class SessionView(Gated):
    authentication_classes = (SessionAuthentication,)


class EitherView(Gated):
    authentication_classes = (TokenAuthentication, SessionAuthentication)


class CustomerView(generics.RetrieveUpdateDestroyAPIView):
    queryset = Customer.objects.order_by("pk")
    serializer_class = CustomerSerializer
    permission_classes = (IsAuthenticated, RequiresApproval)

    def perform_destroy(self, instance):
        RUNS.append(("destroy", instance.pk))
        instance.delete()


class WithVersionView(CustomerView):
    def get_approval_object_version(self, obj):
        SEEN.asked_with.append(obj)
        return SEEN.version(obj)

    def get_approval_context(self, request, obj):
        SEEN.asked_with.append(obj)
        return SEEN.context


class Unspeakable(Customer):
    """An object whose label cannot be had."""

    class Meta:
        proxy = True
        app_label = "testapp"

    def __str__(self) -> str:
        raise RuntimeError("secret of the label")


class ChosenView(CustomerView):
    def get_object(self):
        return self.get_queryset().get(pk=SEEN.chosen)


class UnspeakableView(CustomerView):
    queryset = Unspeakable.objects.order_by("pk")


urlpatterns = [
    path("pay/", PayView.as_view()),
    path("pay/<str:account>/", PayView.as_view()),
    path("again/", PayView.as_view()),
    re_path(r"^loose/(?:.*)$", PayView.as_view()),
    path("extra-a/", PayView.as_view(), {"extra": "a"}),
    path("action/", ActionView.as_view()),
    path("scoped/", ScopedView.as_view()),
    path("context/", ContextView.as_view()),
    path("versioned/", VersionedView.as_view()),
    path("upload/", UploadView.as_view()),
    path("unrelated/", UnrelatedJSONView.as_view()),
    path("lenient/", LenientView.as_view()),
    path("nesting/", NestingView.as_view()),
    path("session/", SessionView.as_view()),
    path("either/", EitherView.as_view()),
    path("customers/<int:pk>/", CustomerView.as_view()),
    path("with-version/<int:pk>/", WithVersionView.as_view()),
    path("chosen/<int:pk>/", ChosenView.as_view()),
    path("unspeakable/<int:pk>/", UnspeakableView.as_view()),
]

"""Routes of the odd views, each under its name in lower case."""

import inspect

from django.urls import include, path
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from tests.testapp import odd_views, views


def _plain_views():
    for name, view in vars(odd_views).items():
        own = inspect.isclass(view) and view.__module__ == odd_views.__name__
        if own and issubclass(view, APIView) and not issubclass(view, ViewSetMixin):
            yield name.lower(), view


router = SimpleRouter()
router.register("customers", odd_views.CustomerActions, basename="customers")
router.register("plain", odd_views.PlainViewSet, basename="plain")
router.register("runsbyaction", odd_views.RunsByAction, basename="runsbyaction")
router.register("callsitself", odd_views.CallsItself, basename="callsitself")
router.register("asyncviewset", odd_views.AsyncViewSet, basename="asyncviewset")

urlpatterns = [
    path("approvals/", include("jit_approval.urls")),
    path("function/", odd_views.function),
    path("async_function/", odd_views.async_function),
    path("plain_django/", odd_views.plain_django),
    path("generic/<int:pk>/", views.CustomerDestroyView.as_view()),
    path(
        "overriding/", odd_views.OverridingViewSet.as_view({"post": "create", "delete": "destroy"})
    ),
    *(path(f"{name}/", view.as_view()) for name, view in _plain_views()),
    path("borrowsverdict/<int:pk>/", odd_views.BorrowsVerdict.as_view()),
    *router.urls,
]

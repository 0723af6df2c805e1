"""The routes of the test project; a test that needs views of its own overrides ROOT_URLCONF."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import SimpleRouter

from tests.testapp import views

router = SimpleRouter()
router.register("customers", views.CustomerViewSet, basename="customers")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("approvals/", include("jit_approval.urls")),
    path("api/", include(router.urls)),
    path("api/generic/<int:pk>/", views.CustomerDestroyView.as_view()),
    path("api/transfers/", views.TransferView.as_view()),
    path("api/purge/", views.purge_cache),
]

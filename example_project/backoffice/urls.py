"""The API's addresses.

The basenames are part of the actions' names, which policies match: `customers.destroy`.
"""

from django.urls import path
from rest_framework.routers import DefaultRouter

from . import views

router = DefaultRouter()
router.register("customers", views.CustomerViewSet, basename="customers")
router.register("datasets", views.DatasetViewSet, basename="datasets")
router.register("accounts", views.AccountViewSet, basename="accounts")
router.register("transfers", views.TransferViewSet, basename="transfers")
router.register("clusters", views.ClusterViewSet, basename="clusters")

urlpatterns = [
    path(
        "clusters/<slug:name>/shutdown/",
        views.ClusterShutdownView.as_view(),
        name="cluster-shutdown",
    ),
    *router.urls,
]

"""The API. `RequiresApproval`, last in `permission_classes`, is all that holds a call back."""

from typing import Any

from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval

from . import money
from .models import Account, Cluster, Customer, Dataset, Transfer
from .serializers import (
    AccountSerializer,
    ClusterSerializer,
    CustomerSerializer,
    DatasetSerializer,
    TransferSerializer,
)


class CustomerViewSet(
    mixins.CreateModelMixin, mixins.DestroyModelMixin, viewsets.ReadOnlyModelViewSet
):
    """Customers. Reading and adding them is everyday work; erasing or exporting one is not."""

    queryset = Customer.objects.all()
    serializer_class = CustomerSerializer
    permission_classes = [IsAuthenticated, RequiresApproval]
    approval_methods = ["DELETE"]

    def get_approval_context(self, request: Request, obj: Customer) -> dict[str, Any]:
        """What the approver should know beside the call: how much goes with this customer."""
        return {"customer": obj.name, "datasets": obj.datasets.count()}

    # This one only reads, and still must be approved: data that has left does not come back.
    @action(detail=True, methods=["get"], approval_methods=["GET"])
    def export(self, request: Request, pk: str) -> Response:
        """Everything we hold about one customer."""
        customer = self.get_object()
        datasets = DatasetSerializer(customer.datasets.all(), many=True)
        return Response({"customer": CustomerSerializer(customer).data, "datasets": datasets.data})


class DatasetViewSet(mixins.DestroyModelMixin, viewsets.ReadOnlyModelViewSet):
    """Whole customer datasets. `DELETE` erases one for good."""

    queryset = Dataset.objects.select_related("customer")
    serializer_class = DatasetSerializer
    permission_classes = [IsAuthenticated, RequiresApproval]

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One dataset; that it was looked at is noted on it."""
        dataset = self.get_object()
        dataset.last_read_at = timezone.now()
        dataset.save(update_fields=["last_read_at"])
        return Response(self.get_serializer(dataset).data)

    def get_approval_context(self, request: Request, obj: Dataset) -> dict[str, Any]:
        """Whose data it is, and how much."""
        return {"customer": obj.customer.name, "dataset": obj.name, "rows": obj.rows}

    def get_approval_object_version(self, obj: Dataset | None) -> str:
        """An approval dies when the data changes, not when somebody has merely looked at it."""
        return "" if obj is None else f"{obj.customer_id}:{obj.name}:{obj.rows}"


class AccountViewSet(viewsets.ReadOnlyModelViewSet):
    """Our accounts and their balances; they change by transfers only."""

    queryset = Account.objects.all()
    serializer_class = AccountSerializer
    lookup_field = "number"


class TransferViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet):
    """Transfers. `POST` moves real money at once."""

    queryset = Transfer.objects.select_related("source", "target", "created_by")
    serializer_class = TransferSerializer
    permission_classes = [IsAuthenticated, RequiresApproval]

    def perform_create(self, serializer: BaseSerializer) -> None:
        """Move the money that the body names."""
        try:
            serializer.instance = money.transfer(**serializer.validated_data, by=self.request.user)
        except money.InsufficientFunds as error:
            raise ValidationError(
                {"amount": "The source account does not hold that much."}
            ) from error


class ClusterViewSet(viewsets.ReadOnlyModelViewSet):
    """Our clusters, to look at."""

    queryset = Cluster.objects.all()
    serializer_class = ClusterSerializer
    lookup_field = "name"


class ClusterShutdownView(APIView):
    """`POST` stops every machine of a cluster."""

    permission_classes = [IsAuthenticated, RequiresApproval]
    approval_action = "clusters.shutdown"

    def get_approval_context(self, request: Request, obj: None) -> dict[str, Any]:
        """What would go down. An unknown cluster is a 404 here, before anyone is asked."""
        cluster = get_object_or_404(Cluster, name=self.kwargs["name"])
        return {"cluster": cluster.name, "nodes": cluster.nodes, "state": cluster.state}

    def post(self, request: Request, name: str) -> Response:
        """Stop it; stopping what is stopped changes nothing."""
        cluster = get_object_or_404(Cluster, name=name)
        cluster.state = Cluster.State.STOPPED
        cluster.save(update_fields=["state"])
        return Response(ClusterSerializer(cluster).data)

"""Views of every kind that a project may gate; `RUNS` counts what really ran."""

from __future__ import annotations

from typing import Any

from rest_framework import generics, serializers, viewsets
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval
from tests.testapp.models import Customer

RUNS: list[Any] = []


class CustomerSerializer(serializers.ModelSerializer):
    class Meta:
        model = Customer
        fields = ("id", "name", "email", "balance")


class CustomerViewSet(viewsets.ModelViewSet):
    queryset = Customer.objects.order_by("pk")
    serializer_class = CustomerSerializer
    permission_classes = (IsAuthenticated, RequiresApproval)

    def perform_destroy(self, instance):
        RUNS.append(("destroy", instance.pk))
        instance.delete()

    def perform_create(self, serializer):
        RUNS.append(("create", serializer.validated_data["name"]))
        serializer.save()

    @action(detail=True, methods=["post"])
    def freeze(self, request, pk=None):
        RUNS.append(("freeze", pk))
        return Response({"frozen": pk})


class CustomerDestroyView(generics.RetrieveUpdateDestroyAPIView):
    queryset = Customer.objects.order_by("pk")
    serializer_class = CustomerSerializer
    permission_classes = (IsAuthenticated, RequiresApproval)

    def perform_destroy(self, instance):
        RUNS.append(("destroy", instance.pk))
        instance.delete()


class TransferView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def get(self, request):
        return Response({"read": True})

    def post(self, request, **kwargs):
        RUNS.append(("transfer", request.data))
        return Response({"moved": True}, status=201)


@api_view(["GET", "POST"])
@permission_classes([IsAuthenticated, RequiresApproval])
def purge_cache(request):
    if request.method == "POST":
        RUNS.append("purge")
    return Response({"purged": request.method == "POST"})

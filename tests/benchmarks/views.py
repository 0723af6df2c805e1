"""The same view twice: plain, and behind the gate."""

from __future__ import annotations

from django.urls import path
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval
from tests.testapp.models import Customer


class PlainView(APIView):
    permission_classes = (IsAuthenticated,)

    def get(self, request):
        return Response({"read": True})

    def post(self, request):
        return Response({"moved": request.data["amount"]}, status=201)


class GatedView(PlainView):
    permission_classes = (IsAuthenticated, RequiresApproval)


class PlainObjectView(GenericAPIView):
    queryset = Customer.objects.all()
    permission_classes = (IsAuthenticated,)

    def delete(self, request, pk):
        return Response({"erased": pk})


class GatedObjectView(PlainObjectView):
    permission_classes = (IsAuthenticated, RequiresApproval)


urlpatterns = [
    path("plain/", PlainView.as_view()),
    path("gated/", GatedView.as_view()),
    path("plain/<int:pk>/", PlainObjectView.as_view()),
    path("gated/<int:pk>/", GatedObjectView.as_view()),
]

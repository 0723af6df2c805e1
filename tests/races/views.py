"""A gated endpoint whose runs are counted outside every transaction of the application."""

from __future__ import annotations

import os

from django.urls import path
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval.permissions import RequiresApproval


class CountedView(APIView):
    """Appends one line per run to the file that the environment names: no rollback takes it back."""

    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request):
        runs = os.open(os.environ["JIT_TEST_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(runs, f"{request.data['grant']}\n".encode())
        finally:
            os.close(runs)
        return Response({"ran": True}, status=201)


urlpatterns = [path("counted/", CountedView.as_view())]

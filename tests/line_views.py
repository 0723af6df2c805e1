"""What a real server serves whose callers wait: a gated call, its own health, and who waits."""

from __future__ import annotations

import os
import threading
import time

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from jit_approval import waiting
from jit_approval.permissions import RequiresApproval


class PayView(APIView):
    permission_classes = (IsAuthenticated, RequiresApproval)

    def post(self, request):
        at = time.monotonic_ns()
        with open(os.environ["JIT_LINE_RUNS"], "a") as runs:
            runs.write(f"{request.data['number']}\n")
        until = request.data.get("until")
        while until and not os.path.exists(until):
            try:
                time.sleep(0.02)
            except BaseException:
                if not request.data.get("swallows"):
                    raise
        return Response({"at": at, "number": request.data["number"]}, status=201)


def health(request: HttpRequest) -> JsonResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"well": True})


def inside(request: HttpRequest) -> JsonResponse:
    """What only the process itself knows."""
    return JsonResponse(
        {"pid": os.getpid(), "waiters": waiting.waiters(), "threads": threading.active_count()}
    )


urlpatterns = [
    path("pay/", PayView.as_view()),
    path("health/", health),
    path("inside/", inside),
    path("approvals/", include("jit_approval.urls")),
]

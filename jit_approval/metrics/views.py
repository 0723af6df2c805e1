"""The page that Prometheus scrapes: closed, unless the settings or a permission open it."""

from __future__ import annotations

from functools import cache
from hmac import compare_digest

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from jit_approval import conf
from jit_approval.metrics.collector import Collector

_PERMISSION = "jit_approval.view_approvalrequest"


@require_safe
@never_cache
def view(request: HttpRequest) -> HttpResponse:
    """Return the metrics to who sends `METRICS_TOKEN` as a bearer token, or may view held calls.

    Raises:
        PermissionDenied: to everybody else.
    """
    if not (_has_token(request) or _has_permission(request)):
        raise PermissionDenied
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry()), content_type=content_type)


def _has_token(request: HttpRequest) -> bool:
    token = conf.get().METRICS_TOKEN
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_bearer = bool(token) and scheme.lower() == "bearer"
    return is_bearer and compare_digest(given.strip().encode(), token.encode())


def _has_permission(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.has_perm(_PERMISSION)


@cache
def _registry() -> CollectorRegistry:
    # Of its own: whatever else this process counts is its project's to publish.
    registry = CollectorRegistry()
    registry.register(Collector())
    return registry

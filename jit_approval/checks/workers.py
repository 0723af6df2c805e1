"""Checks of the workers that run calls: what django-q2 would cut off, or start again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Warning

from jit_approval import conf

# django-q2's own, in seconds.
_RETRY = 60


def check() -> Iterator[CheckMessage]:
    """Yield what a project has to know whose server runs calls in a cluster of django-q2."""
    cluster: dict[str, Any] = getattr(settings, "Q_CLUSTER", None) or {}
    timeout, retry = cluster.get("timeout"), cluster.get("retry", _RETRY)
    if not timeout or not apps.is_installed("django_q"):
        return
    limit = conf.get().RUN_LIMIT.total_seconds()
    if timeout < limit:
        yield Warning(
            f"Q_CLUSTER['timeout'] ends a run after {timeout} seconds, and JIT_APPROVAL['RUN_LIMIT'] lets calls that "
            f"the server runs take {limit:g}: one that is cut off ends as unknown, and is never run again.",
            hint="Set timeout to RUN_LIMIT in seconds, and retry above it; or RUN_LIMIT to timeout, if no call takes "
            "longer.",
            id="jit_approval.W030",
        )
    if retry <= timeout:
        yield Warning(
            f"Q_CLUSTER['retry'] ({retry}) is not above its timeout ({timeout}): tasks that still run are started "
            "again. No call runs twice by that, but workers are kept from those that wait.",
            hint="Set retry above timeout.",
            id="jit_approval.W031",
        )

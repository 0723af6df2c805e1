"""Middleware for projects that use ATOMIC_REQUESTS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.views import APIView

from jit_approval import gated
from jit_approval.handlers import ATOMIC_MARK


class GateBeforeTransaction:
    """Let the gate decide before Django opens the view's transaction; the gate opens it for the handler.

    Without it a gated call under ATOMIC_REQUESTS is refused: inside the view's transaction the held request
    would be rolled back, and a spent approval would come back to life.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        """Keep the next in the chain."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Do nothing, outside of tests: `process_view` is where the callback is known."""
        response = self.get_response(request)
        match = request.resolver_match
        for alias in getattr(match.func, ATOMIC_MARK, ()) if match else ():
            _spare_testcase(alias)
        return response

    def process_view(
        self, request: HttpRequest, callback: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        """Free a gated callback of the transactions that the gate will open around its handler."""
        if hasattr(callback, ATOMIC_MARK) or not carries_gate(callback):
            return None
        spared = frozenset(getattr(callback, "_non_atomic_requests", ()))
        aliases = [
            alias
            for alias, settings in connections.settings.items()
            if settings["ATOMIC_REQUESTS"] and alias not in spared
        ]
        callback._non_atomic_requests = spared.union(aliases)
        setattr(callback, ATOMIC_MARK, tuple(aliases))
        return None


def carries_gate(callback: Any) -> bool:
    """Tell whether the gate is sure to be asked for this callback.

    A class that overrides `get_permissions` or `check_permissions` may or may not ask: it keeps its
    transaction, and a gated call inside it is refused.
    """
    view = getattr(callback, "cls", None)
    if view is None or any(
        getattr(view, name) is not getattr(APIView, name)
        for name in ("get_permissions", "check_permissions")
    ):
        return False
    initkwargs = getattr(callback, "initkwargs", {})
    classes = initkwargs.get("permission_classes", view.permission_classes)
    # A property says something only on an instance.
    return isinstance(classes, list | tuple) and gated.has_gate(classes)


def _spare_testcase(alias: str) -> None:
    """Take back DRF's set_rollback() where it hit the transaction that Django's TestCase wraps a test in.

    It was meant for the view's own, which this callback does without; the handler's has been rolled back.
    """
    blocks = connections[alias].atomic_blocks
    if blocks and getattr(blocks[-1], "_from_testcase", False):
        connections[alias].set_rollback(False)

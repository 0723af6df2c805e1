"""Send a rebuilt call through the project's whole middleware chain, in this process, as a server would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.core.signals import request_started, setting_changed
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import get_script_prefix, set_script_prefix
from django.utils import timezone, translation

from jit_approval import middleware, replays


class Handler(BaseHandler):
    """The chain of the settings, and before all of it a look at whether the view still carries the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()
        # First: what comes after it may be a middleware that answers in the view's place.
        self._view_middleware.insert(0, only_gated)  # type: ignore[attr-defined]


def only_gated(request: Any, callback: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
    """Refuse a view without a gate, where nothing would ask for the approval: the project has changed since."""
    ticket = replays.of(request)
    if ticket is not None and middleware.carries_gate(callback):
        return None
    if ticket is not None:
        ticket.refused = "the view is not gated any more"
    return HttpResponse(status=403)


@contextmanager
def answered(request: WSGIRequest) -> Iterator[HttpResponseBase]:
    """Give the answer to this call; it is closed in the end, and this thread is as it was before."""
    prefix, language = get_script_prefix(), translation.get_language()
    translation.deactivate()
    with timezone.override(None):
        try:
            set_script_prefix(get_script_name(request.environ))
            request_started.send(sender=Handler, environ=request.environ)
            response = _handler().get_response(request)
            try:
                yield response
            finally:
                response.close()
        finally:
            set_script_prefix(prefix)
            if language is not None:
                translation.activate(language)


@cache
def _handler() -> Handler:
    return Handler()


def _forget(**_: Any) -> None:
    _handler.cache_clear()


# Sent in tests alone: a test may have another chain.
setting_changed.connect(_forget, dispatch_uid="jit_approval.execution.handler")

"""Middleware, each for projects that need it: ATOMIC_REQUESTS, and callers that wait on the line."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.views import APIView

from jit_approval import conf, gated, links, repeating, waiting
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


_turns = waiting.Turns(32)
_HELD = (HTTPStatus.FORBIDDEN, HTTPStatus.ACCEPTED)


class WaitForApproval:
    """Keep a caller that sends `Prefer: wait` on the line until its call is decided, then make the call again.

    List it first: the call is made again through everything that follows, authentication included, just as if the
    caller had repeated it. Under ASGI who waits holds no thread.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Keep the next in the chain, and be what it is: a function or a coroutine function."""
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Pass on what does not wait; nothing is done unless the caller asks, and may."""
        asked = waiting.asked(request, threaded=not self._is_async)
        may = asked is not None and not waiting.in_transactions()
        repeatable = repeating.repeatable(request) if may else None
        if asked is None or repeatable is None:
            return self.get_response(request)
        line = _Line(asked, repeatable)
        return self._on_loop(request, line) if self._is_async else self._in_thread(request, line)

    async def _on_loop(self, request: HttpRequest, line: _Line) -> HttpResponseBase:
        response = await self.get_response(request)
        while (held := line.held_by(response)) is not None:
            with waiting.seat(held.reader, line.asked) as granted:
                # In the thread that ran the view: the connection is its own.
                if not granted or not await sync_to_async(waiting.release_connections)():
                    break
                del response  # it keeps the view and all it has read
                waits_for: waiting.Held | None = held
                while waits_for is not None:
                    await waiting.wait_on_loop(waits_for, line.left(waits_for))
                    waits_for = await self._looked(line, waits_for)
            async with _turns.here():
                response = await self.get_response(line.again(held))
        return line.answer(response)

    def _in_thread(self, request: HttpRequest, line: _Line) -> HttpResponseBase:
        response: HttpResponseBase = self.get_response(request)
        while (held := line.held_by(response)) is not None:
            with waiting.seat(held.reader, line.asked) as granted:
                if not granted or not waiting.release_connections():
                    break
                if not line.wait_in_thread(held, request):
                    break  # it would run, and nobody would hear of it
            response = self.get_response(line.again(held))
        return line.answer(response)

    async def _looked(self, line: _Line, held: waiting.Held) -> waiting.Held | None:
        if not line.goes_on(held):
            return None
        async with _turns.here():
            return await sync_to_async(line.looked)(held)


class _Line:
    """One caller that would like to wait, and has not all the time in the world."""

    def __init__(self, asked: waiting.Asked, repeatable: repeating.Repeatable) -> None:
        self.asked = asked
        self._repeatable = repeatable
        self._since = monotonic()
        self._waited = False
        self._is_servers: waiting.Held | None = None

    def held_by(self, response: HttpResponseBase) -> waiting.Held | None:
        """Return what the answer waits for, if it does, and there is time left."""
        # The status API marks its answers too; those wait in their own view.
        held = waiting.held_by(response) if response.status_code in _HELD else None
        return held if held is not None and self.left(held) > 0 else None

    def left(self, held: waiting.Held) -> float:
        """Return for how many seconds the caller may wait for this."""
        allowed = min(conf.get().MAX_WAIT.total_seconds(), held.allowed)
        until = self._since + min(self.asked.seconds, allowed)
        return min(until - monotonic(), held.until_deadline)

    def goes_on(self, held: waiting.Held) -> bool:
        """Tell whether to wait on if nothing speaks against it: the server runs the call, and there is time left."""
        return held.by_server and self.left(held) > 0

    def looked(self, held: waiting.Held) -> waiting.Held | None:
        """Return what the caller waits for by now; None where the call is to be made again."""
        found = waiting.looked(held)
        released = waiting.release_connections()
        return found if found is not None and released and self.left(found) > 0 else None

    def wait_in_thread(self, held: waiting.Held, request: HttpRequest) -> bool:
        """Wait until the call is to be made again. False: nobody is left to answer."""
        waits_for: waiting.Held | None = held
        while waits_for is not None:
            if not waiting.wait_in_thread(waits_for, self.left(waits_for), request):
                return False
            waits_for = self.looked(waits_for) if self.goes_on(waits_for) else None
        return True

    def again(self, held: waiting.Held) -> HttpRequest:
        """Return the call, made again."""
        self._waited = True
        self._is_servers = held if held.by_server else None
        return self._repeatable.again(held.pk)

    def answer(self, response: HttpResponseBase) -> HttpResponseBase:
        """Return the answer, and say on it that the caller was let wait."""
        if self._waited:
            others = response.headers.get("Preference-Applied")
            applied = ", ".join(filter(None, (others, self.asked.applied)))
            response.headers["Preference-Applied"] = applied
        if self._is_servers is not None and "Approval-Id" not in response.headers:
            self._point_to(self._is_servers, response)
        closers: list[Any] = vars(response)["_resource_closers"]
        closers.append(self._repeatable.close)
        return response

    @staticmethod
    def _point_to(held: waiting.Held, response: HttpResponseBase) -> None:
        """Say where to look: something before the gate refused the caller by now, but the server may have run it."""
        response.headers["Approval-Id"] = str(held.pk)
        link = links.status_url(held)
        if link:
            response.headers["Link"] = f'<{link}>; rel="status"'

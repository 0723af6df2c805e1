"""The status of one request, read again and again: by long poll, or by those who look too often.

The view proper is DRF's, run in a thread, as often as there may be something new: who asks is authenticated, and
what they may see is looked up, each time. In between nothing is held: no thread that works, no connection.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from threading import Lock
from time import monotonic
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from jit_approval import conf, problems, waiting
from jit_approval.api.views import RequestDetailView

_turns = waiting.Turns(8)

Read = Callable[[HttpRequest], HttpResponseBase]

# Seconds that a thread is kept for a long poll, where it takes one.
_SHORT = 10.0
# A timer may be early; and of so many who look, the last looks are remembered.
_EARLY = 0.5
_MANY = 10_000


def detail_view() -> Callable[..., Any]:
    """Return the callback of `request-detail`. To `Prefer: wait` with `If-None-Match` it answers when there is news."""
    detail = RequestDetailView.as_view()

    @functools.wraps(detail)
    async def callback(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        read = functools.partial(detail, *args, **kwargs)
        threaded = not isinstance(request, ASGIRequest)
        asked = waiting.asked(request, threaded=threaded)
        if asked is None:
            response, _ = await _read(read, request)
        else:
            response = await _wait(request, asked, read)
        held = waiting.held_by(response)
        waited = "Preference-Applied" in response.headers
        return (None if waited or held is None else _slow_down(held, response)) or response

    return callback


async def _wait(request: HttpRequest, asked: waiting.Asked, read: Read) -> HttpResponseBase:
    """Return the answer once there is news, or the time is up, or at once where there is no seat."""
    response, released = await _read(read, request, release=True)
    held = waiting.held_by(response)
    if held is None or not released:
        return response
    seconds = min(asked.seconds, conf.get().MAX_WAIT.total_seconds(), *[_SHORT] * asked.threaded)
    until = monotonic() + seconds
    with waiting.seat(held.reader, asked) as granted:
        while granted and held is not None and released:
            del response  # it keeps the view and all it has read
            left = until - monotonic()
            await waiting.wait_on_loop(held, min(left, held.until_deadline))
            response, released = await _read(read, _anew(request), release=True)
            response.headers["Preference-Applied"] = asked.applied
            held = waiting.held_by(response) if monotonic() < until else None
    return response


async def _read(
    read: Read, request: HttpRequest, *, release: bool = False
) -> tuple[HttpResponseBase, bool]:
    """Return the answer as of now, and whether it is 304 and nothing of the database is held any more."""

    def reading() -> tuple[HttpResponseBase, bool]:
        response = read(request)
        silent = response.status_code == HTTPStatus.NOT_MODIFIED
        return response, release and silent and waiting.release_connections()

    async with _turns.here():
        return await sync_to_async(reading)()


def _anew(request: HttpRequest) -> HttpRequest:
    """Return the request with nothing known of who makes it: a session may have ended, an account been closed."""
    made = type(request).__new__(type(request))
    vars(made).update(vars(request))
    vars(made).pop("_cached_user", None)
    vars(made).pop("_acached_user", None)
    session = vars(made).get("session")
    if session is not None:
        made.session = type(session)(session.session_key)
        made.user = SimpleLazyObject(lambda: get_user(made))  # type: ignore[assignment]
    return made


# --- who looks too often -----------------------------------------------------------------------------------


class _Looks:
    """When each requester was last told what of each request. Of this process alone: others count for themselves."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: OrderedDict[Any, tuple[str, float]] = OrderedDict()

    def too_soon(self, key: Any, etag: str) -> bool:
        """Tell whether the same was told within the interval; if not, note that it is told now."""
        now = monotonic()
        with self._lock:
            told, at = self._last.get(key, ("", 0.0))
            if told == etag and now - at < conf.get().POLL_INTERVAL - _EARLY:
                return True
            self._last[key] = etag, now
            self._last.move_to_end(key)
            if len(self._last) > _MANY:
                self._last.popitem(last=False)
            return False


_looks = _Looks()


def _slow_down(held: waiting.Held, response: Any) -> HttpResponseBase | None:
    """Return 429 for a requester's client that has been told just this within the interval."""
    of_a_client = held.is_requester and response.accepted_renderer.format == "json"
    if not of_a_client or not _looks.too_soon((held.reader, held.pk), response.headers["ETag"]):
        return None
    problem = problems.slow_down()
    return JsonResponse(
        problem.body,
        status=problem.status_code,
        headers=problem.headers,
        content_type="application/problem+json",
    )

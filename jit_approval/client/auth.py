"""Waiting for approval as httpx authentication: `httpx.Client(auth=ApprovalAuth(wait=600))`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import anyio
import httpx

from jit_approval.client.exchange import Exchange, Said
from jit_approval.client.flow import Options
from jit_approval.client.pending import Pending

LOOKS = 16
"""httpx counts every request of one call against `max_redirects` (20): the call, its repeat, the looks between."""


class ApprovalAuth(httpx.Auth):
    """Wait while a call is held, then make the very same call; answers that are not the gate's pass untouched.

    `auth` is the authentication proper, as httpx takes it: a pair, a callable, another `httpx.Auth`. `wait` is in
    seconds; `on_pending` is called when the call is held and whenever more is known. `reason` and `agent` are sent
    where the call brings no header of its own. `hold` asks the server to keep the call itself on the line for so
    many seconds; an error of the network then leaves open whether it ran.

    The request's body is read into memory, since it may have to be sent again.
    """

    requires_request_body = True

    def __init__(
        self,
        auth: Any = None,
        *,
        wait: float = 600.0,
        on_pending: Callable[[Pending], object] | None = None,
        reason: str = "",
        agent: str = "",
        hold: float = 0.0,
        looks: int = LOOKS,
    ) -> None:
        """Keep the options."""
        self._auth = _as_auth(auth)
        self._options = Options(wait=wait, on_pending=on_pending, looks=looks)
        self._says = Said(reason, agent, hold)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send, wait, look and repeat.

        Raises:
            ApprovalError: the call did not run, and why.
        """
        request.read()
        exchange = Exchange(self._says.on(request), self._options)
        outgoing: httpx.Request | float | None = exchange.request
        while outgoing is not None:
            if isinstance(outgoing, float | int):
                time.sleep(outgoing)
                outgoing = exchange.next(None)
                continue
            response = yield from self._authenticated(outgoing)
            if exchange.must_read(response):
                response.read()
            outgoing = exchange.next(response)

    def _authenticated(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, httpx.Response]:
        flow = self._auth.sync_auth_flow(request)
        try:
            outgoing = next(flow)
            while True:
                response = yield outgoing
                try:
                    outgoing = flow.send(response)
                except StopIteration:
                    return response
        finally:
            flow.close()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same, asynchronously."""
        await request.aread()
        exchange = Exchange(self._says.on(request), self._options)
        outgoing: httpx.Request | float | None = exchange.request
        while outgoing is not None:
            if isinstance(outgoing, float | int):
                await anyio.sleep(outgoing)
                outgoing = exchange.next(None)
                continue
            flow = self._auth.async_auth_flow(outgoing)
            try:
                authenticated = await anext(flow)
                while True:
                    response = yield authenticated
                    try:
                        authenticated = await flow.asend(response)
                    except StopAsyncIteration:
                        break
            finally:
                await flow.aclose()
            if exchange.must_read(response):
                await response.aread()
            outgoing = exchange.next(response)


def _as_auth(auth: Any) -> httpx.Auth:
    """Return what httpx would make of `auth=`."""
    if auth is None:
        return httpx.Auth()
    if isinstance(auth, tuple):
        return httpx.BasicAuth(*auth)
    if isinstance(auth, httpx.Auth):
        return auth
    if callable(auth):
        return _Function(auth)
    raise TypeError(f"auth is a pair, a callable or an httpx.Auth, not {type(auth).__name__}")


class _Function(httpx.Auth):
    def __init__(self, function: Callable[[httpx.Request], httpx.Request]) -> None:
        self._function = function

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield self._function(request)

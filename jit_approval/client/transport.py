"""Waiting for approval below httpx's client: no limit to the looks, and a look that is lost is looked again.

`httpx.Client(transport=ApprovalTransport(), auth=…)`. What `ApprovalAuth` does, without counting against
`max_redirects`, and under whatever authentication the client has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx

from jit_approval.client.exchange import Exchange, Said
from jit_approval.client.flow import Options
from jit_approval.client.pending import Pending


class _Waiting:
    def __init__(
        self,
        transport: Any = None,
        *,
        wait: float = 600.0,
        on_pending: Callable[[Pending], object] | None = None,
        reason: str = "",
        agent: str = "",
        hold: float = 0.0,
    ) -> None:
        """Keep the options; `transport` is what sends, by default httpx's own. See `ApprovalAuth`."""
        self._inner = transport if transport is not None else self._default()
        self._options = Options(wait=wait, on_pending=on_pending)
        self._says = Said(reason, agent, hold)

    def _default(self) -> Any:
        raise NotImplementedError

    def _exchange(self, request: httpx.Request) -> Exchange:
        return Exchange(self._says.on(request), self._options)


class ApprovalTransport(_Waiting, httpx.BaseTransport):
    """Wait while a call is held, then make the very same call."""

    def _default(self) -> httpx.BaseTransport:
        return httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, wait, look and repeat.

        Raises:
            ApprovalError: the call did not run, and why.
            httpx.TransportError: the network failed. After approval the call may have run: it is not sent again.
        """
        request.read()
        exchange = self._exchange(request)
        outgoing: httpx.Request | float = exchange.request
        while True:
            response = None
            if isinstance(outgoing, float | int):
                time.sleep(outgoing)
            else:
                response = self._sent(exchange, outgoing)
            following = exchange.next(response)
            if following is None:
                assert response is not None  # noqa: S101 - a flow ends with an answer
                return response
            outgoing = following

    def _sent(self, exchange: Exchange, outgoing: httpx.Request) -> httpx.Response | None:
        try:
            response = self._inner.handle_request(outgoing)
            response.request = outgoing
            if exchange.must_read(response):
                response.read()
        except httpx.TransportError:
            if exchange.may_be_lost:
                return None
            raise
        found: httpx.Response = response
        return found

    def close(self) -> None:
        """Close what sends."""
        self._inner.close()


class AsyncApprovalTransport(_Waiting, httpx.AsyncBaseTransport):
    """The same, for `httpx.AsyncClient`."""

    def _default(self) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, wait, look and repeat; see `ApprovalTransport.handle_request`."""
        await request.aread()
        exchange = self._exchange(request)
        outgoing: httpx.Request | float = exchange.request
        while True:
            response = None
            if isinstance(outgoing, float | int):
                await anyio.sleep(outgoing)
            else:
                response = await self._sent(exchange, outgoing)
            following = exchange.next(response)
            if following is None:
                assert response is not None  # noqa: S101 - a flow ends with an answer
                return response
            outgoing = following

    async def _sent(self, exchange: Exchange, outgoing: httpx.Request) -> httpx.Response | None:
        try:
            response = await self._inner.handle_async_request(outgoing)
            response.request = outgoing
            if exchange.must_read(response):
                await response.aread()
        except httpx.TransportError:
            if exchange.may_be_lost:
                return None
            raise
        found: httpx.Response = response
        return found

    async def aclose(self) -> None:
        """Close what sends."""
        await self._inner.aclose()

"""Callers who wait on the line, each in a thread of its own, over the HTTP stack in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connections
from rest_framework.test import APIClient

from jit_approval import waiting, waking

MIDDLEWARE = "jit_approval.middleware.WaitForApproval"
PATIENCE = 30.0
"""Seconds until something that is about to happen has not happened."""


def until(true: Callable[[], Any], what: str = "") -> Any:
    """What the function returns once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"it did not happen: {what or true}")


def until_waiting(count: int = 1) -> None:
    """Return when so many wait on the line."""
    until(lambda: waiting.waiters() == count, f"{count} wait, not {waiting.waiters()}")


def client(token: str) -> APIClient:
    """A client of a server with threads."""
    extra = {"HTTP_PREFER": "wait=25", "wsgi.multithread": True}
    made = APIClient(raise_request_exception=False, **extra)
    made.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return made


class Lines:
    """Calls that are made at the same time."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def call(self, call: Callable[..., Any], *args: Any, **extra: Any) -> Future[Any]:
        """Make the call elsewhere; what it returns is the answer, once there is one."""

        def make() -> Any:
            try:
                return call(*args, **extra)
            finally:
                connections.close_all()

        return self._pool.submit(make)


@contextmanager
def lines() -> Iterator[Lines]:
    """Lines that are all hung up in the end, the listener's included."""
    with ThreadPoolExecutor(32) as pool:
        try:
            yield Lines(pool)
        finally:
            pool.shutdown(wait=True)
            waking.stop()

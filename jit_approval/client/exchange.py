"""One call through httpx: steps of the flow as requests, responses as answers. Sync and async share it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from jit_approval.client.answers import Answer, result_of, same_origin
from jit_approval.client.errors import ApprovalError
from jit_approval.client.flow import Fetch, Flow, Look, Options, Pause, Repeat, Step, Steps
from jit_approval.client.headers import OF_THE_CALL

_SLACK = 20.0
_OF_THE_EXCHANGE = ("extensions", "history", "default_encoding")


class Exchange:
    """One call. Give `next` each response; it returns the next request, seconds to sleep, or None: done."""

    def __init__(self, request: httpx.Request, options: Options) -> None:
        """Begin with a request whose body has been read."""
        self.request = bindable(request)
        self.options = options
        self._steps: Steps | None = None
        self._step: Step | None = None

    @property
    def may_be_lost(self) -> bool:
        """Whether what is on its way may be asked again: a question, and not the call."""
        return isinstance(self._step, Look | Fetch)

    def must_read(self, response: httpx.Response) -> bool:
        """Tell whether the body is needed to go on; bodies of calls that ran are left to stream."""
        if self.may_be_lost:
            return True
        kind = response.headers.get("content-type", "")
        return (response.status_code >= 400 or response.status_code == 202) and "json" in kind

    def next(self, response: httpx.Response | None) -> httpx.Request | float | None:
        """Take a response that has been read if it must be; None after a pause, or for one that was lost."""
        try:
            step = self._advance(response)
        except StopIteration:
            if isinstance(self._step, Fetch) and response is not None:
                self._become_the_answer(response)
            return None
        except ApprovalError as error:
            error.response = response
            raise
        self._step = step
        return step.seconds if isinstance(step, Pause) else self._as_request(step)

    def _advance(self, response: httpx.Response | None) -> Step:
        answer = None if response is None else self._answer(response)
        if self._steps is not None:
            return self._steps.send(answer)
        if response is None or answer is None:
            raise AssertionError("the first thing sent is the call")
        # A redirect may have led it on; what is held is the request that was answered.
        held = response.request
        if same_origin(str(self.request.url), str(held.url)) is None:
            raise StopIteration  # another origin's answer, with none of its credentials
        held.read()
        self.request = held
        self._steps = Flow(str(held.url), self.options).steps(answer)
        return next(self._steps)

    def _answer(self, response: httpx.Response) -> Answer:
        body: Any = None
        if self.must_read(response):
            try:
                body = response.json()
            except (ValueError, UnicodeDecodeError, RecursionError):
                body = None
        return Answer(response.status_code, dict(response.headers), body)

    def _become_the_answer(self, response: httpx.Response) -> None:
        """Make of the data about the answer the answer itself, as if the server had run the call just now."""
        result = result_of(self._answer(response))
        assert result is not None  # noqa: S101 - the flow has looked
        # In place: httpx gives its caller the very object that it gave to the authentication.
        kept = {name: vars(response)[name] for name in _OF_THE_EXCHANGE}
        passed = None
        with suppress(RuntimeError):  # below the client nobody has taken the time
            passed = response.elapsed
        vars(response).clear()
        response.__init__(  # type: ignore[misc]
            result.status, headers=result.headers, content=result.body, request=self.request
        )
        vars(response).update(kept)
        if passed is not None:
            response.elapsed = passed

    def _as_request(self, step: Step) -> httpx.Request:
        if isinstance(step, Repeat):
            headers = httpx.Headers(self.request.headers)
            headers["Approval-Id"] = step.approval_id
            again = httpx.Request(
                self.request.method,
                self.request.url,
                headers=headers,
                stream=httpx.ByteStream(self.request.content),
                extensions=dict(self.request.extensions),
            )
            again.read()
            return again
        assert isinstance(step, Look | Fetch)  # noqa: S101 - a pause is no request
        # As bytes: a reason is not ASCII everywhere.
        headers = httpx.Headers(
            [
                (name, value)
                for name, value in self.request.headers.raw
                if name.decode("ascii", "replace").lower() not in OF_THE_CALL
            ]
        )
        headers["Accept"] = "application/json" if isinstance(step, Look) else "*/*"
        wait = step.wait if isinstance(step, Look) else 0
        if wait:
            headers["Prefer"] = f"wait={wait}"
        if isinstance(step, Look) and step.etag:
            headers["If-None-Match"] = step.etag
        return httpx.Request("GET", step.url, headers=headers, extensions=self._patient(wait))

    def _patient(self, wait: int) -> dict[str, Any]:
        return patient(dict(self.request.extensions), wait)


def patient(extensions: dict[str, Any], wait: float) -> dict[str, Any]:
    """Return the extensions of a request with a read time-out that a wait of the server's fits in."""
    limits = dict(extensions.get("timeout") or {})
    if wait and limits.get("read") is not None:
        limits["read"] = max(limits["read"], wait + _SLACK)
        extensions["timeout"] = limits
    return extensions


def bindable(request: httpx.Request) -> httpx.Request:
    """Give a body that was read from a stream its length: a chunked one can be bound to no approval."""
    if request.headers.pop("transfer-encoding", None) is not None:
        request.headers["Content-Length"] = str(len(request.content))
    return request


class Said(NamedTuple):
    """What the client says of every call, where the call does not say it itself. `hold` is in seconds."""

    reason: str = ""
    agent: str = ""
    hold: float = 0.0

    def on(self, request: httpx.Request) -> httpx.Request:
        """Say it: as headers, of which the text is UTF-8."""
        for name, text in (("Approval-Reason", self.reason), ("Approval-Agent", self.agent)):
            if text and name not in request.headers:
                request.headers.update(httpx.Headers({name: text}, encoding="utf-8"))
                # A copy: these have found out already that all of them were ASCII, and httpx reads them again.
                request.headers = httpx.Headers(request.headers)
        if self.hold > 0 and "Prefer" not in request.headers:
            request.headers["Prefer"] = f"wait={int(self.hold)}"
            request.extensions = patient(dict(request.extensions), self.hold)
        return request

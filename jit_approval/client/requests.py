"""Waiting for approval with requests: `session.mount("https://api.example.com/", ApprovalAdapter(wait=600))`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse

from jit_approval.client.answers import Answer, refusal_of, result_of
from jit_approval.client.errors import ApprovalError, NotReplayable
from jit_approval.client.flow import Fetch, Flow, Look, Options, Pause, Repeat, Step
from jit_approval.client.headers import OF_THE_CALL
from jit_approval.client.pending import Pending

_SLACK = 20.0


class ApprovalAdapter(HTTPAdapter):
    """Wait while a call is held, then make the very same call; answers that are not the gate's pass untouched.

    Options as of `jit_approval.client.ApprovalAuth`. Mount it for the origin whose calls may be held. Bodies that
    are files are rewound; of other streams nothing is left to repeat, and a held call raises `NotReplayable`.
    """

    def __init__(
        self,
        *,
        wait: float = 600.0,
        on_pending: Callable[[Pending], object] | None = None,
        reason: str = "",
        agent: str = "",
        **kwargs: Any,
    ) -> None:
        """Keep the options; the rest is HTTPAdapter's."""
        self._options = Options(wait=wait, on_pending=on_pending)
        self._says = {"Approval-Reason": reason, "Approval-Agent": agent}
        super().__init__(**kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Send, wait, look and repeat.

        Raises:
            ApprovalError: the call did not run, and why.
            requests.RequestException: the network failed. After approval the call may have run: it is not sent
                again.
        """
        for name, text in self._says.items():
            if text and name not in request.headers:
                request.headers[name] = text.encode()
        start = _position(request.body)
        response = super().send(request, *args, **kwargs)
        answer = _answer(response, _may_refuse(response))
        if refusal_of(answer) is None:
            return response
        _ensure_replayable(request.body, start, response)
        steps = Flow(str(request.url), self._options).steps(answer)
        last: Step | None = None
        step: Step | None = _next(steps, None, response)
        while step is not None:
            found: requests.Response | None = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            elif isinstance(step, Repeat):
                found = super().send(_again(request, step, start), *args, **kwargs)
                found.history = []
            else:
                found = self._asked(request, step, kwargs)
            response = found if found is not None else response
            last, step = step, _next(steps, found, response, read=not isinstance(step, Repeat))
        return _the_answer(response, request) if isinstance(last, Fetch) else response

    def _asked(
        self, request: requests.PreparedRequest, step: Look | Fetch, kwargs: Mapping[str, Any]
    ) -> requests.Response | None:
        """Return the answer to a question; None where the network lost it: it will be asked again."""
        wait = step.wait if isinstance(step, Look) else 0
        options = {**kwargs, "stream": False, "timeout": _patient(kwargs.get("timeout"), wait)}
        try:
            return super().send(_question(request, step, wait), **options)
        except (requests.ConnectionError, requests.Timeout):
            return None


def _next(
    steps: Any, found: requests.Response | None, last: requests.Response, *, read: bool = True
) -> Step | None:
    try:
        answer = None if found is None else _answer(found, read or _may_refuse(found))
        step: Step = steps.send(answer)
        return step
    except StopIteration:
        return None
    except ApprovalError as error:
        error.response = last
        raise


def _the_answer(
    response: requests.Response, request: requests.PreparedRequest
) -> requests.Response:
    """Make of the data about the answer the answer itself, as if the server had run the call just now."""
    result = result_of(_answer(response, True))
    assert result is not None  # noqa: S101 - the flow has looked
    made = requests.Response()
    made.status_code, made.request = result.status, request
    # Read as an answer from the network is: the view may have compressed it.
    made.raw = HTTPResponse(BytesIO(result.body), headers=result.headers, preload_content=False)
    made.url, made.headers = str(request.url), CaseInsensitiveDict(result.headers)
    made.encoding = requests.utils.get_encoding_from_headers(made.headers)
    return made


def _may_refuse(response: requests.Response) -> bool:
    kind = response.headers.get("content-type", "")
    return (response.status_code >= 400 or response.status_code == 202) and "json" in kind


def _answer(response: requests.Response, read: bool) -> Answer:
    body: Any = None
    if read:
        try:
            body = response.json()
        except (ValueError, RecursionError):
            body = None
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


def _position(body: Any) -> int | None:
    """Return where a file stands, to send it from there again; None for what is no file."""
    try:
        return int(body.tell())
    except (AttributeError, OSError):
        return None


def _ensure_replayable(body: Any, start: int | None, held: requests.Response) -> None:
    """Say at once that this process cannot make the call again, before anybody takes the trouble to approve it."""
    problem = held.json()
    is_held = problem["code"] == "approval_pending"
    if not is_held or start is not None or isinstance(body, bytes | str | None):
        return
    error = NotReplayable(
        "Not executed. The call is held, and its body, a stream, is used up.", problem
    )
    error.response = held
    raise error


def _again(
    request: requests.PreparedRequest, step: Repeat, start: int | None
) -> requests.PreparedRequest:
    """Return the identical request, naming what was approved."""
    again = request.copy()
    if start is not None:
        body: Any = again.body
        body.seek(start)
    again.headers["Approval-Id"] = step.approval_id
    return again


def _question(
    request: requests.PreparedRequest, step: Look | Fetch, wait: int
) -> requests.PreparedRequest:
    """Return a GET with the credentials of the call, and nothing else of it."""
    question = request.copy()
    question.method, question.url, question.body = "GET", step.url, None
    for name in [name for name in question.headers if name.lower() in OF_THE_CALL]:
        del question.headers[name]
    question.headers["Accept"] = "application/json" if isinstance(step, Look) else "*/*"
    if wait:
        question.headers["Prefer"] = f"wait={wait}"
    if isinstance(step, Look) and step.etag:
        question.headers["If-None-Match"] = step.etag
    return question


def _patient(timeout: Any, wait: int) -> Any:
    """Return a time-out in whose reading part a wait of the server's fits."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return connect, max(read, wait + _SLACK) if wait and read is not None else read

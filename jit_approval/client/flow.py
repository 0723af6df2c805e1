"""The protocol of a waiting caller, without any I/O: what to send next, given what was answered.

`Flow.steps` is a generator: it yields one step at a time and is sent what came of it, so that httpx (sync and
async) and requests drive the same rules. Times are seconds of a monotonic clock.

The rules: what may have run is never sent again. Status is read, and read again; the call itself is repeated only
where the server has said that it was not executed, and that it is approved (or that nobody can tell but the call).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from jit_approval.client.answers import Answer, refusal_of, result_of, same_origin
from jit_approval.client.errors import ApprovalError, TimedOut, from_problem, printable
from jit_approval.client.pending import Pending, number, pending_of

LONGEST_LOOK = 55
"""Seconds one long poll may take: proxies cut what is silent for a minute."""
_SLOWEST = 60.0
_LONGEST_GAP = 240.0  # an approval may be usable for five minutes only
_SOON = 3
"""Looks that follow closely on the news that the server is to run the call: that is a matter of seconds."""


@dataclass(frozen=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Look:
    """GET the status: with `Prefer: wait` where `wait` > 0, with `If-None-Match` where there is an `etag`."""

    url: str
    wait: int = 0
    etag: str = ""


@dataclass(frozen=True)
class Fetch:
    """GET the answer of a call that the server has run."""

    url: str


@dataclass(frozen=True)
class Repeat:
    """Send the identical call again, naming the request."""

    approval_id: str


Step = Pause | Look | Fetch | Repeat
Steps = Generator[Step, "Answer | None", None]


@dataclass(frozen=True)
class Options:
    """How long to wait, whom to tell, how often to look (None: as often as it takes)."""

    wait: float = 600.0
    on_pending: Callable[[Pending], object] | None = None
    looks: int | None = None


class Flow:
    """One call on its way to being approved. `url` is where the call itself goes."""

    def __init__(
        self, url: str, options: Options, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._options = options
        self._clock = clock
        self._started = clock()
        self._looks = options.looks
        self._problem: Mapping[str, Any] = {}
        self._shown: Pending | None = None
        self._interval, self._backoff = 1.0, 0.0
        self._etag = ""
        self._asked_with_etag = False
        # Whether to read it once more for who was told; None until it has been read.
        self._looks_for_names: bool | None = None
        self._reads_again = False
        self._step_of_run, self._soon = "", 0
        # Whether the server keeps a look on the line; None until it was asked to.
        self._long_polls: bool | None = None

    def steps(self, answer: Answer) -> Steps:
        """Yield what to do until the last answer that was sent in is the call's own.

        Raises:
            ApprovalError: it did not run, and why.
        """
        repeated = False
        while (problem := refusal_of(answer)) is not None:
            if _is_of_its_own_run(answer, problem):
                self._hold(problem, "consumed")
                if not (yield from self._decided()):
                    raise from_problem(problem)
                return
            if problem["code"] != "approval_pending":
                raise from_problem(problem)
            self._hold(problem)
            if repeated:  # approved, and yet held: asked again in good time
                yield from self._pause(self._clock() + self._interval)
            repeated = True
            if (yield from self._decided()):
                return
            answer = yield from self._repeated()

    def _hold(self, problem: Mapping[str, Any], status: str = "pending") -> None:
        if problem.get("approval_id") != self._problem.get("approval_id"):
            self._etag = ""  # superseded: another request, another state
        self._problem = problem
        self._interval = max(self._interval, number(problem.get("interval", 5), 1.0, 3600.0))
        self._tell(problem, status)

    def _repeated(self) -> Generator[Step, Answer | None, Answer]:
        answer = yield Repeat(str(self._problem["approval_id"]))
        # A driver raises what it cannot get an answer to: the call may have run, and is not sent again.
        if answer is None:
            raise AssertionError("a repeated call has an answer, or raises")
        return answer

    # --- looking ------------------------------------------------------------------------------------------

    def _decided(self) -> Generator[Step, Answer | None, bool]:
        """Wait until the call is to be repeated (False), or its result has been fetched (True)."""
        url = same_origin(self._url, self._problem.get("status_url"))
        if url is None:
            yield from self._pause(self._clock() + self._interval)
            return False
        while True:
            looked = self._clock()
            answer = yield self._look(url)
            if answer is not None and answer.status in (401, 403, 404, 405, 410):
                # Not to be read from here: the call itself is asked.
                yield from self._pause(looked + self._interval)
                return False
            state = self._understood(answer, looked)
            if state is not None:
                done = self._concluded(state)
                if done is not None:
                    if done and (yield from self._fetched(url, state)):
                        return True
                    if not done:
                        return False
            if not self._looks_at_once():
                yield from self._pause(looked + self._gap())

    def _looks_at_once(self) -> bool:
        """Tell whether the next look need not wait: to try a long poll, once; or after a silence, for the names."""
        if self._reads_again:
            self._reads_again = False
            return True
        # Too little time for a long poll would make of it a look that comes too soon.
        return bool(self._etag) and self._long_polls is None and self._left() >= 1

    def _count(self) -> None:
        if self._looks is not None:
            if self._looks <= 0:
                raise self._timed_out()
            self._looks -= 1

    def _look(self, url: str) -> Look:
        self._count()
        self._asked_with_etag = bool(self._etag)
        longest = self._interval if self._looks_for_names else LONGEST_LOOK
        return Look(url, max(0, min(int(longest), LONGEST_LOOK, int(self._left()))), self._etag)

    def _understood(self, answer: Answer | None, looked: float) -> Mapping[str, Any] | None:
        """Return the state that was read; None where nothing new was."""
        if answer is None or answer.status >= 500:
            self._long_polls = self._long_polls or False
            self._backoff = min(_SLOWEST, 2 * max(self._interval, self._backoff))
            return None
        self._backoff = 0.0
        if answer.status == 429 and self._long_polls is not None:
            self._interval = min(_SLOWEST, self._interval + 5)  # RFC 8628 §3.5, slow_down
        retry_after = number(answer.headers.get("retry-after"), 0.0, 3600.0)
        self._interval = max(self._interval, retry_after)
        if self._asked_with_etag:
            self._long_polls = "wait" in answer.headers.get("preference-applied", "") or (
                answer.status == 304 and self._clock() - looked >= self._interval
            )
        if answer.status == 304 and self._looks_for_names and self._long_polls:
            # Messages are sent after the call is held, and are no news of it: read it once more, whole.
            self._etag, self._reads_again, self._looks_for_names = "", True, False
        if answer.status != 200 or not isinstance(answer.body, dict):
            return None
        first = self._looks_for_names is None
        self._looks_for_names = first and answer.body.get("told") == []
        self._etag = answer.headers.get("etag", "")
        return answer.body

    def _concluded(self, state: Mapping[str, Any]) -> bool | None:
        """Return whether there is a result to fetch (True) or the call to repeat (False); None: wait on."""
        status, following = str(state.get("status")), state.get("next")
        self._tell(state, status)
        if following == "repeat_call":
            return False
        if following in ("wait", "wait_for_result"):
            if status != "pending" and self._step_of_run != status:
                self._step_of_run, self._soon = status, _SOON
            return None
        if following == "fetch_result":
            return True
        if status in ("pending", "approved"):
            return None
        raise from_problem(self._closed(state, status))

    def _closed(self, state: Mapping[str, Any], status: str) -> Mapping[str, Any]:
        """Return what is read of a closed request as the refusal that a repeated call would get."""
        decisions = [each for each in state.get("decisions") or () if isinstance(each, dict)]
        rejections = [each for each in decisions if each.get("verdict") == "reject"]
        comment = str(rejections[-1].get("comment") or "") if rejections else ""
        detail = f"Not executed. The request is {status}" + (f": {comment}" if comment else ".")
        return {
            "code": f"approval_{status}",
            "detail": detail,
            "comment": comment,
            "executed": False,
            "approval_id": self._problem.get("approval_id"),
            "outcome": state.get("outcome"),
            "state": dict(state),
        }

    def _fetched(self, url: str, state: Mapping[str, Any]) -> Generator[Step, Answer | None, bool]:
        given = state.get("result_url") or urljoin(url, "result/")
        target = same_origin(self._url, given)
        if target is None:
            raise from_problem(self._closed(state, "consumed"))
        self._count()
        answer = yield Fetch(target)
        if answer is None or answer.status in (409, 425, 429, 502, 503, 504):
            return False
        if result_of(answer) is None:
            detail = (
                f"The server ran it: {printable(state.get('outcome'))}. Its answer is not kept."
            )
            raise from_problem({**self._closed(state, "consumed"), "detail": detail})
        return True

    # --- time ---------------------------------------------------------------------------------------------

    def _left(self) -> float:
        return self._started + self._options.wait - self._clock()

    def _pause(self, until: float) -> Steps:
        if self._left() <= 0:
            raise self._timed_out()
        seconds = min(until - self._clock(), self._left())
        if seconds > 0:
            yield Pause(seconds)

    def _gap(self) -> float:
        """Return the seconds from one look to the next: the interval, or more where looks are counted."""
        if self._soon and (self._looks is None or self._looks > self._soon):
            self._soon -= 1
            return max(self._backoff, 1.0 if self._long_polls else self._interval)
        return max(self._backoff, self._spread())

    def _spread(self) -> float:
        if self._looks is None:
            return 1.0 if self._long_polls else self._interval
        passed = self._clock() - self._started
        if self._long_polls:
            return max(1.0, min(self._left() / max(1, self._looks), _LONGEST_GAP))
        total = max(2, (self._options.looks or 2) - 1)
        growth = float(max(1.0, self._options.wait / self._interval) ** (1 / total))
        spread = passed * (growth - 1)
        return max(self._interval, min(spread, _LONGEST_GAP))

    def _timed_out(self) -> ApprovalError:
        known = self._shown.status if self._shown is not None else "pending"
        if known == "consumed":
            detail = "The server runs it; how it ended is not known in the time to wait."
            return from_problem({**self._closed({}, known), "outcome": "running", "detail": detail})
        text = "Nobody has decided in the time to wait; the request is open still."
        if known == "approved":
            text = (
                "It is approved, and the server has not run it in the time to wait; it still may."
            )
        return TimedOut(f"Not executed. {text}", self._problem)

    def _tell(self, known: Mapping[str, Any], status: str) -> None:
        before = self._shown
        pending = pending_of(known, status, before, str(self._problem.get("approval_id")))
        self._shown = pending
        if pending != before and self._options.on_pending is not None:
            self._options.on_pending(pending)


def _is_of_its_own_run(answer: Answer, problem: Mapping[str, Any]) -> bool:
    """Tell whether this very call waited on the line, and its time was up while the server ran it, or just after."""
    waited = "wait" in answer.headers.get("preference-applied", "")
    return waited and problem["code"] == "approval_consumed" and bool(problem.get("result_url"))

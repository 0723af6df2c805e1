"""The protocol of a waiting caller, without any I/O: what to send next, given what was answered.

`Flow.steps` is a generator: it yields one step at a time and is sent what came of it, so that httpx (sync and
async) and requests drive the same rules. Times are seconds of a monotonic clock.

The rules: what may have run is never sent again. Status is read, and read again; the call itself is repeated only
where the server has said that it was not executed, and that it is approved (or that nobody can tell but the call).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from jit_approval.client.errors import TimedOut, from_problem, is_problem, printable

LONGEST_LOOK = 55
"""Seconds one long poll may take: proxies cut what is silent for a minute."""
_SLOWEST = 60.0
_LONGEST_GAP = 240.0  # an approval may be usable for five minutes only
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: header names in lower case, the body parsed if it was JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any = None


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
class Pending:
    """A call that waits, as far as its caller knows. `print` shows it."""

    approval_id: str
    action: str = ""
    policy: str = ""
    match_code: str = ""
    status: str = "pending"
    status_url: str = ""
    approvals_given: int = 0
    approvals_required: int = 1
    told: tuple[str, ...] = ()
    expires_at: str = ""
    expires_in: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return one line for people."""
        words = [f"[{self.match_code}]" if self.match_code else self.approval_id, self.action]
        words.append("waits for approval" if self.status == "pending" else self.status)
        if self.approvals_required > 1:
            words.append(f"({self.approvals_given} of {self.approvals_required})")
        line = " ".join(filter(None, words))
        if self.told:
            line += f"; told: {', '.join(self.told)}"
        if self.status == "pending" and self.expires_in is not None:
            line += f"; {clock_face(self.expires_in)} left"
        return printable(line)


def clock_face(seconds: float) -> str:
    """Return a duration as `4:59` or `2:04:59`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
        # Whether the server keeps a look on the line; None until it was asked to.
        self._long_polls: bool | None = None

    def steps(self, answer: Answer) -> Steps:
        """Yield what to do until the last answer that was sent in is the call's own.

        Raises:
            ApprovalError: it did not run, and why.
        """
        repeated = False
        while (problem := refusal_of(answer)) is not None:
            if problem["code"] != "approval_pending":
                raise from_problem(problem)
            self._hold(problem)
            if repeated:  # approved, and yet held: asked again in good time
                yield from self._pause(self._clock() + self._interval)
            repeated = True
            if (yield from self._decided()):
                return
            answer = yield from self._repeated()

    def _hold(self, problem: Mapping[str, Any]) -> None:
        if problem.get("approval_id") != self._problem.get("approval_id"):
            self._etag = ""  # superseded: another request, another state
        self._problem = problem
        self._interval = max(self._interval, _number(problem.get("interval", 5), 1.0, 3600.0))
        self._tell(problem, "pending")

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
        return bool(self._etag) and self._long_polls is None

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
        retry_after = _number(answer.headers.get("retry-after"), 0.0, 3600.0)
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

    def _timed_out(self) -> TimedOut:
        return TimedOut(
            "Not executed. Nobody has decided in the time to wait; the request is open still.",
            self._problem,
        )

    def _tell(self, known: Mapping[str, Any], status: str) -> None:
        before = self._shown
        pending = _pending(known, status, before, str(self._problem.get("approval_id")))
        self._shown = pending
        if pending != before and self._options.on_pending is not None:
            self._options.on_pending(pending)


def _pending(known: Mapping[str, Any], status: str, before: Pending | None, pk: str) -> Pending:
    last = before if before is not None and before.approval_id == pk else Pending(pk)
    told = known.get("told")
    names = [str(name) for name in told] if isinstance(told, list | tuple) else last.told
    return Pending(
        approval_id=pk,
        action=str(known.get("action") or last.action),
        policy=str(known.get("policy") or last.policy),
        match_code=str(known.get("match_code") or last.match_code),
        status=status,
        status_url=str(known.get("status_url") or last.status_url),
        approvals_given=int(_number(known.get("approvals_given", last.approvals_given), 0, 1000)),
        approvals_required=int(
            _number(known.get("approvals_required", last.approvals_required), 1, 1000)
        ),
        told=tuple(names),
        expires_at=str(known.get("expires_at") or last.expires_at),
        expires_in=_number(known["expires_in"], 0, 1e8)
        if "expires_in" in known
        else last.expires_in,
    )


@dataclass(frozen=True)
class Result:
    """What a call that the server ran was answered. `Approval-Result: truncated`: not all of the body was kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def result_of(answer: Answer) -> Result | None:
    """Return what the server kept of the answer; None where it is none that could be read."""
    kept = answer.body
    if answer.status != 200 or not isinstance(kept, dict):
        return None
    status, headers = kept.get("status"), kept.get("headers")
    if not isinstance(status, int) or not 100 <= status <= 599 or not isinstance(headers, dict):
        return None
    try:
        body = base64.b64decode(str(kept.get("body", "")), validate=True)
    except ValueError:
        return None
    named = {"Approval-Id": str(kept.get("id")), "Approval-Status": "consumed"}
    if kept.get("truncated"):
        named["Approval-Result"] = "truncated"
    return Result(status, {**{str(k): str(v) for k, v in headers.items()}, **named}, body)


def refusal_of(answer: Answer) -> Mapping[str, Any] | None:
    """Return the gate's refusal, if that is what the answer is; None for an answer of the call itself."""
    if answer.headers.get("approval-status") == "consumed":
        return None  # it ran: whatever it says is the view's own
    body = answer.body
    if not is_problem(body) or body.get("executed") is not False:
        return None
    if body["code"] == "approval_pending" and not body.get("approval_id"):
        return None
    return dict(body)


def same_origin(url: str, other: Any) -> str | None:
    """Return `other` resolved against `url`, if it leads to the same scheme, host and port; else None.

    Credentials go nowhere else, whatever an answer says.
    """
    if not isinstance(other, str) or not other or not other.isprintable() or "\\" in other:
        return None
    resolved = urljoin(url, other)
    here, there = urlsplit(url), urlsplit(resolved)
    try:
        same = _origin(here) == _origin(there)
    except ValueError:  # no number, as a port
        return None
    return resolved if same and "@" not in there.netloc else None


def _origin(parts: Any) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _number(value: Any, low: float, high: float) -> float:
    """Return a number that a server gave, within bounds; `low` where it is none."""
    try:
        return min(max(float(value), low), high)
    except (TypeError, ValueError):
        return low

"""The protocol of a waiting caller, step by step on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from jit_approval.client import errors
from jit_approval.client.answers import Answer, same_origin
from jit_approval.client.flow import Fetch, Flow, Look, Options, Pause, Repeat
from jit_approval.client.pending import Pending

URL = "https://api.example.com/customers/42/"
STATUS = "https://api.example.com/approvals/1/"


class Talk:
    """A flow, and a clock that only its pauses move."""

    def __init__(self, first: Answer, *, wait: float = 600, looks: int | None = None) -> None:
        self.now = 1000.0
        self.told: list[Pending] = []
        options = Options(wait, self.told.append, looks)
        self.steps = Flow(URL, options, clock=lambda: self.now).steps(first)
        self.sent: Any = None

    def step(self, answer: Answer | None = None) -> Any:
        """The next step that is no pause."""
        found = self.raw(answer)
        while isinstance(found, Pause):
            found = self.raw(None)
        return found

    def raw(self, answer: Answer | None) -> Any:
        self.sent = self.steps.send(answer)
        if isinstance(self.sent, Pause):
            self.now += self.sent.seconds
        return self.sent


def problem(code: str = "approval_pending", status: int = 403, **members: Any) -> Answer:
    body = {
        "type": f"urn:jit-approval:{code.replace('_', '-')}",
        "code": code,
        "detail": "Not executed.",
        "executed": False,
        "approval_id": "1",
        "status_url": "/approvals/1/",
        "interval": 5,
        "expires_in": 300,
    }
    return Answer(status, {}, body | members)


def state(status: str = "pending", following: str = "wait", **members: Any) -> Answer:
    headers = members.pop("headers", {})
    return Answer(200, headers, {"id": "1", "status": status, "next": following} | members)


def test_an_answer_of_the_call_itself_ends_it() -> None:
    with pytest.raises(StopIteration):
        Talk(Answer(200, {}, {"id": 7})).step()


@pytest.mark.parametrize(
    "body",
    [
        {"code": "approval_pending", "executed": False, "approval_id": "1"},
        {"type": "urn:other:approval-pending", "code": "approval_pending", "executed": False},
        {"type": "urn:jit-approval:new", "code": "of_a_later_version", "executed": False},
        {"type": "urn:jit-approval:approval-pending", "code": "approval_pending"},
        {"type": "urn:jit-approval:approval-pending", "code": "approval_pending", "executed": True},
        ["approval_pending"],
        None,
    ],
)
def test_what_only_looks_like_a_refusal_is_the_calls_own_answer(body: Any) -> None:
    with pytest.raises(StopIteration):
        Talk(Answer(403, {}, body)).step()


def test_what_ran_is_never_sent_again_whatever_it_answered() -> None:
    spoof = problem()
    with pytest.raises(StopIteration):
        Talk(Answer(403, {"approval-status": "consumed"}, spoof.body)).step()


def test_a_held_call_is_looked_at_and_repeated_once_it_is_approved() -> None:
    talk = Talk(problem())
    assert talk.step() == Look(STATUS, wait=55)
    assert talk.step(state()) == Look(STATUS, wait=55)
    assert talk.step(state("approved", "repeat_call")) == Repeat("1")
    with pytest.raises(StopIteration):
        talk.step(Answer(204, {"approval-status": "consumed"}))


def test_looks_keep_the_interval_that_the_server_asks_for() -> None:
    talk = Talk(problem(interval=7))
    talk.step()
    began = talk.now
    talk.step(state())
    assert talk.now - began == 7
    talk.step(state(headers={"retry-after": "20"}))
    assert talk.now - began == 27


def test_slow_down_makes_every_later_look_slower() -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state(headers={"etag": '"a"'}))  # asked for a long poll at once
    talk.step(problem("slow_down", 429))  # which this server does not know
    began = talk.now
    talk.step(problem("slow_down", 429))
    assert talk.now - began == 10
    talk.step(state())
    assert talk.now - began == 20


def test_a_server_without_long_polls_is_asked_for_one_once() -> None:
    talk = Talk(problem())
    talk.step()
    assert talk.raw(state(headers={"etag": '"a"'})) == Look(STATUS, 55, '"a"')
    for answer in (problem("slow_down", 429), Answer(304, {}), state(headers={"etag": '"b"'})):
        began = talk.now
        talk.step(answer)
        assert talk.now - began == 5


def test_a_long_poll_that_was_silent_is_asked_again_at_once_with_its_etag() -> None:
    talk = Talk(problem())
    assert talk.step() == Look(STATUS, 55, "")
    assert talk.raw(state(headers={"etag": '"a"'})) == Look(STATUS, 55, '"a"')
    talk.now += 55
    before = talk.now
    assert talk.raw(Answer(304, {"preference-applied": "wait=55"})) == Look(STATUS, 55, '"a"')
    assert talk.now == before


def test_who_was_told_is_read_once_more_after_a_silence_and_nobody_waits_for_it() -> None:
    talk = Talk(problem())
    talk.step()
    assert talk.raw(state(told=[], headers={"etag": '"a"'})) == Look(STATUS, 5, '"a"')
    talk.now += 5
    silence = Answer(304, {"preference-applied": "wait=5"})
    assert talk.raw(silence) == Look(STATUS, 55, "")
    following = talk.step(state(told=["bob"], headers={"etag": '"a"'}))
    assert following == Look(STATUS, 55, '"a"')
    assert talk.told[-1].told == ("bob",)
    assert "told: bob" in str(talk.told[-1])


@pytest.mark.parametrize("lost", [None, Answer(502, {}), Answer(500, {})])
def test_a_look_that_is_lost_is_looked_again_more_slowly(lost: Answer | None) -> None:
    talk = Talk(problem())
    talk.step()
    began = talk.now
    assert isinstance(talk.step(lost), Look)
    assert talk.now - began == 10


@pytest.mark.parametrize("told", [[], None])
@pytest.mark.parametrize("answer", [None, Answer(500, {}), Answer(429, {}), Answer(304, {})])
def test_no_answer_makes_looks_come_without_a_pause(told: Any, answer: Answer | None) -> None:
    talk = Talk(problem(), wait=300)
    talk.step()
    known = {} if told is None else {"told": told}
    talk.step(state(headers={"etag": '"a"'}, **known))
    looks = 0
    with pytest.raises(errors.TimedOut):
        while looks < 100:
            talk.step(answer)
            looks += 1
    assert looks <= 62


def test_a_silence_and_then_a_failure_do_not_make_looks_come_without_a_pause() -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state(told=[], headers={"etag": '"a"'}))
    talk.now += 5
    talk.step(Answer(304, {"preference-applied": "wait=5"}))
    began = talk.now
    for _ in range(3):
        talk.step(None)
    assert talk.now - began >= 3 * 10


def test_looks_are_as_frequent_as_before_once_the_server_is_back() -> None:
    talk = Talk(problem())
    talk.step()
    for _ in range(4):
        talk.step(None)
    talk.step(state())
    began = talk.now
    talk.step(state())
    assert talk.now - began == 5


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("rejected", errors.Rejected),
        ("expired", errors.Expired),
        ("cancelled", errors.Cancelled),
        ("revoked", errors.Revoked),
        ("consumed", errors.Consumed),
    ],
)
def test_a_request_that_ends_otherwise_is_an_exception_of_its_own(status: str, error: Any) -> None:
    talk = Talk(problem())
    talk.step()
    decisions = [{"verdict": "reject", "comment": "not this\x1b[2J one"}]
    with pytest.raises(error) as caught:
        talk.step(state(status, "none", decisions=decisions))
    assert caught.value.approval_id == "1"
    assert "\x1b" not in str(caught.value)


def test_a_rejection_says_what_the_decider_said() -> None:
    talk = Talk(problem())
    talk.step()
    decisions = [{"verdict": "approve", "comment": "ok"}, {"verdict": "reject", "comment": "no"}]
    with pytest.raises(errors.Rejected) as caught:
        talk.step(state("rejected", "none", decisions=decisions))
    assert caught.value.comment == "no"


@pytest.mark.parametrize(("code", "error"), sorted(errors._KINDS.items()))
def test_every_refusal_of_the_gate_is_an_exception(code: str, error: Any) -> None:
    with pytest.raises(error):
        talk = Talk(problem(code, 403), wait=0)
        talk.step()
        talk.step(state())


def test_without_time_to_wait_the_status_is_read_once() -> None:
    talk = Talk(problem(), wait=0)
    assert isinstance(talk.step(), Look)
    with pytest.raises(errors.TimedOut):
        talk.step(state(headers={"etag": 'W/"1"'}))


def test_nobody_decides_in_time() -> None:
    talk = Talk(problem(), wait=60)
    step = talk.step()
    with pytest.raises(errors.TimedOut) as caught:
        while True:
            step = talk.step(state())
            assert isinstance(step, Look)
    assert talk.now <= 1061
    assert caught.value.approval_id == "1"


@pytest.mark.parametrize("wait", [60, 600, 900])
def test_counted_looks_last_as_long_as_the_wait(wait: int) -> None:
    talk = Talk(problem(), wait=wait, looks=16)
    looks = 0
    with pytest.raises(errors.TimedOut):
        answer = None
        while True:
            talk.step(answer)
            looks, answer = looks + 1, state()
    assert looks <= 16
    assert talk.now - 1000 >= 0.9 * wait


def test_a_call_that_is_held_again_after_approval_is_not_hammered() -> None:
    talk = Talk(problem())
    talk.step()
    assert talk.step(state("approved", "repeat_call")) == Repeat("1")
    began = talk.now
    assert isinstance(talk.step(problem()), Look)
    assert talk.now - began >= 5


def test_without_a_status_url_the_call_itself_is_asked_naming_its_request() -> None:
    talk = Talk(problem(status_url=None))
    began = talk.now
    assert talk.step() == Repeat("1")
    assert talk.now - began == 5
    assert talk.step(problem(status_url=None)) == Repeat("1")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_status_that_cannot_be_read_leaves_the_call_itself_to_ask(status: int) -> None:
    talk = Talk(problem())
    talk.step()
    assert talk.step(Answer(status, {})) == Repeat("1")


def test_a_superseded_request_is_waited_for_under_its_new_id() -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state("approved", "repeat_call"))
    new = problem(approval_id="2", status_url="/approvals/2/")
    assert talk.step(new) == Look("https://api.example.com/approvals/2/", 55 - 0, "")
    assert [each.approval_id for each in talk.told if each.status == "pending"] == ["1", "2"]


def test_a_result_of_the_servers_own_run_is_fetched_and_is_the_answer() -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state("approved", "wait"))
    assert talk.step(state("consumed", "fetch_result")) == Fetch(STATUS + "result/")
    with pytest.raises(StopIteration):
        talk.step(Answer(200, {}, {"id": "1", "status": 204, "headers": {}, "body": ""}))


@pytest.mark.parametrize("long_polls", [True, False])
def test_a_call_that_the_server_is_about_to_run_is_soon_looked_at_though_looks_are_counted(
    long_polls: bool,
) -> None:
    applied = {"preference-applied": "wait=55"} if long_polls else {}
    talk = Talk(problem(), wait=600, looks=16)
    talk.step()
    talk.step(state(headers={"etag": '"1"'}))
    talk.now += 250
    approved = talk.now
    talk.step(state("approved", "wait", headers={"etag": '"2"'} | applied))
    assert talk.now - approved <= (1 if long_polls else 5)


def test_looks_at_a_long_run_are_spread_over_the_time_to_wait_again() -> None:
    talk = Talk(problem(), wait=600, looks=16)
    talk.step()
    headers = {"etag": '"2"', "preference-applied": "wait=55"}
    talk.step(state("approved", "wait", headers=headers))
    for _ in range(3):
        talk.step(state("approved", "wait", headers=headers))
    before = talk.now
    talk.step(state("approved", "wait", headers=headers))
    assert talk.now - before > 30


def running(**members: Any) -> Answer:
    """What a call that waited on the line is answered when its time is up while the server runs it."""
    known = {"outcome": "running", "next": "fetch_result", "result_url": "/approvals/1/result/"}
    answer = problem("approval_consumed", **(known | members))
    return Answer(403, {"preference-applied": "wait=60"}, answer.body)


def test_a_call_that_left_the_line_while_it_ran_is_waited_for_and_its_answer_fetched() -> None:
    talk = Talk(running())
    assert talk.step() == Look(STATUS, wait=55)
    assert isinstance(talk.step(state("consumed", "wait", outcome="running")), Look)
    step = talk.step(state("consumed", "fetch_result", result_url="/approvals/1/result/"))
    assert step == Fetch(STATUS + "result/")
    with pytest.raises(StopIteration):
        talk.step(Answer(200, {}, {"id": "1", "status": 204, "headers": {}, "body": ""}))
    assert {each.status for each in talk.told} == {"consumed"}


def test_a_call_that_ran_without_this_one_waiting_for_it_is_told_so() -> None:
    with pytest.raises(errors.Consumed):
        Talk(Answer(403, {}, running().body)).step()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_call_that_runs_is_not_sent_again_though_its_status_cannot_be_read(status: int) -> None:
    talk = Talk(running())
    talk.step()
    with pytest.raises(errors.Consumed):
        talk.step(Answer(status, {}))


def test_a_run_that_takes_longer_than_the_wait_is_no_refusal() -> None:
    talk = Talk(running(), wait=60)
    talk.step()
    with pytest.raises(errors.Consumed, match="The server runs it") as caught:
        while True:
            talk.step(state("consumed", "wait", outcome="running"))
    assert caught.value.outcome == "running"


def test_that_it_was_approved_and_not_run_in_time_is_said() -> None:
    talk = Talk(problem(), wait=60)
    talk.step()
    with pytest.raises(errors.TimedOut, match="approved, and the server has not run it"):
        while True:
            talk.step(state("approved", "wait"))


@pytest.mark.parametrize("status", [409, 503])
def test_a_result_that_is_not_there_yet_is_asked_for_again(status: int) -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state("consumed", "fetch_result"))
    assert isinstance(talk.step(Answer(status, {})), Look)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"status": 200, "headers": {}, "body": "no base64"},
        {"status": "200", "headers": {}},
        {"status": 700, "headers": {}},
        {"status": 200, "headers": []},
    ],
)
def test_a_result_that_is_gone_is_an_exception_and_no_repeat(body: Any) -> None:
    talk = Talk(problem())
    talk.step()
    talk.step(state("consumed", "fetch_result", outcome="succeeded"))
    with pytest.raises(errors.Consumed) as caught:
        talk.step(Answer(200 if body else 410, {}, body))
    assert caught.value.outcome == "succeeded"


@pytest.mark.parametrize(
    "other",
    [
        "https://evil.example/approvals/1/",
        "http://api.example.com/approvals/1/",
        "https://api.example.com:8443/approvals/1/",
        "//evil.example/approvals/1/",
        "https://api.example.com@evil.example/",
        "https://user@api.example.com/approvals/1/",
        "https://api.example.com:port/",
        "/\\evil.example/",
        "https:evil",
        "/a\nb",
        "",
        7,
        None,
    ],
)
def test_credentials_go_to_the_calls_own_origin_alone(other: Any) -> None:
    found = same_origin(URL, other)
    assert found is None or found.startswith("https://api.example.com/")
    if other != "https:evil":
        assert found is None


@pytest.mark.parametrize(
    "other",
    [
        "/approvals/1/",
        "https://api.example.com/approvals/1/",
        "https://API.example.com:443/approvals/1/",
    ],
)
def test_the_status_at_the_calls_own_origin_is_read(other: str) -> None:
    assert same_origin(URL, other) is not None


def test_a_waiting_call_is_one_line_to_print() -> None:
    pending = Pending(
        "1", "customers.destroy", match_code="7K42", expires_in=299, approvals_required=2
    )
    assert str(pending) == "[7K42] customers.destroy waits for approval (0 of 2); 4:59 left"
    assert "\x1b" not in str(Pending("1", "a\x1b[2J"))


def test_what_is_new_is_told_once() -> None:
    talk = Talk(problem())
    talk.step()
    assert len(talk.told) == 1
    talk.step(state(approvals_given=1, approvals_required=2))
    talk.step(state(approvals_given=1, approvals_required=2))
    assert [each.approvals_given for each in talk.told] == [0, 1]

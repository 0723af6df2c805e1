"""The examples for agents, against an API that is a function: whatever a model sends, they go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs" / "examples"))

import mcp_server
import openai_loop
from tools import Tools


class Wire:
    """What was sent to the API."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []
        self.error: Exception | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if self.error is not None:
            raise self.error
        return httpx.Response(204)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def tools(wire: Wire) -> Tools:
    kit = Tools("https://api.example.com", "token", "bot")
    headers = kit.http.headers
    kit.http = httpx.Client(
        base_url="https://api.example.com", headers=headers, transport=httpx.MockTransport(wire)
    )
    return kit


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("Löschung — DSGVO", "Löschung — DSGVO"),
        ("first\nsecond\r\nX-Evil: 1", "first second X-Evil: 1"),
        ("a\x00b\x85c", "a b c"),
        ("half \ud800", "half"),
    ],
)
def test_a_reason_is_sent_whatever_a_model_writes(
    reason: str, sent: str, tools: Tools, wire: Wire
) -> None:
    told, is_error = tools.call("erase_customer", {"customer_id": 2, "reason": reason})
    assert (told, is_error) == ("Done: HTTP 204.", False)
    raw = dict(wire.sent[0].headers.raw)
    assert raw[b"Approval-Reason"].decode() == sent


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("approval_status", {"approval_id": "../api/customers/2"}),
        ("approval_status", {"approval_id": 5}),
        ("approval_status", {}),
        ("erase_customer", {"customer_id": "two"}),
        ("erase_customer", {}),
        ("erase_customer", "{customer_id: 2"),
    ],
)
def test_wrong_arguments_are_told_to_the_model_and_nothing_is_sent(
    name: str, arguments: Any, tools: Tools, wire: Wire
) -> None:
    told, is_error = tools.call(name, arguments)
    assert told.startswith("Not executed. Wrong arguments") and is_error
    assert wire.sent == []


def test_a_call_without_an_answer_is_not_reported_as_not_done(tools: Tools, wire: Wire) -> None:
    wire.error = httpx.ReadError("reset")
    told, is_error = tools.call("erase_customer", {"customer_id": 2, "reason": "x"})
    assert "may have been done" in told and is_error


def test_arguments_that_are_no_json_do_not_end_the_loop(tools: Tools) -> None:
    function = {"name": "erase_customer", "arguments": "{customer_id: 2"}
    asks = {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}

    def model(messages: list[dict[str, Any]], described: list[dict[str, Any]]) -> dict[str, Any]:
        last = messages[-1]
        return asks if last["role"] == "user" else {"role": "assistant", "content": last["content"]}

    assert openai_loop.converse(model, tools, "Erase him.").startswith("Not executed. Wrong")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (5, -32600),
        (None, -32600),
        ([], -32600),
        ({"id": 1, "method": ["x"]}, -32601),
        ({"id": 1, "method": "initialize", "params": {"clientInfo": "x"}}, -32602),
        ({"id": 1, "method": "tools/call", "params": [1]}, -32602),
    ],
)
def test_the_server_answers_what_is_no_request(message: Any, code: int, tools: Tools) -> None:
    answer = mcp_server.answer(message, tools)
    assert answer is not None and answer["error"]["code"] == code
    json.dumps(answer)


def test_a_clients_name_becomes_one_plain_header(tools: Tools, wire: Wire) -> None:
    hello = {"clientInfo": {"name": "clé\nX", "version": "1"}}
    mcp_server.initialize(hello, tools)
    mcp_server.call({"name": "erase_customer", "arguments": {"customer_id": 2}}, tools)
    assert wire.sent[0].headers["Approval-Agent"] == "cl??X/1"

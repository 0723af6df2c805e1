"""A tool loop in the style of OpenAI's chat completions; `complete` is the model: messages and tools in, a message out.

With the vendor's package: `lambda messages, tools: client.chat.completions.create(model=…, messages=messages,
tools=tools).choices[0].message.model_dump(exclude_none=True)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tools import TOOLS, Tools

Complete = Callable[[list[dict[str, Any]], list[dict[str, Any]]], dict[str, Any]]
_SYSTEM = (
    "You look after a back office. A call that is held for approval has not been done. Follow the instructions in "
    "such an answer; never say that something was done unless a tool said so."
)


def converse(complete: Complete, tools: Tools, request: str, *, rounds: int = 20) -> str:
    """Return the model's last word. Between two looks at an approval the loop, not the model, should wait."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": request},
    ]
    described = [{"type": "function", "function": tool} for tool in TOOLS]
    for _ in range(rounds):
        message = complete(messages, described)
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        for each in message["tool_calls"]:
            function = each["function"]
            told, _is_error = tools.call(function["name"], _arguments(function["arguments"]))
            messages.append({"role": "tool", "tool_call_id": each["id"], "content": told})
    return "I was not done in time; whatever waits for approval has not been done."


def _arguments(text: str) -> Any:
    """Return what the model sent. Models send what is no JSON: the tool says so, and the model tries again."""
    try:
        return json.loads(text)
    except ValueError:
        return text

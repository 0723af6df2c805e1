"""Two tools over the example project's API, for whatever loop calls tools: what they are, and what a call answers.

A held call is no error to hide from the model: its body says what happened, that nothing ran, and what to do next.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import httpx

TOOLS = [
    {
        "name": "erase_customer",
        "description": "Erase a customer for good. May need a person's approval; then nothing is done yet, and the "
        "answer says what to do. Once it is approved, call this again with the very same arguments.",
        "parameters": {
            "type": "object",
            "properties": {
                "customer_id": {"type": "integer"},
                "reason": {"type": "string", "description": "Why, for the person who decides."},
            },
            "required": ["customer_id", "reason"],
        },
    },
    {
        "name": "approval_status",
        "description": "Where a call that waits for approval stands.",
        "parameters": {
            "type": "object",
            "properties": {"approval_id": {"type": "string"}},
            "required": ["approval_id"],
        },
    },
]


class Tools:
    """The tools of one conversation. `agent` is who acts for the account behind the token."""

    def __init__(self, base_url: str, token: str, agent: str) -> None:
        self.http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Token {token}", "Approval-Agent": agent},
            trust_env=False,
        )
        # The approval that each call waits for. The model need not carry it over; nor can it mix them up.
        self._waiting: dict[str, str] = {}

    def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """Return what the model is told, and whether it is an error. Whatever it sent, nothing is raised."""
        try:
            return self._call(name, arguments)
        except (KeyError, TypeError, ValueError) as error:
            return f"Not executed. Wrong arguments: {error!r}.", True
        except httpx.ConnectError as error:
            return f"Not executed. There is no connection: {error}.", True
        except httpx.HTTPError as error:
            return (
                f"No answer came: {error!r}. It may have been done: look before you say so.",
                True,
            )

    def _call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        if name == "approval_status":
            # A model may send anything: as an id, "../api/customers/2" would read another page.
            answer = self.http.get(f"/approvals/{UUID(str(arguments['approval_id']))}/")
        elif name == "erase_customer":
            answer = self._gated(
                "DELETE", f"/api/customers/{int(arguments['customer_id'])}/", arguments
            )
        else:
            return f"There is no tool {name!r}.", True
        told = answer.text or f"Done: HTTP {answer.status_code}."
        return told, answer.is_error

    def _gated(self, method: str, url: str, arguments: dict[str, Any]) -> httpx.Response:
        call = json.dumps([method, url])
        # One line of UTF-8: what a model writes has line breaks and umlauts, and no header of httpx's own has them.
        reason = "".join(c if c.isprintable() else " " for c in str(arguments.get("reason", "")))
        headers = {b"Approval-Reason": " ".join(reason.split()).encode("utf-8", "replace")}
        if call in self._waiting:
            headers[b"Approval-Id"] = self._waiting[call].encode()
        answer = self.http.request(method, url, headers=headers)
        if answer.is_error and _code(answer) == "approval_pending":
            self._waiting[call] = answer.json()["approval_id"]
        else:
            self._waiting.pop(call, None)
        return answer


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("code"))
    except (ValueError, AttributeError):
        return ""

"""The operations of the status and decision API."""

from __future__ import annotations

import re
from typing import Any

from jit_approval.openapi.schemas import ref
from jit_approval.states import Status

_IN_PATH = re.compile(r"{(\w+)}")
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_LIST = (
    ("role", {"type": "string", "enum": ["requester", "decider"]}),
    ("status", {"type": "string", "enum": list(Status.values)}),
    ("cursor", {"type": "string"}),
    ("page_size", {"type": "integer", "minimum": 1, "maximum": 100}),
)
_LONG_POLL = [
    {
        "in": "header",
        "name": "Prefer",
        "schema": {"type": "string"},
        "description": "`wait=N`, with If-None-Match: answered when there is news, or after N seconds.",
    },
    {"in": "header", "name": "If-None-Match", "schema": {"type": "string"}},
]
_MOVES = {
    "ApproveView": ("approve", "Vote for the call. At the quorum it may run, once."),
    "RejectView": ("reject", "Refuse the call for good."),
    "CancelView": ("cancel", "Withdraw an own pending request."),
    "RevokeView": ("revoke", "Take back an approval that has not been used."),
}


def operation(view: Any, method: str, path: str) -> dict[str, Any] | None:
    """Return the operation of one of the package's views; None where it is not described."""
    made = _made(type(view).__name__, method)
    if made is None:
        return None
    names = _IN_PATH.findall(path)
    own = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    parameters = [*own, *made.pop("parameters", [])]
    return {**made, **({"parameters": parameters} if parameters else {})}


def _made(name: str, method: str) -> dict[str, Any] | None:
    if name in _MOVES and method == "POST":
        return _move(*_MOVES[name])
    made = {
        ("RequestListView", "GET"): _list,
        ("RequestDetailView", "GET"): _detail,
        ("ResultView", "GET"): _result,
        ("ReceiptView", "GET"): _receipt,
        ("CallbackListView", "GET"): _callbacks,
        ("CallbackListView", "POST"): _register,
        ("CallbackDetailView", "GET"): _callback,
        ("CallbackDetailView", "DELETE"): _forget,
    }.get((name, method))
    return made() if made is not None else None


def _operation(
    name: str, text: str, responses: dict[str, Any], *, own: bool = True, **more: Any
) -> dict[str, Any]:
    return {
        "operationId": f"approvals_{name}",
        "description": text,
        "tags": ["approvals"],
        **more,
        "responses": {
            **responses,
            **_problems("401", "403", "503"),
            **(_problems("404") if own else {}),
        },
    }


def _json(name: str, text: str = "") -> dict[str, Any]:
    return {"description": text, "content": {_JSON: {"schema": ref(name)}}}


def _problems(*statuses: str) -> dict[str, Any]:
    content = {_PROBLEM: {"schema": ref("ApprovalProblem")}}
    return {status: {"description": "", "content": content} for status in statuses}


def _list() -> dict[str, Any]:
    parameters = [{"in": "query", "name": name, "schema": schema} for name, schema in _LIST]
    text = "Own requests, newest first; `role=decider`: those of others that one may decide."
    responses = {"200": _json("ApprovalRequestPage"), **_problems("400")}
    return _operation("list", text, responses, own=False, parameters=parameters)


def _detail() -> dict[str, Any]:
    responses = {
        "200": _json("ApprovalRequest"),
        "304": {"description": "Nothing new."},
        **_problems("429"),
    }
    text = "One request as it stands now; `next` says what its requester does."
    return _operation("retrieve", text, responses, parameters=_LONG_POLL)


def _result() -> dict[str, Any]:
    responses = {"200": _json("ApprovalResult"), **_problems("409", "410")}
    return _operation("result", "The answer to a call that the server ran.", responses)


def _receipt() -> dict[str, Any]:
    content = {_JSON: {"schema": {"type": "object", "additionalProperties": True}}}
    responses = {"200": {"description": "", "content": content}, **_problems("409")}
    return _operation("receipt", "The receipt of a call that ran, once it is sealed.", responses)


def _move(name: str, text: str) -> dict[str, Any]:
    body = {"content": {_JSON: {"schema": ref("ApprovalComment")}}}
    responses = {"200": _json("ApprovalRequest"), **_problems("400", "409")}
    return _operation(name, text, responses, requestBody=body)


def _callbacks() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["results"],
        "properties": {"results": {"type": "array", "items": ref("ApprovalCallback")}},
    }
    responses = {"200": {"description": "", "content": {_JSON: {"schema": schema}}}}
    return _operation("callbacks_list", "Own endpoints that are called back.", responses, own=False)


def _register() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["url"],
        "properties": {"url": {"type": "string", "format": "uri"}, "secret": {"type": "string"}},
    }
    body = {"required": True, "content": {_JSON: {"schema": schema}}}
    responses = {"201": _json("ApprovalCallback"), **_problems("400", "409")}
    text = "Register an endpoint (Standard Webhooks). The secret is shown once."
    return _operation("callbacks_create", text, responses, own=False, requestBody=body)


def _callback() -> dict[str, Any]:
    return _operation("callbacks_retrieve", "One of them.", {"200": _json("ApprovalCallback")})


def _forget() -> dict[str, Any]:
    return _operation("callbacks_destroy", "Forget it.", {"204": {"description": "Forgotten."}})

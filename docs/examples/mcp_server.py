"""The same tools as a Model Context Protocol server on standard input and output: JSON-RPC 2.0, one message a line.

`BACKOFFICE_URL=… BACKOFFICE_TOKEN=… python mcp_server.py`. Standard library and httpx; with the `mcp` package the
body of `call` is what goes into a `@server.call_tool()`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tools import TOOLS, Tools

_PROTOCOL = "2025-06-18"


def answer(message: Any, tools: Tools) -> dict[str, Any] | None:
    """Return the answer to one message; None for a notification."""
    if not isinstance(message, dict):
        error = {"code": -32600, "message": "Invalid Request"}
        return {"jsonrpc": "2.0", "id": None, "error": error}
    if "id" not in message:
        return None
    handlers = {
        "initialize": initialize,
        "ping": lambda *_: {},
        "tools/list": listed,
        "tools/call": call,
    }
    handler = handlers.get(str(message.get("method")))
    base = {"jsonrpc": "2.0", "id": message["id"]}
    if handler is None:
        return {**base, "error": {"code": -32601, "message": "Method not found"}}
    try:
        return {**base, "result": handler(message.get("params") or {}, tools)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {**base, "error": {"code": -32602, "message": f"Invalid params: {error}"}}


def initialize(params: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """Return who this is. The client's name is who acts: a claim, shown as one to who decides."""
    client = params.get("clientInfo") or {}
    name = f"{client.get('name', 'mcp')}/{client.get('version', '0')}"
    name = "".join(c if c.isascii() and c.isprintable() else "?" for c in name)
    tools.http.headers["Approval-Agent"] = name[:200]
    return {
        "protocolVersion": _PROTOCOL,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "backoffice", "version": "1"},
    }


def listed(params: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """Return the tools. Hosts ask their user before a destructive one; the approver is somebody else still."""
    return {
        "tools": [
            {
                "name": tool["name"],
                "description": tool["description"],
                "inputSchema": tool["parameters"],
                "annotations": {
                    "readOnlyHint": tool["name"] == "approval_status",
                    "destructiveHint": tool["name"] != "approval_status",
                },
            }
            for tool in TOOLS
        ]
    }


def call(params: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """Call a tool. A refusal is a result with `isError`, which the model reads, and no protocol error."""
    told, is_error = tools.call(params["name"], params.get("arguments") or {})
    return {"content": [{"type": "text", "text": told}], "isError": is_error}


def main() -> None:
    """Answer until the input ends."""
    tools = Tools(os.environ["BACKOFFICE_URL"], os.environ["BACKOFFICE_TOKEN"], "mcp")
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            reply = answer(json.loads(line), tools)
        except json.JSONDecodeError:
            reply = {
                "jsonrpc": "2.0",
                "id": None,
                "error": {"code": -32700, "message": "Parse error"},
            }
        if reply is not None:
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()

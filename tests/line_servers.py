"""Real servers whose callers wait, and a client that is light enough to be a thousand of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from django.db import connection

PATIENCE = 60.0
GUNICORN = [
    "gunicorn",
    "--no-control-socket",
    "--workers=1",
    "--bind=127.0.0.1:{port}",
    "--timeout=600",
]
WSGI = "django.core.wsgi:get_wsgi_application()"
SERVERS = {
    "gunicorn-sync": [*GUNICORN, WSGI],
    "gunicorn-threads": [*GUNICORN, "--threads={threads}", WSGI],
    "uvicorn": [
        *["uvicorn", "--factory", "--lifespan=off", "--port={port}", "--log-level=warning"],
        "django.core.asgi:get_asgi_application",
    ],
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server at a port of this machine."""

    def __init__(self, port: int, token: str, runs: Path) -> None:
        self.port = port
        self.token = token
        self.log_of_runs = runs

    @property
    def name(self) -> str:
        """What its connections to the database are called."""
        return f"line-{self.port}"

    def forget(self) -> None:
        """Begin with no runs."""
        self.log_of_runs.write_text("")

    @property
    def runs(self) -> list[int]:
        """The number of each call that ran."""
        return [int(line) for line in self.log_of_runs.read_text().split()]

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make one request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self._request(method, path, body, headers))
            return _answer(await reader.read())
        finally:
            writer.close()

    async def pay(self, number: int, *, wait: int = 500) -> Answer:
        return await self.send("POST", "/pay/", {"number": number}, Prefer=f"wait={wait}")

    async def inside(self) -> dict[str, int]:
        found: dict[str, int] = (await self.send("GET", "/inside/")).json
        return found

    async def until_waiting(self, count: int) -> None:
        """Return when so many wait on the line."""
        until = time.monotonic() + PATIENCE
        while (there := (await self.inside())["waiters"]) != count:
            assert time.monotonic() < until, f"{there} wait, not {count}"
            await asyncio.sleep(0.05)

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Token {self.token}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "Connection: close",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content


def _answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    return Answer(int(first.split()[1]), headers, body)


def _dechunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found


@contextmanager
def serving(
    kind: str, token: str, folder: Path, *, pool: int = 0, threads: int = 8
) -> Iterator[Server]:
    """A server of this kind, on the database of this process; `pool`: of so many connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    runs = folder / "runs"
    runs.touch()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.line_settings",
        "JIT_LINE_DB": str(connection.settings_dict["NAME"]),
        "JIT_LINE_RUNS": str(runs),
        "JIT_LINE_NAME": f"line-{port}",
        "JIT_LINE_POOL": str(pool or ""),
        "JIT_LINE_THREADS": str(threads - 2),
    }
    command = [part.format(port=port, threads=threads) for part in SERVERS[kind]]
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            made = Server(port, token, runs)
            _until_up(made, process)
            yield made
        finally:
            # Its workers with it; asked politely they would wait for who waits.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def _until_up(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, "the server has ended"
        with suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/health/", timeout=PATIENCE)
            return
        time.sleep(0.1)
    raise AssertionError("the server did not come up")

"""One HTTPS POST to the open Internet: the name is resolved once, and the connection goes to that very address.

No redirects, no proxies, no cookies, no retries: one request, within one time limit. Of the answer, only the status
and `Retry-After` are read.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from jit_approval import conf
from jit_approval.notifications import public

TIMEOUT = 15.0
"""Seconds for everything: resolving, connecting, TLS, sending, and the answer."""

_MAX_ANSWER = 64 * 1024
_MAX_ADDRESSES = 4


class Unreachable(Exception):
    """No answer was had. The text says what happened."""


@dataclass(frozen=True)
class Answer:
    """What came back. `retry_after` is the header as it was sent, or ""."""

    status: int
    retry_after: str = ""


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout: float = TIMEOUT) -> Answer:
    """Send one POST and return the answer.

    Raises:
        NotPublic: the URL, or an address its host resolves to, is not to be called; nothing was sent.
        Unreachable: no connection, no TLS with a certificate for this host, or no answer in time.
    """
    deadline = monotonic() + timeout
    parts = public.parse(url, conf.get().WEBHOOK_PORTS)
    host, port = str(parts.hostname), 443 if parts.port is None else parts.port
    addresses = _resolve(host, port, deadline)
    try:
        with _connect(addresses, port, host, deadline) as connection:
            _send(
                connection, _request(parts.netloc, parts.path, parts.query, headers, body), deadline
            )
            return _read(connection, deadline)
    except TimeoutError:
        raise Unreachable(f"{host} did not answer within {timeout:g} seconds.") from None
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"The certificate of {host} is not valid: {error.verify_message}"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{host}: {type(error).__name__}: {error}") from None


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """Return the addresses of a host, asked for once. One that is not public spoils them all."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    # The resolver knows no time limit of ours. A thread that it keeps waiting ends by itself, later.
    thread = threading.Thread(target=ask, daemon=True, name="jit_approval.resolve")
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise Unreachable(f"{host} was not resolved in time.")
    if isinstance(found[0], Exception):
        raise Unreachable(f"{host} was not resolved: {found[0]}")
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found[0]))
    for address in addresses:
        if not public.is_public(address):
            raise public.NotPublic(
                f"{host} is {address}, which is not an address of the open Internet."
            )
    if not addresses:
        raise Unreachable(f"{host} has no address.")
    return addresses[:_MAX_ADDRESSES]


def _connect(addresses: list[str], port: int, host: str, deadline: float) -> ssl.SSLSocket:
    """Connect to the first address that answers; the certificate must be for the host that was named."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    plain = _dial(addresses, port, deadline)
    try:
        plain.settimeout(_left(deadline))
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _dial(addresses: list[str], port: int, deadline: float) -> socket.socket:
    for number, address in enumerate(addresses, start=1):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows packets leaves time for the others.
            plain.settimeout(_left(deadline) / (len(addresses) - number + 1))
            plain.connect((address, port))
            return plain
        except BaseException as error:
            plain.close()
            if number == len(addresses) or not isinstance(error, OSError):
                raise
    raise AssertionError("there is at least one address")


def _request(netloc: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> bytes:
    host = netloc.lower().removesuffix(":443")
    target = (path or "/") + (f"?{query}" if query else "")
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}"]
    sent = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    for name, value in sent.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"no value for the header {name}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _send(connection: ssl.SSLSocket, data: bytes, deadline: float) -> None:
    rest = memoryview(data)
    while rest:
        connection.settimeout(_left(deadline))
        rest = rest[connection.send(rest) :]


def _read(connection: ssl.SSLSocket, deadline: float) -> Answer:
    """Read status and headers; the body is nobody's business, and is left where it is."""
    response = http.client.HTTPResponse(_Incoming(connection, deadline))  # type: ignore[arg-type]
    response.begin()
    with suppress(OSError):
        response.close()
    return Answer(response.status, response.getheader("Retry-After", "") or "")


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Incoming(io.RawIOBase):
    """What a server sends, up to a limit, before the deadline: as `http.client` wants to read it."""

    def __init__(self, connection: ssl.SSLSocket, deadline: float) -> None:
        self._connection, self._deadline, self._room = connection, deadline, _MAX_ANSWER

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return itself, buffered."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, a byte at least.

        Raises:
            TimeoutError: the time for the whole request is over, however busily the server sends.
            ValueError: the server sent more than anybody wants to read.
        """
        self._connection.settimeout(_left(self._deadline))
        got = self._connection.recv_into(buffer)
        self._room -= got
        if self._room < 0:
            raise ValueError("an answer without end")
        return got

"""A real HTTPS server under a certificate authority that is thrown away, and the open Internet it seems to be on.

Nothing of the package is changed for it. The operating system's trust is pointed at the authority, as an operator
could do (`SSL_CERT_FILE`), the resolver answers with a public address, and the kernel is told to connect to this
machine in its place.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "hooks.example.com"
PUBLIC = "93.184.215.14"
Answers = Callable[[BaseHTTPRequestHandler], None]

_connects: list[Any] | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _connects is not None and event == "socket.connect":
        _connects.append(args[1])


sys.addaudithook(_audit)  # can never be removed; it does nothing unless somebody counts


@contextmanager
def counted_connections() -> Iterator[list[Any]]:
    """Collect every address that any Python socket of this process connects to."""
    global _connects
    _connects = found = []
    try:
        yield found
    finally:
        _connects = None


class Receiver:
    """What arrived, and what is answered."""

    def __init__(self, port: int, authority: Path) -> None:
        self.port, self.authority = port, authority
        self.url = f"https://{HOST}:{port}/hooks/approvals?team=ops"
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.body = b""
        self.answer: Answers | None = None


@contextmanager
def receiver(folder: Path, *, name: str = HOST) -> Iterator[Receiver]:
    """Run the server; its certificate is for `name`. This process finds it on the open Internet."""
    with serving(folder, name=name) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(found.authority))
        put_on_the_internet(patch, found.port)
        yield found


@contextmanager
def serving(folder: Path, *, name: str = HOST) -> Iterator[Receiver]:
    """Run the server, for other processes (see `put_host_on_the_internet`)."""
    authority, chain = certificates(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: found))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    found = Receiver(server.server_address[1], authority)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(state: Callable[[], Receiver]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_POST(self) -> None:
            found = state()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append((self.path, dict(self.headers.items()), body))
            if found.answer is not None:
                found.answer(self)
                return
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    return Handler


def put_on_the_internet(patch: pytest.MonkeyPatch, port: int) -> None:
    """Names resolve to a public address, and what connects to it reaches this machine."""
    resolve_to(patch, PUBLIC)
    connect = socket.socket.connect

    def redirected(self: socket.socket, address: Any) -> None:
        connect(self, ("127.0.0.1", port) if address[0] == PUBLIC else address)

    patch.setattr(socket.socket, "connect", redirected, raising=False)


def put_host_on_the_internet(port: int, authority: Path) -> None:
    """Do so for `HOST` alone, and for good: in a process that has other servers to reach, and ends by itself."""
    os.environ["SSL_CERT_FILE"] = str(authority)
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return [_info(PUBLIC, port)] if host == HOST else resolve(host, *args, **kwargs)

    def redirected(self: socket.socket, address: Any) -> None:
        connect(self, ("127.0.0.1", port) if address[0] == PUBLIC else address)

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    socket.socket.connect = redirected  # type: ignore[method-assign, assignment]


def resolve_to(patch: pytest.MonkeyPatch, *answers: str | list[str]) -> list[str]:
    """Let the resolver answer each question in turn, the last answer for ever; return who was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(str(host))
        addresses = [answer] if isinstance(answer, str) else answer
        return [_info(address, port) for address in addresses]

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def _info(address: str, port: int) -> Any:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


def certificates(folder: Path, name: str) -> tuple[Path, Path]:
    """Make an authority, and a certificate of it for `name`; return the files of both."""
    now = datetime.now(UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "thrown away")])

    def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    authority = builder(issuer, authority_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    # Python 3.13 insists on these (RFC 5280 §4.2.1).
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    uses = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
            *("key_agreement", "encipher_only", "decipher_only"),
        ),
        False,
    )
    usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **uses)
    authority = authority.add_extension(key_id, critical=False).add_extension(usage, critical=True)
    signed_authority = authority.sign(authority_key, hashes.SHA256())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName(
        [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    leaf = builder(subject, key.public_key()).add_extension(names, critical=False)
    leaf = leaf.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    signed_leaf = leaf.sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    authority_file, chain_file = folder / "authority.pem", folder / "server.pem"
    authority_file.write_bytes(signed_authority.public_bytes(pem))
    chain_file.write_bytes(secret + signed_leaf.public_bytes(pem))
    return authority_file, chain_file

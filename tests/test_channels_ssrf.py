"""What a webhook never reaches: everything that only this server can reach. Counted at the sockets."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from django.test import override_settings

from jit_approval.notifications import egress, public
from tests import receivers
from tests.receivers import HOST, PUBLIC, counted_connections, receiver, resolve_to

HEADERS = {"Content-Type": "application/json"}

# Each resolves, as far as the resolver of these tests is asked, to a public address: what gets past the reading of
# the URL is a connection, and is counted.
URLS = {
    "plain http": "http://hooks.example.com/",
    "upper-case scheme": "HTTPS://hooks.example.com/",
    "other scheme": "gopher://hooks.example.com/",
    "file": "file:///etc/passwd",
    "no scheme": "//hooks.example.com/",
    "relative": "/hooks",
    "nothing": "",
    "loopback": "https://127.0.0.1/",
    "public address": "https://93.184.215.14/",
    "short address": "https://127.1/",
    "decimal address": "https://2130706433/",
    "octal address": "https://0177.0.0.1/",
    "hexadecimal address": "https://0x7f.0.0.1/",
    "hexadecimal in one": "https://0x7f000001/",
    "hexadecimal at the end": "https://127.0.0.0x1/",
    "bare hexadecimal prefix": "https://a.0x/",
    "number at the end": "https://hooks.example.1/",
    "overflowing number": "https://4294967297.1/",
    "loopback 6": "https://[::1]/",
    "mapped 6": "https://[::ffff:127.0.0.1]/",
    "mapped 6 in hexadecimal": "https://[::ffff:7f00:1]/",
    "compatible 6": "https://[::127.0.0.1]/",
    "NAT64": "https://[64:ff9b::7f00:1]/",
    "6to4": "https://[2002:7f00:1::]/",
    "zone": "https://[fe80::1%25eth0]/",
    "zone without escape": "https://[fe80::1%eth0]/",
    "version to come": "https://[v1.fe80::a]/",
    "one label": "https://localhost/",
    "one label, dot": "https://localhost./",
    "dot at the end": "https://hooks.example.com./",
    "two dots": "https://hooks..example.com/",
    "dot first": "https://.example.com/",
    "user": "https://user@hooks.example.com/",
    "user and password": "https://user:secret@hooks.example.com/",
    "host as user": "https://hooks.example.com@127.0.0.1/",
    "empty user": "https://@hooks.example.com/",
    "escaped at-sign": "https://hooks.example.com%40127.0.0.1/",
    "backslash": "https://hooks.example.com\\@127.0.0.1/",
    "backslashes": "https:\\\\127.0.0.1/",
    "fragment": "https://hooks.example.com/#@127.0.0.1/",
    "empty fragment": "https://hooks.example.com/#",
    "three slashes": "https:///127.0.0.1/",
    "no slashes": "https:hooks.example.com/",
    "SSH's port": "https://hooks.example.com:22/",
    "HTTP's port": "https://hooks.example.com:80/",
    "Redis's port": "https://hooks.example.com:6379/",
    "port zero": "https://hooks.example.com:0/",
    "empty port": "https://hooks.example.com:/",
    "port with zeros": "https://hooks.example.com:0443/",
    "port too high": "https://hooks.example.com:65979/",
    "negative port": "https://hooks.example.com:-443/",
    "two ports": "https://hooks.example.com:443:22/",
    "port in other digits": "https://hooks.example.com:\uff14\uff14\uff13/",
    "fullwidth digits": "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "circled letters": "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ.example.com/",
    "ideographic dot": "https://127。0。0。1/",
    "other script": "https://bücher.example/",
    "soft hyphen": "https://hooks\u00ad.example.com/",
    "bidirectional": "https://hooks.example.com/\u202e",
    "line feed": "https://hooks.example.com/\nHost: 127.0.0.1",
    "line feed in the host": "https://127.0.0.1\n.example.com/",
    "tabulator": "https://hooks.example.com/\t",
    "header": "https://hooks.example.com/ HTTP/1.1\r\nX: y",
    "blank": "https://hooks.example.com /",
    "blank first": " https://hooks.example.com/",
    "NUL": "https://hooks.example.com\x00.evil.test/",
    "escaped host": "https://hooks%2eexample.com/",
    "quotation mark": 'https://hooks.example.com/"',
    "angle bracket": "https://hooks.example.com/<x>",
    "label too long": f"https://{'a' * 64}.example.com/",
    "name too long": f"https://{'a.' * 130}example.com/",
    "URL too long": f"https://hooks.example.com/{'a' * 2000}",
    "hyphen first": "https://-hooks.example.com/",
}

# What a harmless name may resolve to.
ADDRESSES = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:93.184.215.14",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "2a00:1450::5efe:127.0.0.1",
    "2a00:1450::200:5efe:7f00:1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
)


@pytest.mark.parametrize("url", URLS.values(), ids=URLS.keys())
def test_no_url_that_could_be_read_differently_is_called(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, PUBLIC)
    with counted_connections() as connections, pytest.raises(public.NotPublic):
        egress.post(url, b"{}", HEADERS, timeout=1)
    assert (connections, asked) == ([], [])


@pytest.mark.parametrize("url", ["https://[::1]/", "https://[2606:4700::1]/", "https://10.0.0.1/"])
def test_who_names_an_address_is_told_that_it_takes_a_name(url: str) -> None:
    with pytest.raises(public.NotPublic, match="a name, not an address"):
        public.parse(url, (443,))


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_name_leads_to_an_address_that_is_not_public(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, address)
    with counted_connections() as connections, pytest.raises(public.NotPublic):
        egress.post(f"https://{HOST}/", b"{}", HEADERS, timeout=1)
    assert (connections, asked) == ([], [HOST])


@pytest.mark.parametrize("address", ADDRESSES)
def test_one_address_that_is_not_public_spoils_the_others(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, [PUBLIC, address])
    with counted_connections() as connections, pytest.raises(public.NotPublic):
        egress.post(f"https://{HOST}/", b"{}", HEADERS, timeout=1)
    assert connections == []


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820::"])
def test_public_addresses_are_public(address: str) -> None:
    assert public.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://Hooks.Example.COM/a/b?c=d&e=%20",
        "https://hooks.example.com:8443/",
        "https://xn--bcher-kva.example/",
        "https://1.hooks_2.example.com/",
    ],
)
def test_ordinary_urls_may_be_called(url: str) -> None:
    assert public.parse(url, (443, 8443)).scheme == "https"


def test_name_that_resolves_to_another_address_the_second_time_is_asked_for_once(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path) as server, ports(server.port), pytest.MonkeyPatch.context() as patch:
        asked = resolve_to(patch, PUBLIC, "127.0.0.1")
        with counted_connections() as connections:
            assert egress.post(server.url, b"{}", HEADERS).status == 204
    assert asked == [HOST]
    # The kernel was told to lead the public address here; nothing else was connected to.
    assert connections == [("127.0.0.1", server.port)] and len(server.got) == 1


def test_the_next_message_asks_for_the_name_again(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path) as server, ports(server.port), pytest.MonkeyPatch.context() as patch:
        resolve_to(patch, PUBLIC, "127.0.0.1")
        egress.post(server.url, b"{}", HEADERS)
        with pytest.raises(public.NotPublic):
            egress.post(server.url, b"{}", HEADERS)
    assert len(server.got) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, tmp_path: Path) -> None:
    with receiver(tmp_path) as server, ports(server.port):
        server.status, server.headers = status, {"Location": f"https://127.0.0.1:{server.port}/"}
        with counted_connections() as connections:
            assert egress.post(server.url, b"{}", HEADERS).status == status
    assert (len(connections), len(server.got)) == (1, 1)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_proxies_of_the_environment_are_not_used(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://10.0.0.1:3128")
    with receiver(tmp_path) as server, ports(server.port), counted_connections() as connections:
        egress.post(server.url, b"{}", HEADERS)
    assert connections == [("127.0.0.1", server.port)]


# --- the connection --------------------------------------------------------------------------------------


def ports(*allowed: int) -> override_settings:
    return override_settings(JIT_APPROVAL={"WEBHOOK_PORTS": allowed})


def test_request_is_what_was_asked_for(tmp_path: Path) -> None:
    with receiver(tmp_path) as server, ports(server.port):
        egress.post(server.url, b'{"a":1}', HEADERS)
    path, headers, body = server.got[0]
    assert (path, body) == ("/hooks/approvals?team=ops", b'{"a":1}')
    assert headers["Host"] == f"{HOST}:{server.port}"
    assert headers["Connection"] == "close"


def test_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(egress.Unreachable, match="certificate")
    with receiver(tmp_path, name="other.example.com") as server, ports(server.port), refused:
        egress.post(server.url, b"{}", HEADERS)
    assert server.got == []


def test_certificate_of_an_unknown_authority_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = receivers.certificates(tmp_path / "other", HOST)
    with receiver(tmp_path) as server, ports(server.port):
        monkeypatch.setenv("SSL_CERT_FILE", str(other))
        with pytest.raises(egress.Unreachable, match="certificate"):
            egress.post(server.url, b"{}", HEADERS)
    assert server.got == []


def drips(handler: BaseHTTPRequestHandler) -> None:
    """Sends a byte now and then: never silent, never done."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def floods(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(2000):
        handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))


def goes_on_and_on(handler: BaseHTTPRequestHandler) -> None:
    """Answers in the end, after more interim answers than anybody wants to read."""
    handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000)
    handler.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def falls_silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


@pytest.mark.parametrize("answer", [drips, falls_silent])
def test_server_that_takes_its_time_is_left_after_ours(
    answer: receivers.Answers, tmp_path: Path
) -> None:
    with receiver(tmp_path) as server, ports(server.port):
        server.answer = answer
        began = time.monotonic()
        with pytest.raises(egress.Unreachable, match="within"):
            egress.post(server.url, b"{}", HEADERS, timeout=0.5)
        assert time.monotonic() - began < 1.5


def test_resolver_that_takes_its_time_is_left_after_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(egress.Unreachable, match="in time"):
        egress.post(f"https://{HOST}/", b"{}", HEADERS, timeout=0.3)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("answer", [floods, goes_on_and_on])
def test_answer_without_end_is_not_read(answer: receivers.Answers, tmp_path: Path) -> None:
    with receiver(tmp_path) as server, ports(server.port):
        server.answer = answer
        with pytest.raises(egress.Unreachable):
            egress.post(server.url, b"{}", HEADERS)


def test_answer_that_is_no_http_is_no_answer(tmp_path: Path) -> None:
    with receiver(tmp_path) as server, ports(server.port):
        server.answer = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n") and None
        with pytest.raises(egress.Unreachable):
            egress.post(server.url, b"{}", HEADERS)


def test_next_address_is_tried_when_one_refuses(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path) as server, ports(server.port), pytest.MonkeyPatch.context() as patch:
        # Nobody answers for this one: the kernel here has no route to it, or refuses.
        resolve_to(patch, ["2606:2800:21f:cb07:6820::", PUBLIC])
        assert egress.post(server.url, b"{}", HEADERS, timeout=4).status == 204
    assert len(server.got) == 1

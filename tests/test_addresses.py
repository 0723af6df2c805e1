"""Where a call comes from, whatever its caller writes into headers."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from jit_approval import conf
from jit_approval.addresses import client_address

PROXIES = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "10.0.0.1", "203.0.113.9"),  # no proxy of ours: not believed
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (
            "10.0.0.1",
            "198.51.100.1, 203.0.113.9",
            "203.0.113.9",
        ),  # the left was written by the caller
        ("10.0.0.1", "203.0.113.9, 10.0.0.2, 192.0.2.7", "203.0.113.9"),
        ("10.0.0.1", "  203.0.113.9  ", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db9::9", "2001:db9::9"),
        ("10.0.0.1", None, ""),
        ("10.0.0.1", "", ""),
        ("10.0.0.1", "unknown", ""),
        ("10.0.0.1", "203.0.113.9, unknown", ""),
        ("10.0.0.1", "203.0.113.9:4711", ""),
        ("10.0.0.1", "203.0.113.9,", ""),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", ""),
        ("10.0.0.1", "010.0.0.2", ""),
        ("", "203.0.113.9", ""),
        ("/run/socket", "203.0.113.9", "/run/socket"),
    ],
)
def test_behind_proxies_of_ours(settings, peer, forwarded, address):
    settings.JIT_APPROVAL = {"TRUSTED_PROXIES": PROXIES}
    meta = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        meta["HTTP_X_FORWARDED_FOR"] = forwarded
    assert client_address(meta) == address


def test_with_no_proxies_the_peer_is_the_caller():
    meta = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}
    assert client_address(meta) == "10.0.0.1"


def test_other_headers_are_not_read(settings):
    settings.JIT_APPROVAL = {"TRUSTED_PROXIES": PROXIES}
    meta = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_REAL_IP": "203.0.113.9"}
    assert client_address({**meta, "HTTP_FORWARDED": "for=203.0.113.9"}) == ""


def test_no_address_at_all():
    assert client_address({}) == ""


@pytest.mark.parametrize("bad", [["10.0.0.1/8"], ["proxy.example.test"], "10.0.0.1"])
def test_what_is_no_network_stops_the_server(settings, bad):
    settings.JIT_APPROVAL = {"TRUSTED_PROXIES": bad}
    with pytest.raises(ImproperlyConfigured):
        conf.get()

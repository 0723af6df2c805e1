"""Which addresses on the network are somebody else's, out in the open. Closed on doubt.

An administrator who may configure a webhook must not be able to reach, through this server, what only this server
can reach: its own services, the private network, the metadata service of its cloud.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

# IANA's special-purpose registries (RFC 6890 and its successors), spelt out: what `is_global` says of them differs
# from one patch release of Python to the next.
_NOT_PUBLIC_4 = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Looks public, and is the host's own control plane on Azure.
            "168.63.129.16/32",
        ),
    )
)
_GLOBAL_UNICAST = ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        ip_network,
        (
            # Teredo, ORCHID, benchmarking, and whatever else of IETF's own.
            "2001::/23",
            "2001:db8::/32",
            # 6to4: an IPv4 address of any kind within.
            "2002::/16",
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
# ISATAP: an IPv4 address in the lower half, behind one of these.
_ISATAP = (0x00005EFE, 0x02005EFE)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_TARGET = re.compile(r"[!-~]*")
_MAX_URL = 2000


class NotPublic(ValueError):
    """An address or URL that is not to be called. The text says why."""


def is_public(address: str) -> bool:
    """Tell whether an IP address, in the canonical form a resolver gives, is one of the open Internet."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return ip.is_global and not any(ip in network for network in _NOT_PUBLIC_4)
    return _is_public_6(ip)


def _is_public_6(ip: IPv6Address) -> bool:
    # Outside of 2000::/3 lie loopback, private and link-local addresses, multicast, and every form with an IPv4
    # address within: mapped, compatible, translated (NAT64). No such form is unpacked: all are refused.
    if ip.scope_id is not None or ip not in _GLOBAL_UNICAST or not ip.is_global:
        return False
    if int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return False
    return not any(ip in network for network in _NOT_PUBLIC_6)


def parse(url: str, ports: tuple[int, ...]) -> SplitResult:
    """Return the parts of a URL that may be called, as far as one can tell without asking a resolver.

    Only what two programs cannot read differently: https, a host name of letters, digits and hyphens that is no
    number, no user, no fragment, a port that is allowed.

    Raises:
        NotPublic: it may not be called.
    """
    if len(url) > _MAX_URL or not _TARGET.fullmatch(url) or set(url) & set('\\"<>^`{|}'):
        raise NotPublic(
            "A URL here is at most 2000 letters, digits and punctuation of ASCII (xn--… for other scripts)."
        )
    if not url.startswith("https://"):
        raise NotPublic("Only https:// is called.")
    try:
        parts = urlsplit(url)
        port = 443 if parts.port is None else parts.port
    except ValueError:
        raise NotPublic("This is no URL.") from None
    if "@" in parts.netloc:
        raise NotPublic("No user name or password in the URL.")
    if "#" in url:
        raise NotPublic("No fragment (#…) in the URL: it would not be sent.")
    if port not in ports:
        raise NotPublic(f"The port {port} is not among JIT_APPROVAL['WEBHOOK_PORTS'].")
    _ensure_name(parts.netloc.lower())
    return parts


def _ensure_name(netloc: str) -> None:
    if netloc.startswith("["):
        raise NotPublic("The host is a name, not an address.")
    host, colon, port = netloc.partition(":")
    if colon and not (port.isdecimal() and port == str(int(port))):
        raise NotPublic("This is no port.")
    labels = host.split(".")
    if len(host) > 253 or len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)):
        raise NotPublic(
            "The host is a full name, such as hooks.example.com; no address, no dot at the end."
        )
    # Whatever ends in a number, some programs read as an IPv4 address: 127.1, 0x7f.1, 2130706433.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        raise NotPublic("The host is a name, not an address.")

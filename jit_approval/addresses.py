"""Where a call comes from: the peer, or what a proxy of ours says of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from jit_approval import conf


def client_address(meta: Mapping[str, Any]) -> str:
    """Return REMOTE_ADDR; where that is one of `TRUSTED_PROXIES`, the last address it forwards that is not.

    X-Forwarded-For is read from the right: what stands further left was written by the caller. "" where a
    trusted proxy forwards nothing that is an address, so that no rule about addresses is met by accident.
    """
    peer = str(meta.get("REMOTE_ADDR") or "")
    trusted = conf.get().TRUSTED_PROXIES
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    hops = [hop.strip() for hop in str(meta.get("HTTP_X_FORWARDED_FOR") or "").split(",")]
    for hop in reversed(hops):
        if _address(hop) is None:
            return ""
        if not _is_trusted(hop, trusted):
            return hop
    return ""


def _is_trusted(text: str, trusted: tuple[str, ...]) -> bool:
    address = _address(text)
    return address is not None and any(
        address.version == network.version and address in network for network in _networks(trusted)
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@cache
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)

"""Where calls came into the suite from.

Other parts tell it in metadata. Of a client it is the address of its connection, unless that is of a proxy which is
believed: those write down, in X-Forwarded-For, the address of each connection on the way to them.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import TypeAlias

from chassis.acceptor import Metadata
from chassis.call import CLIENT_ADDRESS_KEY, CLIENT_AGENT_KEY, Origin

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
# What a call came from, by what gRPC calls its peer, and its metadata.
OriginOf: TypeAlias = Callable[[str, Metadata], Origin]

_FORWARDED_KEY = "x-forwarded-for"
# Of what a client calls itself, as much is kept.
_AGENT_LIMIT = 200
_UNPRINTABLE = re.compile("[^ -~]")


def told(peer: str, metadata: Metadata) -> Origin:
    """The origin of a call by another part, as that tells it."""
    known = dict(metadata)
    return Origin(str(known.get(CLIENT_ADDRESS_KEY, "")), str(known.get(CLIENT_AGENT_KEY, "")))


def seen(trusted: Sequence[Network]) -> OriginOf:
    """The origin of a call by a client, as this server sees it.

    Args:
        trusted: Where proxies are, which are believed.
    """

    def origin(peer: str, metadata: Metadata) -> Origin:
        # ipv4:127.0.0.1:34567 or ipv6:%5B::1%5D:34567
        host = urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
        if trusted:
            host = _forwarded(host, metadata, trusted)
        # What cannot travel in metadata to other services is replaced.
        agent = _UNPRINTABLE.sub("?", str(dict(metadata).get("user-agent", "")))
        return Origin(host, agent[:_AGENT_LIMIT])

    return origin


def _forwarded(host: str, metadata: Metadata, trusted: Sequence[Network]) -> str:
    """The address behind all proxies that are believed. What a client made up stands further left, and is not read."""
    address = _address(host)
    if address is None:
        return host
    hops = ",".join(str(value) for key, value in metadata if key == _FORWARDED_KEY).split(",")
    while hops and any(address in network for network in trusted):
        before = _address(hops.pop().strip())
        if before is None:
            break
        address = before
    return str(address)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket for both versions shows an address of version 4 as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address

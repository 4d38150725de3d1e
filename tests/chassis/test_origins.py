"""Where calls came from: through proxies, and past them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from chassis import origins

_TRUSTED = [ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("2001:db8:1::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("ipv4:198.51.100.1:4000", [], "198.51.100.1"),
        # Who is no proxy may write what he likes.
        ("ipv4:198.51.100.1:4000", ["203.0.113.9"], "198.51.100.1"),
        ("ipv4:10.1.2.3:4000", ["203.0.113.9"], "203.0.113.9"),
        ("ipv4:10.1.2.3:4000", ["203.0.113.9, 192.0.2.7"], "203.0.113.9"),
        ("ipv4:10.1.2.3:4000", ["203.0.113.9", "192.0.2.7"], "203.0.113.9"),
        # What a client wrote before the first proxy saw it.
        ("ipv4:10.1.2.3:4000", ["10.9.9.9, 203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("ipv4:10.1.2.3:4000", ["10.4.5.6"], "10.4.5.6"),
        ("ipv4:10.1.2.3:4000", [], "10.1.2.3"),
        ("ipv4:10.1.2.3:4000", ["203.0.113.9, unknown"], "10.1.2.3"),
        ("ipv4:10.1.2.3:4000", [""], "10.1.2.3"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:4000", ["2001:db8:2::5"], "2001:db8:2::5"),
        ("ipv6:%5B2001:db8:1::1%5D:4000", ["203.0.113.9"], "203.0.113.9"),
        ("ipv6:%5B2001:db8:2::1%5D:4000", ["203.0.113.9"], "2001:db8:2::1"),
        ("unix:/run/socket", ["203.0.113.9"], ""),
    ],
)
def test_proxies_that_are_trusted_are_believed_and_nobody_else(peer: str, forwarded: list[str], address: str) -> None:
    metadata = tuple(("x-forwarded-for", value) for value in forwarded)

    assert origins.seen(_TRUSTED)(peer, metadata).address == address


def test_by_default_no_proxy_is_believed() -> None:
    assert origins.seen(())("ipv4:10.1.2.3:4000", (("x-forwarded-for", "203.0.113.9"),)).address == "10.1.2.3"

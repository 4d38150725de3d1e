"""When tokens that were revoked are refused by every process that verifies them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest

from tests.people import People, Person
from tests.running import RunningSuite
from tests.soak.report import machine, tell
from tests.soak.revocation import WAYS, lags

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

COUNT = 100


async def test_a_hundred_revoked_tokens_are_refused_everywhere_within_a_second(
    suite: RunningSuite, people: People, boss: Person
) -> None:
    found = await lags(suite, people, boss, COUNT)

    tell(f"\n{suite.mode}: ms from the answer that revoked until refused; {machine()}")
    for verifier in found[0].seconds:
        _print(verifier, [lag.seconds[verifier] for lag in found])
    slowest = [max(lag.seconds.values()) for lag in found]
    for way in WAYS:
        _print(way, [seconds for lag, seconds in zip(found, slowest, strict=True) if lag.way == way])
    _print("all", slowest)
    assert _p99(slowest) < 1


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _print(name: str, seconds: Sequence[float]) -> None:
    middle, p99, longest = (1000 * each for each in (statistics.median(seconds), _p99(seconds), max(seconds)))
    tell(f"  {name:18} p50 {middle:7.1f}  p99 {p99:7.1f}  max {longest:7.1f}")

"""20 rolling restarts under load."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from tests.running import running
from tests.suite.rolling import PARTS, roll

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

TIMES = 20
GRACE_SECONDS = 10


async def test_clients_with_the_service_config_do_not_notice_restarts_and_nothing_is_lost(tmp_path: Path) -> None:
    settings = {"INSTA_LOG_LEVEL": "info", "INSTA_DRAIN_SECONDS": str(GRACE_SECONDS)}
    with running("apart", tmp_path, superuser=False, **settings) as suite:
        began = time.monotonic()
        rolled = await roll(suite, TIMES, writes_between=200)
        seconds = time.monotonic() - began

    clients, drained = rolled.clients, [restart.drained for restart in rolled.restarts]
    print(  # noqa: T201
        f"\n{TIMES} rolling restarts in {seconds:.0f} s: {clients.calls} idempotent calls answered,"
        f" {clients.errors.total()} failed, the longest took {clients.longest:.2f} s;"
        f" {rolled.writers.answered} writes answered;"
        f" a part drained in {statistics.median(drained):.2f} s (median), {max(drained):.2f} s (longest)"
    )
    for part in PARTS:
        away = [restart.away for restart in rolled.restarts if restart.part == part]
        print(f"{part} was away for {statistics.median(away):.2f} s (median), {max(away):.2f} s (longest)")  # noqa: T201
    assert [(restart.part, restart.exit_code) for restart in rolled.restarts] == [(part, 0) for part in PARTS * TIMES]
    assert max(drained) < GRACE_SECONDS
    # No stop waits for those who wait for events.
    assert statistics.median(drained) < 2
    assert clients.calls > 10 * TIMES * len(PARTS)
    # As long as the README lets a client wait.
    assert clients.longest < 10

"""Two of each part under load: each of the eight is killed in turn, and then stopped in turn."""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import time
from pathlib import Path

import pytest

from tests import postgres_server
from tests.people import People
from tests.soak.report import machine, tell
from tests.suite import replicas
from tests.suite.replicas import Load, is_called

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200), postgres_server.needed]


async def test_nobody_notices_that_replicas_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    with replicas.running(tmp_path / "var") as started:
        people = People(started.suite.address)
        load = Load(started, people)
        await load.start()
        began, found = time.monotonic(), []
        for how, replica in itertools.product((signal.SIGKILL, signal.SIGTERM), started.all):
            await load.go_on(100)
            ended = await asyncio.to_thread(replica.end, how)
            assert ended == (-how if how is signal.SIGKILL else 0)
            await load.go_on(100)
            replica.start()
            await asyncio.to_thread(replica.wait_until_ready)
            found.append(await is_called(replica))
        seconds = time.monotonic() - began
        await load.stop()
        await people.channel.close()

    tell(
        f"\n{len(found)} replicas killed or stopped and started again in {seconds:.0f} s: {load.clients.calls}"
        f" idempotent calls answered, {load.clients.errors.total()} failed, the longest took"
        f" {load.clients.longest:.2f} s; {load.writers.answered} writes answered; a new replica was called"
        f" {statistics.median(found):.2f} s after it was ready (median), {max(found):.2f} s (longest); {machine()}"
    )
    assert load.clients.longest < 10

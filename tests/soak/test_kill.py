"""Each process killed 25 times while clients write."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.people import People
from tests.running import running
from tests.suite.auditing import audited, differences
from tests.suite.killing import Writers, children, kill

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

KILLS_EACH = 25
# The supervisor lets a process wait that died sooner.
WELL_AFTER_SECONDS = 10.5


@pytest.mark.parametrize("mode", ["apart", "workers"])
async def test_nothing_is_lost_or_done_twice_though_each_process_is_killed_again_and_again(
    mode: str, tmp_path: Path
) -> None:
    with running(mode, tmp_path, superuser=False, INSTA_LOG_LEVEL="warning") as suite:
        people = People(suite.address)
        writers = Writers(suite, people, seed=25)
        await writers.start()
        seconds: list[float] = []
        processes = len(children(suite))
        for _ in range(KILLS_EACH * processes):
            began = time.monotonic()
            await writers.go_on(20)
            # The oldest: each in turn.
            pid = min(children(suite), key=lambda pid: _started(pid))
            seconds.append(await kill(suite, pid, writers.see_everything))
            await asyncio.sleep(max(began + WELL_AFTER_SECONDS / processes - time.monotonic(), 0))
        await writers.stop()
        writers.check()
        assert differences(await asyncio.to_thread(audited, suite.environment)) == {}
        await people.channel.close()

    print(  # noqa: T201
        f"\n{mode}: {len(seconds)} kills, {writers.answered} writes answered; ready again after"
        f" {statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (longest)"
    )
    assert statistics.median(seconds) < 2


def _started(pid: int) -> int:
    """When a process started, in ticks since the machine did."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])

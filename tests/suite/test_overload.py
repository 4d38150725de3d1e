"""More calls than a suite can answer: it says so at once, and answers the others soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.overloading import Overload
from tests.people import People
from tests.running import running


# Of a server beside it the processors say more than of the suite.
@pytest.mark.sqlite
async def test_what_is_too_much_is_refused_at_once_and_the_rest_is_answered_soon(tmp_path: Path) -> None:
    with running("together", tmp_path / "var", INSTA_MAX_WAIT_MILLISECONDS="300", INSTA_LOG_LEVEL="info") as suite:
        people = People(suite.address)
        overload = Overload(suite, people)
        await overload.prepare()

        peak = await overload.peak(2)

        # Others use the machine, too: where they did so until now, twice the peak may be little afterwards.
        for times in (2, 4, 8, 16):
            load = asyncio.ensure_future(overload.run(per_second=times * peak.accepted, seconds=3))
            refusal = await overload.refusal(load)
            phase = await load
            if refusal:
                break
        async with asyncio.timeout(20):
            while set((await overload.run(per_second=20, seconds=1.5)).codes) != {"OK"}:
                pass
        await people.channel.close()

    assert refusal == ("OVERLOADED", 0.5)
    assert set(phase.codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert phase.accepted > 0.1 * peak.accepted
    assert phase.p99 < 1
    assert max(phase.health_seconds) < 1

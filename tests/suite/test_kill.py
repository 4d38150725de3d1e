"""Processes that are killed while clients write: nothing that was answered is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.people import People
from tests.running import running
from tests.suite.auditing import audited, differences
from tests.suite.killing import Writers, children, kill, process_of


# The others in tests/soak, which kills each of them many times.
@pytest.mark.parametrize("name", ["social", pytest.param("users", marks=pytest.mark.soak)])
async def test_a_part_that_is_killed_loses_nothing_that_was_answered(name: str, tmp_path: Path) -> None:
    with running("apart", tmp_path, superuser=False) as suite:
        people = People(suite.address)
        writers = Writers(suite, people, seed=1)
        await writers.start()
        await writers.go_on(100)
        await kill(suite, process_of(suite, name), writers.see_everything)
        await writers.go_on(100)
        await writers.stop()
        writers.check()
        assert differences(await asyncio.to_thread(audited, suite.environment)) == {}
        await people.channel.close()


async def test_a_worker_that_is_killed_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with running("workers", tmp_path, superuser=False) as suite:
        # The system spreads connections over the workers: some have both.
        people = People(suite.address)
        writers = Writers(suite, people, seed=2)
        await writers.start()
        for pid in children(suite):
            await writers.go_on(100)
            await kill(suite, pid, writers.see_everything)
        await writers.go_on(100)
        await writers.stop()
        writers.check()
        await people.channel.close()


async def test_a_suite_that_is_killed_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with running("together", tmp_path, superuser=False) as suite:
        people = People(suite.address)
        writers = Writers(suite, people, seed=3)
        await writers.start()
        await writers.go_on(100)
        assert suite.process is not None
        suite.process.kill()
        suite.process.wait()
        with running("together", tmp_path, superuser=False, INSTA_LISTEN=suite.address):
            await writers.go_on(100)
            await writers.stop()
            writers.check()
        await people.channel.close()

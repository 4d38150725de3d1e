"""Workers, and whole suites, that are killed again and again while people upload, show and delete images."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.people import People
from tests.running import running
from tests.suite.killing import children, kill
from tests.suite.picturing import Photographers, let_a_day_pass, only_what_is_shown_is_left

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

KILLS = 20
# The supervisor lets a process wait that died sooner.
WELL_AFTER_SECONDS = 10.5


async def test_images_live_as_they_should_though_workers_are_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(1)
    with running("workers", tmp_path, superuser=False, INSTA_LOG_LEVEL="warning") as suite:
        people = People(suite.address)
        photographers = Photographers(people, seed=20)
        await photographers.start()
        for _ in range(KILLS):
            await photographers.go_on(chance.randrange(10, 100))
            await kill(suite, chance.choice(list(children(suite))), photographers.see_everything)
            await asyncio.sleep(WELL_AFTER_SECONDS / 2)
        await photographers.stop()
        await photographers.check(suite)
        await people.channel.close()
    let_a_day_pass(suite)
    with running("together", tmp_path, superuser=False) as suite:
        await only_what_is_shown_is_left(suite, photographers)


async def test_images_live_as_they_should_though_the_suite_is_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(2)
    ports: dict[str, str] = {}
    photographers: Photographers | None = None
    for _ in range(KILLS):
        with running("together", tmp_path, superuser=False, INSTA_LOG_LEVEL="warning", **ports) as suite:
            if photographers is None:
                people = People(suite.address)
                photographers = Photographers(people, seed=21)
                await photographers.start()
                ports = {"INSTA_LISTEN": suite.address, "INSTA_MEDIA_LISTEN": suite.images_url.split("/")[2]}
            await photographers.go_on(chance.randrange(10, 100))
            assert suite.process is not None
            suite.process.kill()
            suite.process.wait()
    assert photographers is not None
    with running("together", tmp_path, superuser=False, **ports) as suite:
        await photographers.go_on(20)
        await photographers.stop()
        await photographers.check(suite)
        await people.channel.close()
    let_a_day_pass(suite)
    with running("together", tmp_path, superuser=False) as suite:
        await only_what_is_shown_is_left(suite, photographers)

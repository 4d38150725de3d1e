"""Workers that are killed while people upload, show and delete images: what is shown is there, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.people import People
from tests.running import running
from tests.suite.killing import children, kill
from tests.suite.picturing import Photographers, let_a_day_pass, only_what_is_shown_is_left


# Many times in tests/soak, and the whole suite.
async def test_images_live_as_they_should_though_each_worker_is_killed(tmp_path: Path) -> None:
    with running("workers", tmp_path, superuser=False) as suite:
        people = People(suite.address)
        photographers = Photographers(people, seed=4)
        await photographers.start()
        for pid in children(suite):
            await photographers.go_on(40)
            await kill(suite, pid, photographers.see_everything)
        await photographers.go_on(40)
        await photographers.stop()
        await photographers.check(suite)
        await people.channel.close()
    let_a_day_pass(suite)
    with running("together", tmp_path, superuser=False) as suite:
        await only_what_is_shown_is_left(suite, photographers)

"""The deletion of an account with 100,000 likes and 10,000 posts, and a thousand deletions while services die."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from insta.gateway.v1 import admin_pb2, posts_pb2
from tests.big_account import delete_big_account, p99
from tests.deletions import nothing_left
from tests.people import People, Person
from tests.running import MODES, running
from tests.suite.killing import Writers, kill, process_of, there

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

DELETIONS = 1000


@pytest.mark.parametrize("mode", MODES)
async def test_the_writes_of_others_stay_fast_while_very_much_is_deleted(mode: str, tmp_path: Path) -> None:
    with running(mode, tmp_path, INSTA_LOG_LEVEL="warning") as suite:
        people = People(suite.address)
        deleted = await delete_big_account(suite, people, likes=100_000, posts=10_000, undisturbed=1000)
        await people.channel.close()

    print(f"\n{mode}: {deleted}")  # noqa: T201
    # Where others use the machine, too, writes take longer without any deletion.
    assert p99(deleted.meanwhile) < max(0.05, 1.5 * p99(deleted.before))


async def test_a_thousand_deletions_are_complete_10_seconds_after_the_last_service_was_away(tmp_path: Path) -> None:
    with running("apart", tmp_path, INSTA_LOG_LEVEL="warning") as suite:
        people = People(suite.address)
        boss = await people.superuser()
        writers = Writers(suite, people, seed=1000)
        await writers.start()
        leaving = [await people.join() for _ in range(DELETIONS)]
        post_ids = await _live(leaving, writers.persons)
        deleting = asyncio.gather(*(_delete(boss, leaving[start::2]) for start in range(2)))
        kills = 0
        for name in itertools.cycle(("users", "posts", "social")):
            await writers.go_on(5)
            # The last is after all were deleted: social has not heard of all of them yet.
            last = deleting.done() and name == "social"
            await kill(suite, process_of(suite, name), writers.see_everything)
            kills += 1
            if last:
                break
        restarted = time.monotonic()
        await deleting
        await nothing_left(suite, [person.id for person in leaving], post_ids, seconds=300)
        seconds = time.monotonic() - restarted
        await writers.stop()
        # Of those who left nothing is there, and everything of those who stay.
        writers.check()
        await people.channel.close()

    print(f"\n{DELETIONS} deletions, {kills} kills; complete {seconds:.1f} s after the last restart")  # noqa: T201
    assert seconds < 10


async def _live(leaving: list[Person], staying: list[Person]) -> list[int]:
    """Let people leave traces everywhere. Returns the ids of their posts."""
    theirs: list[posts_pb2.Post] = []

    async def live(number: int) -> None:
        person, other = leaving[number], leaving[number - 1]
        post = await person.post()
        theirs.append(post)
        await person.like(post)
        await person.comment(post)
        await person.follow(other)
        await person.follow(staying[number % len(staying)])
        await staying[number % len(staying)].like(post)

    for start in range(0, len(leaving), 50):
        await asyncio.gather(*(live(number) for number in range(start, min(start + 50, len(leaving)))))
    return [post.id for post in theirs]


async def _delete(boss: Person, leaving: list[Person]) -> None:
    for person in leaving:
        request = admin_pb2.DeleteUserRequest(user_id=person.id, request_id=f"{os.getpid()}-{person.id}")
        await there(lambda request=request: boss.admin.DeleteUser(request))

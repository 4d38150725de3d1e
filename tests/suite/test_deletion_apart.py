"""Deletions while a service is away: they wait for it, and for nothing else."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.deletions import counters_are_right, delete_account, delete_post, erased, nothing_left
from tests.people import People
from tests.running import RunningSuite, running
from tests.suite.killing import kill, process_of, there


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose processes a test may stop."""
    with running("apart", tmp_path_factory.mktemp("apart") / "var") as started:
        yield started


@pytest_asyncio.fixture
async def members(apart: RunningSuite) -> AsyncIterator[People]:
    people = People(apart.address)
    yield people
    await people.channel.close()


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("stopped", "posts"),
        ("killed", "social"),
        pytest.param("stopped", "social", marks=pytest.mark.soak),
        pytest.param("killed", "posts", marks=pytest.mark.soak),
    ],
)
async def test_what_is_deleted_while_a_service_is_away_goes_there_too(
    apart: RunningSuite, members: People, name: str, how: str
) -> None:
    boss = await members.superuser()
    ana, ben, cid = [await members.join() for _ in range(3)]
    hers, his, deleted = await ana.post(), await ben.post(), await ben.post()
    for post, person in itertools.product((hers, his, deleted), (ana, ben, cid)):
        await person.like(post)
        await person.comment(post)
    for one, another in itertools.permutations((ana, ben, cid), 2):
        await one.follow(another)
    if name != "posts":
        os.kill(process_of(apart, name), signal.SIGSTOP)
        await delete_post(ben, deleted)
    else:
        await delete_post(ben, deleted)
        os.kill(process_of(apart, name), signal.SIGSTOP)

    await delete_account(ana)
    if how == "stopped":
        os.kill(process_of(apart, name), signal.SIGCONT)
    else:
        # Who is stopped can be killed all the same.
        await kill(apart, process_of(apart, name), lambda: cid.see(his))

    await nothing_left(apart, [ana.id], [hers.id, deleted.id])
    await there(lambda: erased(boss, ana.id))
    seen = await there(lambda: cid.see(his))
    assert (seen.like_count, seen.comment_count) == (2, 2)
    await counters_are_right(apart)

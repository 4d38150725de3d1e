"""Two of each part: they share the calls, and no client notices when one of them is killed."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.deletions import delete_account, nothing_left
from tests.people import People
from tests.soak.revocation import WAYS, lags_at
from tests.suite import replicas
from tests.suite.replicas import Load, Replicas, is_called

pytestmark = pytest.mark.postgresql


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with replicas.running(tmp_path_factory.mktemp("replicas") / "var") as running:
        yield running


@pytest_asyncio.fixture
async def people(started: Replicas) -> AsyncIterator[People]:
    """Makes people, once all replicas are there."""
    started.start()
    made = People(started.suite.address)
    yield made
    await made.channel.close()


async def test_revoked_tokens_are_refused_within_a_second_by_every_replica(started: Replicas, people: People) -> None:
    found = await lags_at(started.verifiers(), people, await people.superuser(), len(WAYS))

    assert {len(lag.seconds) for lag in found} == {8}
    assert max(max(lag.seconds.values()) for lag in found) < 1


# Each of the eight in tests/soak.
async def test_nobody_notices_that_one_replica_of_each_part_is_killed(started: Replicas, people: People) -> None:
    load = Load(started, people)
    await load.start()
    await asyncio.gather(*map(is_called, started.all))

    for replica, how in zip(started.all[::2], itertools.cycle((signal.SIGKILL, signal.SIGTERM)), strict=False):
        await load.go_on(20)
        await asyncio.to_thread(replica.end, how)
    await load.go_on(20)
    await load.stop()

    # What the others did in the background goes on as well.
    gone = load.writers.persons[0]
    await delete_account(gone)
    await nothing_left(started.suite, [gone.id], [])

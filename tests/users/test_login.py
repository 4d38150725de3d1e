"""What a login gives away."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from insta.gateway.v1 import accounts_pb2
from tests.people import People, failure
from tests.running import SUPERUSER, running

_TRIES = 20


@pytest_asyncio.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    """People of a suite whose password hashes take long enough to be seen: some 50 ms."""
    with running("together", tmp_path / "var", INSTA_BCRYPT_COST="10") as suite:
        made = People(suite.address)
        yield made
        await made.channel.close()


async def test_a_wrong_password_and_an_unknown_name_take_the_same_time_and_get_the_same_answer(people: People) -> None:
    seconds: dict[str, list[float]] = {SUPERUSER: [], "nobody": []}
    answers = set()

    for _ in range(_TRIES):
        for name, taken in seconds.items():
            request = accounts_pb2.LoginRequest(login=name, password="wrong")
            begun = time.perf_counter()
            failed = await failure(people.stranger.accounts.Login(request))
            taken.append(time.perf_counter() - begun)
            answers.add((failed.code, failed.reason, failed.text))

    assert len(answers) == 1
    assert next(iter(answers))[:2] == (grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS")
    known, unknown = (statistics.median(taken) for taken in seconds.values())
    # Without a hash for unknown names they would differ by a factor of twenty.
    assert known / unknown == pytest.approx(1, rel=0.25)

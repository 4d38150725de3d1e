"""Fixtures: somebody who has images."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.people import People, Person
from tests.running import RunningSuite


@pytest_asyncio.fixture
async def cid(together: RunningSuite) -> AsyncIterator[Person]:
    """Somebody of the suite `together`."""
    people = People(together.address)
    yield await people.join()
    await people.channel.close()

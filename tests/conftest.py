"""Fixtures: suites that run as their users run them, and people who use them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

from tests import postgres_server
from tests.people import People, Person
from tests.running import MODES, ON_POSTGRESQL, RunningSuite, at, running

_SERVER = pytest.StashKey[ExitStack]()
# host:port of a suite that runs already, and has the superuser: it is tested in place of those that are started here.
_THERE = os.environ.get("INSTA_TEST_ADDRESS")


def pytest_configure(config: pytest.Config) -> None:
    """Start the PostgreSQL server that all tests share, if they are to run on one."""
    held = config.stash[_SERVER] = ExitStack()
    if ON_POSTGRESQL and postgres_server.VARIABLE not in os.environ and not config.option.collectonly:
        os.environ[postgres_server.VARIABLE] = str(held.enter_context(postgres_server.running()).port)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_SERVER].close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    of_others = "sqlite" if ON_POSTGRESQL else "postgresql"
    left_out = [item for item in items if item.get_closest_marker(of_others)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", params=["there"] if _THERE else MODES)
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A running suite, in each of the ways to run one."""
    if _THERE:
        yield at(_THERE)
        return
    with running(request.param, tmp_path_factory.mktemp(request.param) / "var") as started:
        yield started


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite in one process, for tests to which the way it runs makes no difference."""
    with running("together", tmp_path_factory.mktemp("one") / "var") as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def people(suite: RunningSuite) -> AsyncIterator[People]:
    """Makes people for the running suite."""
    made = People(suite.address)
    yield made
    await made.channel.close()


@pytest_asyncio.fixture
async def ana(people: People) -> Person:
    return await people.join()


@pytest_asyncio.fixture
async def ben(people: People) -> Person:
    return await people.join()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def boss(people: People) -> Person:
    """A superuser."""
    return await people.superuser()

"""Fixtures: a PostgreSQL server, a database on it, and a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from chassis import logs, postgres, postgres_database, postgres_leases
from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from tests import postgres_server
from tests.chassis.postgres.stores import open_store
from tests.postgres_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres_server.running() as started:
        yield started


@pytest.fixture
def address(server: Server, tmp_path: Path) -> DatabaseAddress:
    """A new database."""
    return DatabaseAddress(server.database(tmp_path.name))


@pytest_asyncio.fixture
async def store(address: DatabaseAddress) -> AsyncIterator[PostgresStore]:
    opened = open_store(address)
    yield opened
    opened.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What stores say in the log."""
    # A logger that was used before may have the settings of a command that ran here.
    for module in (postgres, postgres_database, postgres_leases):
        monkeypatch.setattr(module, "log", logs.get(module.__name__))
    with structlog.testing.capture_logs() as lines:
        yield lines

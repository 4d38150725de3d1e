"""A PostgreSQL server on a full disk, of its data or its log: nothing acknowledged is lost, and later all goes on."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from chassis import errors
from chassis.errors import Reason
from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from tests import disks, postgres_server
from tests.chassis import items
from tests.people import until
from tests.postgres_server import Server

pytestmark = pytest.mark.postgresql


class OnSmallDisks:
    """A server whose data and whose write-ahead log have a small disk each, and a store on it.

    Attributes:
        added: The names of what was acknowledged.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.store = PostgresStore(DatabaseAddress(server.database("items")), items.MIGRATIONS)
        self.added: list[str] = []

    async def add(self) -> None:
        """Add an item that takes some room."""
        name = secrets.token_hex(1000)
        await self.store.write(items.add, name)
        self.added.append(name)

    async def refusal(self) -> errors.Error:
        """Add items until one is refused."""
        while True:
            try:
                await self.add()
            except errors.Error as refused:
                return refused

    async def can_add(self) -> bool:
        try:
            await self.add()
        except errors.Error:
            return False
        return True


@pytest.fixture(scope="module")
def small() -> Iterator[OnSmallDisks]:
    with postgres_server.running(durable=True, megabytes=(80, 12)) as server:
        made = OnSmallDisks(server)
        with closing(made.store):
            yield made


async def test_without_room_for_rows_changes_are_refused_and_reads_go_on(small: OnSmallDisks) -> None:
    ballast = disks.fill_up(small.server.folder / "data")

    first, second = await small.refusal(), await small.refusal()
    names = await small.store.read(items.names)
    ballast.unlink()
    await until(small.can_add)

    for refused in (first, second):
        assert refused.reason == Reason.REASON_STORAGE_FULL
        assert refused.retry_after
    assert names == ["first", *small.added[:-1]]


async def test_without_room_for_its_log_a_server_stops_and_nothing_acknowledged_is_lost(small: OnSmallDisks) -> None:
    ballast = disks.fill_up(small.server.folder / "wal")

    # Nobody knows what became of a change in whose middle the server gave up.
    refused = await small.refusal()
    ballast.unlink()
    # It may have started again by itself, if it had room to.
    small.server.stop(signal.SIGQUIT)
    small.server.start()
    await until(small.can_add)

    assert refused.reason == Reason.REASON_UNAVAILABLE
    assert set(small.added) <= set(await small.store.read(items.names))
    assert "PANIC" in (small.server.folder / "log").read_text()

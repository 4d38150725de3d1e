"""Stores of items with an event log on a PostgreSQL server."""

from __future__ import annotations

from chassis import errors, events
from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from tests.chassis import event_logs, items

CONNECTIONS = 10


def open_store(address: DatabaseAddress) -> PostgresStore:
    """A database of items with an event log."""
    store = PostgresStore(address, items.MIGRATIONS, connections=CONNECTIONS)
    store.write_now(event_logs.make_tables)
    store.write_now(events.begin)
    return store


async def can_add(store: PostgresStore, name: str) -> bool:
    """Add an item, unless the server is away."""
    try:
        await store.write(items.add, name)
    except errors.Unavailable:
        return False
    return True

"""Event logs for tests: databases with one and a consumer's offsets, and what is in them."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import wrappers_pb2

from chassis import events
from chassis.consumer import Cursor
from chassis.events import EventLog, LoggedEvent
from chassis.store import Database, Store
from tests import databases
from tests.chassis import items
from tests.people import until
from tests.running import ON_POSTGRESQL

_SERIAL = "SERIAL" if ON_POSTGRESQL else "INTEGER"


def make_tables(db: Database) -> None:
    """Those of a log and of a consumer."""
    tables = [LoggedEvent, EventLog, Cursor]
    with db.bind_ctx(tables):
        db.create_tables(tables)
    # What came of the events. Nothing is unique: an event that is applied twice shows.
    db.execute_sql(f"CREATE TABLE IF NOT EXISTS effect (id {_SERIAL} PRIMARY KEY, name TEXT)")


def open_store(path: Path) -> Store:
    """A database with these tables."""
    store = databases.open_store(path, items.MIGRATIONS)
    store.write_now(make_tables)
    return store


def append(db: Database, names: list[str]) -> None:
    for name in names:
        events.append(db, wrappers_pb2.StringValue(value=name))


async def settled(log: Store) -> None:
    """Wait until a log holds back nothing: on a server that others use there may be older transactions under way."""

    async def is_settled() -> bool:
        whole = await log.read(events.state)
        return (await log.read(events.read, 0, 0, 1)).head_offset == whole.head_offset

    await until(is_settled)


async def all_events(log: Store) -> list[events.Event]:
    """What a log has not forgotten."""
    await settled(log)
    return (await log.read(events.read, 0, 0, 1_000_000)).events


def name_of(event: events.Event) -> str:
    return wrappers_pb2.StringValue.FromString(bytes(event.payload)).value


def forget_up_to(db: Database, offset: int) -> None:
    (last,) = db.execute_sql(databases.sql("SELECT time FROM logged_event WHERE id = ?"), (offset,)).fetchall()[0]
    db.execute_sql(databases.sql("UPDATE logged_event SET time = time + 1 WHERE id > ?"), (offset,))
    while events.forget(db, last + 1, 2):
        pass

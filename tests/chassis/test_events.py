"""The event log: what is forgotten of it, and what a reader learns of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest
import pytest_asyncio
from google.protobuf import wrappers_pb2

from chassis import clock, events
from chassis.store import Database, Store
from tests import databases
from tests.chassis import items
from tests.chassis.event_logs import all_events, append, forget_up_to, name_of, open_store, settled


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path / "there.db")
    store.write_now(events.begin)
    yield store
    store.close()


async def read(log: Store, offset: int, limit: int = 100) -> events.Batch:
    await settled(log)
    return await log.read(events.read, offset, 0, limit)


async def offsets(log: Store) -> list[int]:
    return [event.offset for event in await all_events(log)]


def names(batch: events.Batch) -> list[str]:
    return [name_of(event) for event in batch.events]


async def test_forgetting_raises_the_floor_and_spares_what_is_newer(log: Store) -> None:
    await log.write(append, ["one", "two", "three"])
    _, two, three = await offsets(log)
    kept_from = clock.now() + 1
    newer = databases.sql("UPDATE logged_event SET time = ? WHERE id = ?")
    await log.write(lambda db: db.execute_sql(newer, (kept_from, three)) and None)

    forgotten = [await log.write(events.forget, kept_from, 1) for _ in range(3)]

    batch = await read(log, two)
    assert forgotten == [1, 1, 0]
    assert (names(batch), batch.floor_offset, batch.head_offset) == (["three"], two, three)


async def test_a_log_of_which_everything_is_forgotten_goes_on_where_it_was(log: Store) -> None:
    await log.write(append, ["one", "two"])
    _, two = await offsets(log)
    await log.write(forget_up_to, two)

    empty = await read(log, two)
    await log.write(append, ["three"])
    batch = await read(log, two)

    assert (empty.events, empty.next_offset, empty.floor_offset, empty.head_offset) == ([], two, two, two)
    assert names(batch) == ["three"]
    assert batch.next_offset > two


async def test_what_remains_is_counted_though_there_are_gaps_between_offsets(log: Store) -> None:
    """As in a log that was moved from a server into a file."""
    await log.write(append, ["one", "two", "three"])
    one, _, three = await offsets(log)
    further = databases.sql("UPDATE logged_event SET id = id + 500 WHERE id = ?")
    await log.write(lambda db: db.execute_sql(further, (three,)) and None)

    assert (await read(log, one, limit=1)).remaining_count == 1


async def test_a_log_keeps_its_epoch(log: Store) -> None:
    epoch = (await read(log, 0)).epoch
    await log.write(events.begin)

    assert (await read(log, 0)).epoch == epoch


async def test_an_event_is_there_with_its_change_after_every_commit(tmp_path: Path) -> None:
    """So it is wherever the process is killed."""
    path = tmp_path / "there.db"
    open_store(path).close()
    seen = []

    def look(writes: int) -> None:
        with closing(databases.Connection(path)) as database:
            changed = [name for (name,) in database.execute("SELECT name FROM item WHERE id > ?", [items.FIRST])]
            told = [payload for (payload,) in database.execute("SELECT payload FROM logged_event ORDER BY id")]
        seen.append((changed, [wrappers_pb2.StringValue.FromString(payload).value for payload in told]))

    def change(db: Database, name: str) -> None:
        items.add(db, name)
        append(db, [name])

    store = databases.open_store(path, items.MIGRATIONS, on_commit=look)
    for name in ("one", "two"):
        await store.write(change, name)
        with pytest.raises(peewee.IntegrityError):
            await store.write(change, name)
    store.close()

    assert seen == [(["one"], ["one"]), (["one", "two"], ["one", "two"])]


async def test_a_reader_is_told_of_what_is_forgotten_in_the_middle_of_its_question(log: Store, tmp_path: Path) -> None:
    """Whichever of its statements it happens before: no gap may look like none."""
    other = open_store(tmp_path / "there.db")
    offset = 0
    for moment in range(5):
        await log.write(append, ["early", "late"])
        early, late = await offsets(log)

        def ask(db: Database, offset: int = offset, moment: int = moment, early: int = early) -> events.Batch:
            run, seen = db.execute_sql, 0

            def forget_before(*statement: Any) -> Any:
                nonlocal seen
                if seen == moment:
                    other.write_now(forget_up_to, early)
                seen += 1
                return run(*statement)

            db.execute_sql = forget_before  # type: ignore[method-assign]
            try:
                return events.read(db, offset, 0, 100)
            finally:
                del db.execute_sql

        batch = await log.read(ask)
        assert names(batch) == ["early", "late"] or batch.floor_offset > offset, moment
        offset = late
        # The next round begins with a log that was read to its end.
        await log.write(forget_up_to, offset)
    other.close()

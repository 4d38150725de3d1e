"""The event log on a PostgreSQL server: commits out of order, and logs that were restored."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import closing
from functools import partial

import psycopg
import pytest

from chassis import errors, events
from chassis.consumer import Consumer
from chassis.postgres import PostgresStore
from chassis.settings import DatabaseAddress
from chassis.store import Database
from tests import postgres_server
from tests.chassis import items
from tests.chassis.event_logs import all_events, append, name_of
from tests.chassis.postgres.stores import can_add, open_store
from tests.people import until
from tests.postgres_server import Server

pytestmark = pytest.mark.postgresql


class Slow:
    """A change that appends an event, and then waits until it is to commit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._appended, self._ending = threading.Event(), threading.Event()

    def run(self, db: Database) -> None:
        append(db, [self._name])
        self._appended.set()
        self._ending.wait(30)

    async def appended(self) -> None:
        await asyncio.to_thread(self._appended.wait, 30)

    def end(self) -> None:
        self._ending.set()


class Reader:
    """A consumer of a store's own log.

    Attributes:
        read: The names of the events that took effect.
        compared: How often it could not read on.
        lags: How many events waited, before and after each step.
    """

    def __init__(self, store: PostgresStore) -> None:
        self.read: list[str] = []
        self.compared = 0
        self.lags: list[int] = []
        consumer = Consumer(
            store,
            "itself",
            lambda offset, limit: events.wait_for(store, offset, 0, limit, 0, asyncio.Event()),
            lambda db, event: self.read.append(name_of(event)),
            self._compare,
            self.lags.append,
        )
        self.step = consumer.step

    async def _compare(self) -> None:
        self.compared += 1


async def test_a_reader_misses_nothing_where_commits_overtake_each_other(store: PostgresStore) -> None:
    """The event with the smaller offset is committed after one with a greater, while a consumer reads."""
    reader = Reader(store)
    slow = Slow("early")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()
    await store.write(append, ["late"])
    held_back = await store.read(events.read, 0, 0, 10)
    await reader.step()
    read_before = reader.read.copy()
    slow.end()
    await writing
    await reader.step()

    early, late = await all_events(store)
    assert (held_back.events, read_before, reader.read, reader.compared) == ([], [], ["early", "late"], 0)
    assert [name_of(early), name_of(late)] == ["early", "late"]
    # Who had nothing to read was sent no further than where the first of them came.
    assert held_back.next_offset < early.offset < late.offset


async def test_the_head_of_a_log_that_holds_something_back_is_not_where_its_reader_is(store: PostgresStore) -> None:
    await store.write(append, ["first"])
    (first,) = await all_events(store)
    slow = Slow("early")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()

    nothing_new = await store.read(events.read, first.offset, 0, 10)
    await store.write(append, ["late"])
    held_back = await store.read(events.read, first.offset, 0, 10)
    slow.end()
    await writing

    assert nothing_new.head_offset == first.offset
    assert held_back.head_offset > first.offset


async def test_many_writers_at_once_lose_no_event_to_a_reader(store: PostgresStore) -> None:
    count = 400
    read: list[str] = []

    async def follow() -> None:
        offset = 0
        while len(read) < count:
            batch = await store.read(events.read, offset, 0, 50)
            assert batch.next_offset >= offset
            read.extend(map(name_of, batch.events))
            offset = batch.next_offset

    following = asyncio.ensure_future(follow())
    await asyncio.gather(*(store.write(append, [str(number)]) for number in range(count)))
    await asyncio.wait_for(following, 30)

    assert sorted(read, key=int) == list(map(str, range(count)))


async def test_a_log_that_was_restored_elsewhere_is_another_one_and_its_ids_are_new(
    server: Server, address: DatabaseAddress
) -> None:
    with closing(open_store(address)) as store:
        await store.write(append, ["one"])
        epoch = (await store.read(events.read, 0, 0, 10)).epoch
        newest = await store.write(items.add, "newest")
    copied = DatabaseAddress(server.database("copy", template=address))

    with closing(open_store(address)) as store, closing(open_store(copied)) as copy:
        same, other = await store.read(events.read, 0, 0, 10), await copy.read(events.read, 0, 0, 10)
        assert (same.epoch, len(same.events)) == (epoch, 1)
        assert other.epoch != epoch
        assert [name_of(event) for event in other.events] == ["one"]
        assert await copy.write(items.add, "next") > newest + 1_000_000


async def test_a_log_that_was_restored_where_it_was_is_another_one_of_the_same_events(address: DatabaseAddress) -> None:
    with closing(open_store(address)) as store:
        await store.write(append, ["one", "two"])
        await store.write(append, ["three"])
        before = await store.read(events.read, 0, 0, 10)
    with closing(psycopg.connect(address.url, autocommit=True)) as operator:
        # As a dump is restored: its tables are made anew.
        operator.execute("CREATE TABLE restored (LIKE event_log INCLUDING ALL)")
        operator.execute("INSERT INTO restored SELECT * FROM event_log")
        operator.execute("DROP TABLE event_log")
        operator.execute("ALTER TABLE restored RENAME TO event_log")

    with closing(open_store(address)) as store:
        restored = await store.read(events.read, 0, 0, 10)
        await store.write(append, ["four"])
        later = await store.read(events.read, restored.next_offset, 0, 10)

    assert restored.epoch != before.epoch
    # Who ended their sessions a moment ago is still known to have done so.
    assert [(name_of(event), event.time) for event in restored.events] == [
        (name_of(event), event.time) for event in before.events
    ]
    assert restored.floor_offset < restored.events[0].offset
    assert [name_of(event) for event in later.events] == ["four"]


async def test_a_standby_that_takes_the_place_of_its_primary_begins_the_log_anew_before_anybody_reads_on() -> None:
    """It has not heard of all that the primary told, and its offsets and ids may have been told of something else."""
    with postgres_server.running(durable=True) as primary:
        address = DatabaseAddress(primary.database("items"))
        open_store(address).close()
        with closing(PostgresStore(address, items.MIGRATIONS, on_arrival=events.begin_elsewhere)) as store:
            reader = Reader(store)
            await store.write(append, ["before"])
            await reader.step()
            (before,) = await all_events(store)
            with primary.standby() as standby:
                # More than PostgreSQL assigns again by itself after a crash.
                lost = [f"lost {number}" for number in range(40)]
                newest = max([await store.write(items.add, name) for name in lost])
                for name in lost:
                    await store.write(append, [name])
                await reader.step()
                primary.stop(signal.SIGQUIT)
                standby.start()
                for call in (store.write(append, ["to one that only reads"]), store.read(items.count)):
                    with pytest.raises(errors.Unavailable):
                        await call
                standby.run("SELECT pg_promote()")
                await until(partial(can_add, store, "first of the standby"))
                await store.write(append, ["after"])
                await reader.step()
                await store.write(append, ["later"])
                await reader.step()

                assert (reader.read, reader.compared) == (["before", *lost, "later"], 1)
                told = await all_events(store)
                assert [name_of(event) for event in told] == ["before", "after", "later"]
                # However many there are: none gets another offset where those to come are greater.
                assert told[0].offset == before.offset
                assert await store.read(items.id_of, "first of the standby") > newest + 1_000_000


async def test_a_log_that_begins_anew_loses_nothing_of_what_is_under_way(store: PostgresStore) -> None:
    """Its events get offsets below that of one which is not committed yet, and which its readers are told later."""
    reader = Reader(store)
    await store.write(append, ["old"])
    # As a dump of an older server.
    await store.write(lambda db: db.execute_sql(f"UPDATE logged_event SET id = id + {2**50}") and None)
    await store.write(lambda db: db.execute_sql("UPDATE event_log SET epoch = left(epoch, 17) || 'another'") and None)
    slow = Slow("slow")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()
    await store.write(append, ["meanwhile"])

    await reader.step()
    slow.end()
    await writing
    await store.write(append, ["after"])
    await reader.step()

    told = [name_of(event) for event in await all_events(store)]
    assert (sorted(told[:2]), told[2:]) == (["meanwhile", "old"], ["slow", "after"])
    assert (reader.read, reader.compared) == (["slow", "after"], 1)


async def test_what_is_held_back_is_counted(store: PostgresStore) -> None:
    reader = Reader(store)
    slow = Slow("early")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()
    await store.write(append, ["late", "later"])

    await reader.step()
    held_back = await store.read(events.read, 0, 0, 10)
    slow.end()
    await writing
    await reader.step()

    assert held_back.newest_offset > held_back.head_offset
    assert (reader.lags, reader.compared) == ([2, 2, 3, 0], 0)

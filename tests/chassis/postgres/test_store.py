"""A store on a PostgreSQL server: reads and changes at the same time, and what cuts them short."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import peewee
import psycopg
import pytest

from chassis import errors
from chassis.call import Call, current
from chassis.postgres import PostgresStore
from chassis.query import compiled, param
from chassis.settings import DatabaseAddress
from chassis.store import Database, after_commit
from tests.chassis import items
from tests.chassis.postgres.stores import CONNECTIONS, open_store
from tests.people import until

pytestmark = pytest.mark.postgresql

_rename = compiled(items.Item.update(name=param("new")).where(items.Item.name == param("old")))


def fail_with(state: str, db: Database) -> None:
    """Have a statement fail with an SQLSTATE."""
    db.execute_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")


async def test_a_read_that_was_cancelled_before_it_began_does_not_begin(store: PostgresStore) -> None:
    go, began = threading.Event(), []

    def hold(db: Database) -> None:
        go.wait(20)

    def note(db: Database) -> None:
        began.append(True)

    # As many as read at a time, and then one that has to wait.
    holding = [asyncio.create_task(store.read(hold)) for _ in range(CONNECTIONS)]
    waiting = asyncio.create_task(store.read(note))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    await asyncio.gather(*holding)

    assert await store.read(lambda db: 7) == 7
    assert not began


async def test_a_text_that_no_database_holds_is_no_lost_connection(store: PostgresStore) -> None:
    with pytest.raises(peewee.DataError, match="NUL"):
        await store.write(items.add, "a\0b")
    with pytest.raises(peewee.DataError, match="NUL"):
        await store.read(lambda db: db.execute_sql("SELECT %s::text", ("a\0b",)))


async def test_a_read_that_fails_fails_alone(store: PostgresStore) -> None:
    def fail(db: Database, failure: Exception) -> None:
        raise failure

    failures = [LookupError("gone"), StopIteration()]
    reads = [store.read(fail, failure) for failure in failures] + [store.read(lambda db: None)]
    gone, stopped, read = await asyncio.gather(*reads, return_exceptions=True)

    assert gone is failures[0]
    assert isinstance(stopped, RuntimeError)
    assert read is None


async def test_a_thread_that_waits_keeps_nothing_of_what_it_read(store: PostgresStore) -> None:
    made: list[weakref.ref[Any]] = []

    class Row:
        def __init__(self) -> None:
            made.append(weakref.ref(self))

    await store.read(lambda db: Row())

    async def is_forgotten() -> bool:
        return made[0]() is None

    await until(is_forgotten)


def test_reads_of_several_event_loops_are_answered_each_in_its_own(address: DatabaseAddress) -> None:
    store = open_store(address)

    async def read_many(first: int) -> list[int]:
        return await asyncio.gather(*(store.read(lambda db, n=n: n) for n in range(first, first + 200)))

    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda first: asyncio.run(read_many(first)), range(0, 4_000, 1_000)))
    finally:
        store.close()

    assert found == [list(range(first, first + 200)) for first in range(0, 4_000, 1_000)]


async def test_of_two_changes_that_look_first_and_then_act_one_sees_what_the_other_did(store: PostgresStore) -> None:
    """Each adds an item if there is one only."""
    both = threading.Barrier(2)
    begun = set()

    def add_if_alone(db: Database, name: str) -> bool:
        alone = items.count(db) == 1
        if name not in begun:
            begun.add(name)
            both.wait(10)
        if alone:
            items.add(db, name)
        return alone

    added = await asyncio.gather(*(store.write(add_if_alone, name) for name in ("one", "two")))

    assert sorted(added) == [False, True]
    assert await store.read(items.count) == 2


async def test_what_follows_a_commit_follows_once_though_the_change_was_made_again(store: PostgresStore) -> None:
    told: list[str] = []
    runs = 0
    both = threading.Barrier(2)
    meeting = {"name 0", "name 1"}

    def rename(db: Database, name: str) -> None:
        nonlocal runs
        runs += 1
        count = items.count(db)
        if name in meeting:
            meeting.remove(name)
            both.wait(10)
        after_commit(lambda: told.append(name))
        items.rename_first(db, f"{name} of {count}")

    names = [f"name {number}" for number in range(60)]
    await asyncio.gather(*(store.write(rename, name) for name in names))

    assert sorted(told) == sorted(names)
    assert runs > len(names), "no two changes met"


async def test_of_two_changes_that_wait_for_each_other_both_are_made(store: PostgresStore) -> None:
    await store.write(items.add, "second")
    both = threading.Barrier(2)
    begun = set()

    def rename(db: Database, first: str, second: str) -> None:
        _rename.run(db, old=first, new=first.upper())
        if first not in begun:
            begun.add(first)
            both.wait(10)
        _rename.run(db, old=second, new=second.upper())

    await asyncio.gather(store.write(rename, "first", "second"), store.write(rename, "second", "first"))

    assert await store.read(items.names) == ["FIRST", "SECOND"]


async def test_a_change_looks_again_at_what_a_unique_index_refuses_once(store: PostgresStore) -> None:
    """However often it was made again because of others."""

    def meet_others(db: Database, states: Iterator[str]) -> None:
        for state in states:
            fail_with(state, db)

    await store.write(meet_others, iter(["40001", "40001", "23505"]))
    with pytest.raises(peewee.IntegrityError):
        await store.write(meet_others, iter(["23505", "40001", "23505"]))


async def test_what_the_server_refuses_is_told_without_the_values_of_rows(store: PostgresStore) -> None:
    value = "ana@example.com"
    await store.write(items.add, value)

    with pytest.raises(peewee.IntegrityError) as refused:
        await store.write(items.add, value)

    told = "".join(traceback.format_exception(refused.value))
    assert "item_name" in told
    assert value not in told


async def test_changes_that_wait_for_a_long_one_are_not_in_the_way_of_others(store: PostgresStore) -> None:
    runs: Counter[str] = Counter()
    holds, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def meet_others(db: Database, name: str) -> None:
        runs[name] += 1
        if runs[name] <= 2:
            fail_with("40001", db)
        if name == "long":
            loop.call_soon_threadsafe(holds.set)
            go.wait(20)

    long = asyncio.create_task(store.write(meet_others, "long"))
    await holds.wait()
    try:
        # As many as write at a time.
        waiting = [asyncio.create_task(store.write(meet_others, f"short {n}")) for n in range(CONNECTIONS // 2)]
        await asyncio.wait_for(asyncio.gather(store.write(items.add, "innocent"), *waiting), 10)
        assert not long.done()
    finally:
        go.set()
    await long


async def test_connections_that_were_cut_are_opened_again_and_nobody_notices(
    store: PostgresStore, address: DatabaseAddress
) -> None:
    await asyncio.gather(*(store.write(items.add, f"before {number}") for number in range(20)))
    await asyncio.gather(*(store.read(items.count) for _ in range(20)))
    with closing(psycopg.connect(address.url, autocommit=True)) as operator:
        operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    await asyncio.gather(*(store.write(items.add, f"after {number}") for number in range(20)))

    assert await store.read(items.count) == 41
    assert await store.read_long(items.count) == 41


async def test_a_read_has_the_deadline_of_its_call(store: PostgresStore) -> None:
    def limit(db: Database) -> str:
        return str(db.execute_sql("SHOW statement_timeout").fetchall()[0][0])

    def sleep(db: Database) -> None:
        db.execute_sql("SELECT pg_sleep(30)")

    async def within(seconds: float, query: Callable[[Database], str | None], *, long: bool = False) -> str | None:
        current.set(Call("/test", "", time.monotonic() + seconds, "0" * 32))
        return await (store.read_long if long else store.read)(query)

    assert await store.read(limit) == "1min"
    assert await store.read_long(limit) == "0"
    for long in (False, True):
        # Up to twice as much, so that calls with nearly the same deadline need not set it anew.
        assert await asyncio.create_task(within(25, limit, long=long)) == "32768ms"
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            await asyncio.create_task(within(0.2, sleep, long=long))
        assert 0.2 <= time.monotonic() - began < 10
        with pytest.raises(errors.DeadlineExceeded):
            await asyncio.create_task(within(-1, limit, long=long))
    assert await store.read_long(limit) == "0"


async def test_a_long_read_whose_caller_is_gone_does_not_hold_up_the_end(address: DatabaseAddress) -> None:
    store = open_store(address)
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    reading = asyncio.create_task(store.read_long(lambda db: db.execute_sql("SELECT pg_sleep(30)")))

    async def is_asleep() -> bool:
        return bool(await store.read(lambda db: db.execute_sql(asleep).fetchall()) == [(1,)])

    await until(is_asleep)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 10

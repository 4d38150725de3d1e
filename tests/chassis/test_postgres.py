"""A store on a PostgreSQL server: changes at the same time, commits out of order, servers that go away, leases."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest
import pytest_asyncio
import structlog
from google.protobuf import wrappers_pb2

from chassis import errors, events, logs, postgres, postgres_database, postgres_leases
from chassis.call import Call, current
from chassis.consumer import Consumer, Cursor
from chassis.events import EventLog, LoggedEvent
from chassis.postgres import PostgresStore
from chassis.postgres_database import CannotConnect, PostgresDatabase
from chassis.query import compiled, param
from chassis.settings import DatabaseAddress
from chassis.store import Database, after_commit
from tests import postgres_server
from tests.chassis import items
from tests.chassis.test_consumer import all_events, name_of
from tests.people import until
from tests.postgres_server import Server

pytestmark = pytest.mark.postgresql
_CONNECTIONS = 10
ENDS_ONCE = """
from pathlib import Path


def up(migrator, db):
    db.execute_sql("INSERT INTO item (name) VALUES ('of the migration')")
    ended = Path({path!r})
    if not ended.exists():
        ended.touch()
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as started:
        yield started


@pytest.fixture
def address(server: Server, tmp_path: Path) -> DatabaseAddress:
    """A new database."""
    return DatabaseAddress(server.database(tmp_path.name))


def open_store(address: DatabaseAddress) -> PostgresStore:
    """A database of items with an event log."""

    def make_tables(db: Database) -> None:
        tables = [LoggedEvent, EventLog, Cursor]
        with db.bind_ctx(tables):
            db.create_tables(tables)
        events.begin(db)

    store = PostgresStore(address, items.MIGRATIONS, connections=_CONNECTIONS)
    store.write_now(make_tables)
    return store


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What stores say in the log."""
    # A logger that was used before may have the settings of a command that ran here.
    for module in (postgres, postgres_database, postgres_leases):
        monkeypatch.setattr(module, "log", logs.get(module.__name__))
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest_asyncio.fixture
async def store(address: DatabaseAddress) -> AsyncIterator[PostgresStore]:
    opened = open_store(address)
    yield opened
    opened.close()


_rename = compiled(items.Item.update(name=param("new")).where(items.Item.name == param("old")))


def append(db: Database, name: str) -> None:
    events.append(db, wrappers_pb2.StringValue(value=name))


def fail_with(state: str, db: Database) -> None:
    """Have a statement fail with an SQLSTATE."""
    db.execute_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")


async def can_add(store: PostgresStore, name: str) -> bool:
    """Add an item, unless the server is away."""
    try:
        await store.write(items.add, name)
    except errors.Unavailable:
        return False
    return True


class Slow:
    """A change that appends an event, and then waits until it is to commit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._appended, self._ending = threading.Event(), threading.Event()

    def run(self, db: Database) -> None:
        append(db, self._name)
        self._appended.set()
        self._ending.wait(30)

    async def appended(self) -> None:
        await asyncio.to_thread(self._appended.wait, 30)

    def end(self) -> None:
        self._ending.set()


async def test_a_reader_misses_nothing_where_commits_overtake_each_other(store: PostgresStore) -> None:
    """The event with the smaller offset is committed after one with a greater, while a consumer reads."""
    read: list[str] = []

    async def compare() -> None:
        raise AssertionError("nothing was missed")

    consumer = Consumer(
        store,
        "itself",
        lambda offset, limit: store.read(events.read, offset, 0, limit),
        lambda db, event: read.append(name_of(event)),
        compare,
        lambda lag: None,
    )
    slow = Slow("early")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()
    await store.write(append, "late")
    held_back = await store.read(events.read, 0, 0, 10)
    await consumer.step()
    read_before = read.copy()
    slow.end()
    await writing
    await consumer.step()

    early, late = await all_events(store)
    assert (held_back.events, read_before, read) == ([], [], ["early", "late"])
    assert [name_of(early), name_of(late)] == ["early", "late"]
    # Who had nothing to read was sent no further than where the first of them came.
    assert held_back.next_offset < early.offset < late.offset


async def test_the_head_of_a_log_that_holds_something_back_is_not_where_its_reader_is(store: PostgresStore) -> None:
    await store.write(append, "first")
    (first,) = await all_events(store)
    slow = Slow("early")
    writing = asyncio.ensure_future(store.write(slow.run))
    await slow.appended()

    nothing_new = await store.read(events.read, first.offset, 0, 10)
    await store.write(append, "late")
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
    await asyncio.gather(*(store.write(append, str(number)) for number in range(count)))
    await asyncio.wait_for(following, 30)

    assert sorted(read, key=int) == list(map(str, range(count)))


async def test_a_read_that_was_cancelled_before_it_began_does_not_begin(store: PostgresStore) -> None:
    go, began = threading.Event(), []

    def hold(db: Database) -> None:
        go.wait(20)

    def note(db: Database) -> None:
        began.append(True)

    # As many as read at a time, and then one that has to wait.
    holding = [asyncio.create_task(store.read(hold)) for _ in range(_CONNECTIONS)]
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
        waiting = [asyncio.create_task(store.write(meet_others, f"short {n}")) for n in range(_CONNECTIONS // 2)]
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


async def test_a_lease_is_one_processs_and_lost_with_the_connection(
    store: PostgresStore, address: DatabaseAddress
) -> None:
    other = open_store(address)

    async def has_it() -> bool:
        return store.try_lease("work")

    async def other_has_one() -> bool:
        return other.try_lease("other work")

    try:
        await until(has_it)
        assert not other.try_lease("work")
        # What it asked for before, it was told of then.
        await until(other_has_one)
        assert not other.try_lease("work")
        assert other.is_leased("work")
        assert not other.is_leased("something else")
        with closing(psycopg.connect(address.url, autocommit=True)) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

        async def somebody_has_it() -> bool:
            return store.try_lease("work") != other.try_lease("work")

        # Whoever is faster.
        await until(somebody_has_it)
    finally:
        other.close()

    await until(has_it)


async def test_a_server_that_crashes_and_comes_back_is_told_of_and_used_again(logged: list[Any]) -> None:
    with postgres_server.running(durable=True) as server:
        address = DatabaseAddress(server.database("items"))
        store = open_store(address)
        try:
            await store.write(items.add, "before")
            server.stop(signal.SIGQUIT)

            for _ in range(20):
                with pytest.raises(errors.Unavailable):
                    await store.write(items.add, "meanwhile")
                with pytest.raises(errors.Unavailable):
                    await store.read(items.count)
            server.start()
            await until(partial(can_add, store, "after"))
            assert await store.read(items.names) == ["first", "before", "after"]
        finally:
            store.close()
    told = [(line["event"], line.get("error")) for line in logged]
    # Each reason once: that it is not there, and perhaps that it starts.
    assert len(told) == len(set(told))
    assert "refused" in str(told[0])
    assert told[-1] == ("connected to the database", None)
    assert {event for event, _ in told[:-1]} == {"cannot connect to the database"}


def test_nobody_waits_for_the_one_that_asks_a_silent_server_whether_it_is_back() -> None:
    with socket.socket() as silent, ThreadPoolExecutor(1) as thread:
        silent.bind(("127.0.0.1", 0))
        db = PostgresDatabase(DatabaseAddress(f"postgresql://insta@127.0.0.1:{silent.getsockname()[1]}/items"))
        with pytest.raises(peewee.OperationalError, match="refused"):
            db.connect()
        silent.listen()
        assert db.wait(0)
        asking = thread.submit(db.connect)
        connection, _ = silent.accept()

        with pytest.raises(peewee.OperationalError, match="a moment ago"):
            db.connect()

        assert db.is_lost()
        assert not asking.done()
        connection.close()
        assert isinstance(asking.exception(10), peewee.OperationalError)


async def test_a_log_that_was_restored_elsewhere_is_another_one_and_its_ids_are_new(
    server: Server, address: DatabaseAddress
) -> None:
    with closing(open_store(address)) as store:
        await store.write(append, "one")
        epoch = (await store.read(events.read, 0, 0, 10)).epoch
        newest = await store.write(items.add, "newest")
    copied = DatabaseAddress(server.database("copy", template=address))

    with closing(open_store(address)) as store, closing(open_store(copied)) as copy:
        same, other = await store.read(events.read, 0, 0, 10), await copy.read(events.read, 0, 0, 10)
        assert (same.epoch, len(same.events)) == (epoch, 1)
        assert other.epoch != epoch
        assert (other.events, other.floor_offset) == ([], 1)
        assert await copy.write(items.add, "next") > newest + 1_000_000


async def test_a_log_that_was_restored_where_it_was_is_another_one(address: DatabaseAddress) -> None:
    with closing(open_store(address)) as store:
        await store.write(append, "one")
        epoch = (await store.read(events.read, 0, 0, 10)).epoch
    with closing(psycopg.connect(address.url, autocommit=True)) as operator:
        # As a dump is restored: its tables are made anew.
        operator.execute("CREATE TABLE restored (LIKE event_log INCLUDING ALL)")
        operator.execute("INSERT INTO restored SELECT * FROM event_log")
        operator.execute("DROP TABLE event_log")
        operator.execute("ALTER TABLE restored RENAME TO event_log")

    with closing(open_store(address)) as store:
        restored = await store.read(events.read, 0, 0, 10)
    assert restored.epoch != epoch
    assert (restored.events, restored.floor_offset) == ([], 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "nowhere"}, "does not exist"),
        ({"user": "nobody"}, "password authentication failed"),
    ],
    ids=["password", "database", "user"],
)
def test_who_is_not_let_in_is_told_why_at_once_and_without_the_password(
    server: Server, wrong: dict[str, str], said: str
) -> None:
    with pytest.raises(CannotConnect, match=said) as refused:
        PostgresStore(DatabaseAddress(server.url(**wrong)), items.MIGRATIONS)

    assert refused.value.remedy == "Correct {setting}, or the server"
    assert "wrong" not in str(refused.value)


def test_what_a_server_says_in_another_language_is_waited_for_and_then_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "_PERMANENT", ("Passwort-Authentifizierung",))
    monkeypatch.setattr(postgres_database, "_START_SECONDS", 0.2)

    with pytest.raises(CannotConnect, match="password authentication failed"):
        PostgresStore(DatabaseAddress(server.url(password="wrong")), items.MIGRATIONS)


async def test_a_password_that_was_changed_is_told_in_the_log_and_may_be_changed_back(
    server: Server, address: DatabaseAddress, logged: list[Any]
) -> None:
    with closing(psycopg.connect(server.url(), autocommit=True)) as operator:
        operator.execute(f"CREATE ROLE ana LOGIN PASSWORD '{postgres_server.PASSWORD}'")
        operator.execute(f'ALTER DATABASE "{address.url.rpartition("/")[2]}" OWNER TO ana')
        with closing(open_store(DatabaseAddress(address.url.replace("insta", "ana")))) as store:
            operator.execute("ALTER ROLE ana PASSWORD 'another'")
            # Who is connected stays so.
            assert await store.read_long(items.count) == 1
            operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ana'")
            for _ in range(20):
                with pytest.raises(errors.Unavailable) as refused:
                    await store.write(items.add, "meanwhile")
                assert refused.value.retry_after
            operator.execute(f"ALTER ROLE ana PASSWORD '{postgres_server.PASSWORD}'")
            await until(partial(can_add, store, "after"))

    cannot, again = logged
    assert cannot["event"] == "cannot connect to the database"
    assert 'password authentication failed for user "ana"' in cannot["error"]
    assert again["event"] == "connected to the database"


def test_a_server_that_ends_in_the_middle_of_a_migration_is_waited_for(
    address: DatabaseAddress, tmp_path: Path, logged: list[Any]
) -> None:
    folder = Path(shutil.copytree(items.MIGRATIONS, tmp_path / "migrations"))
    (folder / "0003_ends.py").write_text(ENDS_ONCE.format(path=str(tmp_path / "ended")))

    with closing(PostgresStore(address, folder)) as store:
        assert store.read_now(items.names) == ["first", "of the migration"]
    (told,) = [line["event"] for line in logged if line["log_level"] == "warning"]
    assert told == "waiting for the database"


def test_a_server_that_takes_no_changes_yet_is_waited_for(
    server: Server, address: DatabaseAddress, logged: list[Any]
) -> None:
    """As one that is to take the place of another, which it copies still."""
    name = address.url.rpartition("/")[2]

    def told() -> bool:
        return any("read-only" in line.get("error", "") for line in logged)

    with closing(psycopg.connect(server.url(), autocommit=True)) as operator, ThreadPoolExecutor(1) as thread:
        operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        starting = thread.submit(PostgresStore, address, items.MIGRATIONS)
        while not told():
            assert not starting.done()
            time.sleep(0.01)
        operator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with closing(starting.result(20)) as store:
            assert store.read_now(items.names) == ["first"]
    assert [line["event"] for line in logged].count("waiting for the database") == 1


def test_a_role_that_may_not_make_tables_is_told_so(server: Server, address: DatabaseAddress) -> None:
    with closing(psycopg.connect(server.url(), autocommit=True)) as operator:
        operator.execute(f"CREATE ROLE guest LOGIN PASSWORD '{postgres_server.PASSWORD}'")

    with pytest.raises(CannotConnect, match="may not make or change tables") as refused:
        PostgresStore(DatabaseAddress(address.url.replace("insta", "guest")), items.MIGRATIONS)

    assert "owner" in refused.value.remedy


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


def test_a_connection_that_did_not_take_a_time_limit_is_of_no_use(address: DatabaseAddress) -> None:
    db = postgres_database.connect(address)
    try:
        db.command("BEGIN")
        with pytest.raises(peewee.PeeweeException):
            db.command("nonsense")

        # In such a transaction it takes none, as if it had run out of the limit of before.
        with pytest.raises(peewee.PeeweeException):
            db.have_patience(1)
        assert db.is_lost()
        db.drop()

        assert db.execute_sql("SHOW statement_timeout").fetchall() == [("1024ms",)]
        db.drop()
        db.have_patience(0.001)
        assert db.mine.patience == 64
    finally:
        db.close_all()


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


def test_an_address_as_a_text_has_no_password() -> None:
    address = DatabaseAddress("postgresql://insta:secret@there:5432/users?sslmode=require&password=another")

    for text in (str(address), repr(address), f"{address}"):
        assert "secret" not in text
        assert "another" not in text
    assert "there:5432/users" in str(address)

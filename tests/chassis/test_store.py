"""The store: commits that many writes share, failures that touch no other write, and writers in several processes."""

from __future__ import annotations

import asyncio
import contextvars
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest

from chassis.call import Call, current
from chassis.errors import DeadlineExceeded, ResourceExhausted
from chassis.models import Secret, secret
from chassis.query import compiled, param
from chassis.sqlite import SQLiteDatabase, Turnstile
from chassis.store import Database, Store
from tests import databases
from tests.chassis import items
from tests.running import ON_POSTGRESQL

PROJECT = Path(__file__).parents[2]
_WRITERS = 2 if ON_POSTGRESQL else 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "items.db"


@pytest.fixture
def commits() -> list[int]:
    """How many writes each transaction of the store committed."""
    return []


@pytest.fixture
def store(path: Path, commits: list[int]) -> Iterator[Store]:
    opened = databases.open_store(path, items.MIGRATIONS, commits.append)
    yield opened
    opened.close()


@pytest.fixture
def stranger(store: Store, path: Path) -> Iterator[Database]:
    """A connection that is not the store's."""
    database = databases.open_database(path)
    yield database
    database.close()


@asynccontextmanager
async def held(store: Store) -> AsyncIterator[None]:
    """Hold transactions open: what is written meanwhile waits, or joins one."""
    begun, released = threading.Semaphore(0), threading.Event()

    def hold(db: Database) -> None:
        begun.release()
        released.wait(30)

    holding = asyncio.gather(*(store.write(hold) for _ in range(_WRITERS)), return_exceptions=True)
    for _ in range(_WRITERS):
        await asyncio.to_thread(begun.acquire, True, 30)
    try:
        yield
        # Whatever was started in here meets the store first.
        await asyncio.sleep(0)
    finally:
        released.set()
        await holding


async def in_one_transaction(store: Store, *writes: Awaitable[Any]) -> list[Any]:
    """Results and exceptions of writes that the store meets at once."""
    async with held(store):
        waiting = asyncio.gather(*writes, return_exceptions=True)
    return await asyncio.wait_for(waiting, 10)


def add_and_fail(db: Database, name: str) -> None:
    items.add(db, name)
    raise LookupError(name)


def limit_growth(db: Database, pages: int) -> None:
    """Let the database grow by so many pages and no more, as a disk would that is nearly full."""
    ((size,),) = db.execute_sql("PRAGMA page_count").fetchall()
    db.execute_sql(f"PRAGMA max_page_count = {size + pages}").fetchall()


def during_a_call(write: Coroutine[Any, Any, int], deadline: float) -> asyncio.Task[int]:
    """A write that belongs to a call with a deadline, a time of the event loop."""
    context = contextvars.copy_context()
    context.run(current.set, Call("/items", "", deadline, "trace"))
    return asyncio.get_running_loop().create_task(write, context=context)


def pragmas(db: Database) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "foreign_keys")
    return {name: db.execute_sql(f"PRAGMA {name}").fetchall()[0][0] for name in names}


async def test_a_write_that_returned_is_seen_by_another_connection(store: Store, stranger: Database) -> None:
    for number in range(20):
        await store.write(items.add, f"new {number}")

        assert items.names(stranger)[-1] == f"new {number}"


async def test_a_read_sees_the_latest_commit_however_the_reads_before_ended(store: Store, path: Path) -> None:
    other = databases.open_store(path, items.MIGRATIONS)
    first_of_many = compiled(items.Item.select(items.Item.name).order_by(items.Item.id.desc()))
    try:
        for number in range(20):
            await other.write(items.add, f"new {number}")

            assert await store.read(first_of_many.one) == (f"new {number}",)
            assert (await store.read_long(items.names))[-1] == f"new {number}"
    finally:
        other.close()


async def test_a_write_that_fails_is_undone_and_the_others_of_its_transaction_are_not(
    store: Store, commits: list[int], stranger: Database
) -> None:
    answers = await in_one_transaction(
        store,
        store.write(items.add, "one"),
        store.write(add_and_fail, "two"),
        store.write(items.add, "first"),
        store.write(items.tag, 2**30),
        store.write(items.add, "three"),
    )

    assert [type(answer) for answer in answers] == [int, LookupError, peewee.IntegrityError, peewee.IntegrityError, int]
    assert sorted(items.names(stranger)) == ["first", "one", "three"]
    # With those that held the others up.
    assert len(commits) == (_WRITERS + 2 if ON_POSTGRESQL else 1)


async def test_an_exception_that_no_future_takes_fails_its_own_write_only(store: Store) -> None:
    def stop(db: Database) -> None:
        next(iter(()))

    answers = await in_one_transaction(store, store.write(stop), store.write(items.add, "one"))

    assert isinstance(answers[0], Exception)
    assert await store.read(items.names) == ["first", "one"]


@pytest.mark.sqlite
async def test_writes_that_arrive_together_share_commits(store: Store, commits: list[int]) -> None:
    async with held(store):
        writes = asyncio.gather(*(store.write(items.add, str(number)) for number in range(200)))
    ids = await writes

    assert sorted(ids) == list(range(2, 202))
    assert commits == [201]


@pytest.mark.sqlite
async def test_a_transaction_ends_although_more_writes_are_waiting(store: Store, commits: list[int]) -> None:
    async with held(store):
        writes = asyncio.gather(*(store.write(items.add, str(number)) for number in range(1000)))
    await writes

    assert sum(commits) == 1001
    assert max(commits) <= 256


async def test_a_write_that_was_cancelled_before_it_began_does_nothing(store: Store, commits: list[int]) -> None:
    async with held(store):
        cancelled = asyncio.ensure_future(store.write(items.add, "cancelled"))
        kept = asyncio.ensure_future(store.write(items.add, "kept"))
        await asyncio.sleep(0)
        cancelled.cancel()
    await kept

    assert cancelled.cancelled()
    assert await store.read(items.names) == ["first", "kept"]
    assert sum(commits) == _WRITERS + 1


async def test_a_write_whose_deadline_passed_before_it_began_does_nothing(store: Store, commits: list[int]) -> None:
    now = asyncio.get_running_loop().time()
    async with held(store):
        late = during_a_call(store.write(items.add, "late"), deadline=now + 0.01)
        kept = during_a_call(store.write(items.add, "kept"), deadline=now + 60)
        await asyncio.sleep(0.02)
    answers = await asyncio.gather(late, kept, return_exceptions=True)

    assert [type(answer) for answer in answers] == [DeadlineExceeded, int]
    assert await store.read(items.names) == ["first", "kept"]
    assert sum(commits) == _WRITERS + 1


@pytest.mark.sqlite
async def test_no_transaction_is_counted_in_which_nothing_was_written(path: Path) -> None:
    commits: list[int] = []
    store = databases.open_store(path, items.MIGRATIONS, commits.append)
    with Turnstile(path):
        write = asyncio.ensure_future(store.write(items.add, "cancelled"))
        await asyncio.sleep(0)
        write.cancel()
    store.close()

    assert commits == []


async def test_close_finishes_the_writes_that_are_waiting(path: Path) -> None:
    store = databases.open_store(path, items.MIGRATIONS)
    async with held(store):
        writes = asyncio.gather(*(store.write(items.add, str(number)) for number in range(300)))
    store.close()
    await asyncio.wait_for(writes, 10)

    reopened = databases.open_store(path, items.MIGRATIONS)
    try:
        assert await reopened.read(items.count) == 301
    finally:
        reopened.close()


@pytest.mark.sqlite
async def test_a_full_disk_refuses_a_write_and_leaves_the_store_usable(store: Store, stranger: Database) -> None:
    await store.write(limit_growth, 1)

    with pytest.raises(ResourceExhausted) as refused:
        await asyncio.wait_for(store.write(items.add, "x" * 100_000), 10)

    assert refused.value.reason_name == "STORAGE_FULL"
    assert refused.value.retry_after
    assert items.names(stranger) == ["first"]
    await store.write(limit_growth, 1000)
    await store.write(items.add, "y" * 100_000)
    assert items.count(stranger) == 2


@pytest.mark.sqlite
@pytest.mark.parametrize("change", [items.add, items.rename_first], ids=["statement", "transaction"])
@pytest.mark.parametrize("position", range(3))
async def test_a_full_disk_answers_every_write_of_the_transaction(
    store: Store, stranger: Database, change: Callable[[Database, str], Any], position: int
) -> None:
    """SQLite undoes the statement that finds the disk full, or the whole transaction. What is answered is true."""
    await store.write(limit_growth, 1)
    writes = [store.write(items.add, name) for name in ("one", "two")]
    writes.insert(position, store.write(change, "x" * 100_000))

    answers = await in_one_transaction(store, *writes)

    assert isinstance(answers[position], ResourceExhausted)
    stored = [answer for answer in answers if isinstance(answer, int)]
    assert items.existing(stranger, list(range(2, 10))) == stored
    assert {type(answer) for answer in answers} <= {int, ResourceExhausted}
    await store.write(limit_growth, 1000)
    await store.write(items.add, "three")
    assert items.names(stranger)[-1] == "three"


async def test_an_id_is_not_used_again_after_the_newest_row_was_deleted(store: Store) -> None:
    newest = await store.write(items.add, "newest")
    await store.write(items.delete, newest)

    assert await store.write(items.add, "next") == newest + 1


async def test_among_takes_no_id_one_and_ten_thousand(store: Store) -> None:
    def add_many(db: Database) -> None:
        for number in range(10_000):
            items.add(db, str(number))

    await store.write(add_many)

    assert await store.read(items.existing, []) == []
    assert await store.read(items.existing, [7]) == [7]
    assert await store.read(items.existing, [7, 7, 2**62, 3]) == [3, 7]
    assert await store.read(items.existing, list(range(5, 10_005))) == list(range(5, 10_002))


async def test_a_compiled_query_is_rendered_once_for_each_kind_of_database(
    store: Store, stranger: Database, path: Path
) -> None:
    rendered: list[object] = []

    class OtherKind(type(stranger)):  # type: ignore[misc]
        def get_sql_context(self, *args: Any, **kwargs: Any) -> Any:
            rendered.append(self)
            return super().get_sql_context(*args, **kwargs)

    by_name = compiled(items.Item.select(items.Item.id).where(items.Item.name == param("name")))
    others = [databases.open_database(path) for _ in range(2)]
    for other in others:
        other.__class__ = OtherKind

    found = [by_name.one(other, name="first") for other in others for _ in range(5)]
    found.append(await store.read(by_name.one, name="first"))

    assert found == [(1,)] * 11
    assert by_name.one(others[0], name="nobody") is None
    assert rendered == others[:1]
    for other in others:
        other.close()


@pytest.mark.sqlite
async def test_durability_and_foreign_keys_are_in_force_on_every_connection(store: Store) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    assert await store.read(pragmas) == expected
    assert await store.read_long(pragmas) == expected
    assert await store.write(pragmas) == expected
    assert store.write_now(pragmas) == expected


@pytest.mark.sqlite
async def test_nobody_else_on_the_machine_can_read_the_files(store: Store, path: Path) -> None:
    await store.write(items.add, "one")

    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("items.db", "items.db-shm", "items.db-wal", "items.db.queue", "items.db.turn"), "0o600"
    )
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.sqlite
@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 51, 2)])
def test_a_sqlite_that_can_corrupt_databases_is_refused(
    path: Path, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteDatabase, "server_version", version)

    with pytest.raises(RuntimeError, match=r"3\.51\.3"):
        databases.open_store(path, items.MIGRATIONS)


async def test_a_write_on_the_calling_thread_is_undone_if_it_fails(store: Store, stranger: Database) -> None:
    with pytest.raises(LookupError):
        store.write_now(add_and_fail, "failed")
    store.write_now(items.add, "stored")

    assert items.names(stranger) == ["first", "stored"]


async def test_writes_of_the_store_and_of_the_calling_thread_take_turns(store: Store) -> None:
    writes = asyncio.gather(*(store.write(items.add, f"store {number}") for number in range(50)))
    for number in range(50):
        store.write_now(items.add, f"thread {number}")
        await asyncio.sleep(0)
    await writes

    assert await store.read(items.count) == 101


async def test_a_secret_is_made_once(path: Path) -> None:
    def paging(db: Database) -> bytes:
        return secret(db, "paging")

    def make_table(db: Database) -> None:
        with db.bind_ctx([Secret]):
            db.create_tables([Secret])

    stores = [databases.open_store(path, items.MIGRATIONS) for _ in range(2)]
    stores[0].write_now(make_table)
    made = await asyncio.gather(*(opened.write(paging) for opened in stores))

    assert made[0] == made[1]
    assert len(made[0]) == 32
    for opened in stores:
        opened.close()


async def test_the_writers_of_two_processes_take_turns(path: Path) -> None:
    one, two = await two_writers(path, seconds=1.0)

    assert max(one["longest_wait"], two["longest_wait"]) < 1
    # Without turns one does hundreds of times as many.
    assert max(one["written"], two["written"]) < 5 * min(one["written"], two["written"])
    store = databases.open_store(path, items.MIGRATIONS)
    assert await store.read(items.count) == one["written"] + two["written"] + 1
    store.close()


async def test_migrations_run_once_although_two_processes_start_at_the_same_moment(path: Path) -> None:
    await two_writers(path, seconds=0.0)

    store = databases.open_store(path, items.MIGRATIONS)
    assert await store.read(items.names) == ["first"]
    store.close()


async def two_writers(path: Path, seconds: float) -> list[dict[str, float]]:
    """What two processes say that open the same store at the same moment and write to it."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", items.__name__, str(path), name, str(seconds),
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(output) for output, _ in outputs]

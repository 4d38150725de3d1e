"""The write-ahead log stays short, whoever reads meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from chassis import wal
from chassis.sqlite import SQLiteDatabase, SQLiteStore
from chassis.store import Database, Store
from tests.chassis import items

pytestmark = pytest.mark.sqlite


_ROW = "x" * 100_000
_numbers = itertools.count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.db"


@pytest.fixture
def sizes() -> list[int]:
    """What the store told of the size of its log."""
    return []


@pytest.fixture
def store(path: Path, sizes: list[int]) -> Iterator[Store]:
    opened = SQLiteStore(path, items.MIGRATIONS, on_log_size=sizes.append)
    yield opened
    opened.close()


@pytest.fixture
def reader(store: Store, path: Path) -> Iterator[Database]:
    """A connection of somebody else."""
    database = SQLiteDatabase(path)
    yield database
    database.close()


def size_of_log(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def write_until(store: Store, done: Callable[[], bool]) -> int:
    """Write until something is so. How many writes that took."""
    async with asyncio.timeout(60):
        for count in itertools.count():
            if done():
                return count
            await store.write(items.add, f"{next(_numbers)} {_ROW}")
    raise AssertionError


@contextmanager
def reading_without_a_gap(path: Path) -> Iterator[None]:
    """Short reads, each of which begins before the one before it has ended."""
    done = threading.Event()

    def read() -> None:
        with closing(apsw.Connection(str(path))) as one, closing(apsw.Connection(str(path))) as two:
            for reader, before in itertools.cycle([(one, two), (two, one)]):
                reader.execute("BEGIN; SELECT COUNT(*) FROM tag").fetchall()
                if before.in_transaction:
                    before.execute("COMMIT")
                if done.wait(0.01):
                    break

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def begin_to_read(reader: Database) -> int:
    """See the database as it is at this moment, until the end of the transaction."""
    reader.begin()
    return items.count(reader)


async def test_the_log_grows_while_somebody_reads_and_is_short_again_soon_after(
    store: Store, path: Path, sizes: list[int], reader: Database
) -> None:
    seen = begin_to_read(reader)
    await write_until(store, lambda: size_of_log(path) > 3 * wal.LIMIT_BYTES)
    assert items.count(reader) == seen

    reader.rollback()

    assert await write_until(store, lambda: size_of_log(path) <= wal.LIMIT_BYTES) <= 3
    await write_until(store, lambda: sizes[-1] == size_of_log(path))
    assert max(sizes) > 3 * wal.LIMIT_BYTES


async def test_reads_that_overlap_do_not_keep_the_log_from_being_emptied(store: Store, path: Path) -> None:
    with reading_without_a_gap(path):
        for _ in range(3):
            await write_until(store, lambda: size_of_log(path) > wal.LIMIT_BYTES)
            await write_until(store, lambda: size_of_log(path) <= wal.LIMIT_BYTES)


async def test_who_makes_the_log_grow_far_is_named(store: Store, reader: Database) -> None:
    begin_to_read(reader)

    with capture_logs() as lines:
        await write_until(store, lambda: bool(lines))

    assert [(line["log_level"], line["database"], line["reading_processes"]) for line in lines] == [
        ("warning", "items", [os.getpid()])
    ]
    assert lines[0]["megabytes"] >= 64


async def test_only_those_who_read_at_the_moment_count_as_readers(store: Store, path: Path, reader: Database) -> None:
    await store.write(items.add, "one")
    assert await store.read(items.count) == items.count(reader)
    assert wal.readers(path) == []

    begin_to_read(reader)

    assert wal.readers(path) == [os.getpid()]

"""A disk that is full: writes are refused and nothing else, and go on once there is space."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
import pytest_asyncio

from chassis.errors import ResourceExhausted
from chassis.sqlite import SQLiteStore
from chassis.store import Store
from tests.chassis import items
from tests.chassis.power_loss import Disk
from tests.people import until

pytestmark = pytest.mark.sqlite


_numbers = itertools.count()


@pytest.fixture
def disk() -> Disk:
    return Disk(f"full-{next(_numbers)}")


@pytest_asyncio.fixture
async def store(disk: Disk, tmp_path: Path) -> AsyncIterator[Store]:
    opened = SQLiteStore(tmp_path / "items.db", items.MIGRATIONS, vfs=disk.name)
    yield opened
    disk.limit = None
    opened.close()


async def write(store: Store, name: str) -> bool:
    """Whether a write was answered well. It may be refused for want of space, and for nothing else."""
    (answer,) = await asyncio.gather(
        asyncio.wait_for(store.write(items.add, name + "x" * 2000), 10), return_exceptions=True
    )
    if isinstance(answer, ResourceExhausted):
        assert answer.reason_name == "STORAGE_FULL"
        assert answer.retry_after
    return isinstance(answer, int)


async def fill(store: Store, disk: Disk, space: int) -> list[str]:
    """Write until there is no space. Returns what was answered well."""
    disk.limit = disk.size() + space
    written = []
    for number in itertools.count():
        if not await write(store, f"{space}-{number}-"):
            return written
        written.append(f"{space}-{number}-")
    raise AssertionError


@pytest.mark.parametrize("space", [0, 5_000, 100_000])
async def test_writes_are_refused_while_the_disk_is_full_and_reads_go_on(store: Store, disk: Disk, space: int) -> None:
    written = await fill(store, disk, space)

    for _ in range(20):
        assert not await write(store, "refused")
        assert await store.read(items.count) == 1 + len(written)
        assert await store.read_long(items.count) == 1 + len(written)


@pytest.mark.parametrize("space", [0, 5_000, 100_000])
async def test_writes_go_on_within_5_seconds_once_there_is_space(
    store: Store, disk: Disk, tmp_path: Path, space: int
) -> None:
    written = await fill(store, disk, space)
    disk.limit = None
    began = time.monotonic()

    await until(lambda: write(store, "after"))

    assert time.monotonic() - began < 5
    names = [name.rstrip("x") for name in await store.read(items.names)]
    assert names == ["first", *written, "after"]
    with closing(apsw.Connection(str(tmp_path / "items.db"), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_each_of_many_writes_at_once_is_answered_truly_while_the_disk_fills_up(store: Store, disk: Disk) -> None:
    disk.limit = disk.size() + 200_000
    answers: list[bool] = []
    while all(answers):
        first = len(answers)
        answers += await asyncio.gather(*(write(store, f"{number}-") for number in range(first, first + 20)))
    disk.limit = None

    names = {name.rstrip("x") for name in await store.read(items.names)} - {"first"}
    assert names == {f"{number}-" for number, stored in enumerate(answers) if stored}
    assert names

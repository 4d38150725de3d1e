"""Stores of blobs keep the same promises, whatever they keep them in."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from services.posts.media.blob_store import CHUNK_BYTES, Blob, BlobMissing, BlobStore, BlobTooBig
from services.posts.media.file_blobs import FileBlobs
from services.posts.media.s3_blobs import S3Blobs
from tests.people import until
from tests.posts.media.s3_server import BUCKET, S3Server

WRONG_FOLDERS = ("", ".", "..", "ab" * 15, "ab" * 16 + "\n", "AB" * 16, "../" + "a" * 29, "a/" + "b" * 30, ".lock")
WRONG_NAMES = (
    "",
    ".",
    "..",
    ".lock",
    "../320.webp",
    "a/320.webp",
    "/etc/passwd",
    "320.webp\n",
    "320\0.webp",
    "320.",
    "é",
)


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    """An empty store, of each kind."""
    opened: BlobStore
    if request.param == "files":
        opened = FileBlobs(tmp_path / "media", "http://127.0.0.1:8080/media")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        opened = S3Blobs(BUCKET, f"tests/{secrets.token_hex(8)}", endpoint=server.endpoint, keys_a_page=3)
    yield opened
    opened.close()


def new_folder() -> str:
    return secrets.token_hex(16)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def blob(name: str, data: bytes) -> Blob:
    return Blob(name, "image/webp", data)


async def chunks_of(store: BlobStore, folder: str, name: str) -> list[bytes]:
    async with aclosing(store.read(folder, name)) as reading:
        return [chunk async for chunk in reading]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3_000_000])
async def test_what_was_put_is_read_in_chunks_and_fetched_whole(store: BlobStore, size: int) -> None:
    folder, data = new_folder(), os.urandom(size)

    await store.put(folder, [blob("320.webp", data), blob("320.jpg", b"another")])
    chunks = await chunks_of(store, folder, "320.webp")

    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert await store.fetch(folder, "320.webp", size) == data
    assert await store.fetch(folder, "320.jpg", 100) == b"another"


async def test_a_second_put_replaces_blobs_of_the_same_names_and_no_others(store: BlobStore) -> None:
    folder = new_folder()
    await store.put(folder, [blob("320.webp", b"first"), blob("640.webp", b"stays")])

    await store.put(folder, [blob("320.webp", b"second one"), blob("1080.webp", b"new")])

    assert await store.fetch(folder, "320.webp", 100) == b"second one"
    assert await store.fetch(folder, "640.webp", 100) == b"stays"
    assert await store.fetch(folder, "1080.webp", 100) == b"new"


async def test_putting_nothing_stores_nothing(store: BlobStore) -> None:
    await store.put(new_folder(), [])

    assert list(store.folders()) == []


async def test_a_blob_that_is_not_there_is_told(store: BlobStore) -> None:
    folder = new_folder()
    await store.put(folder, [blob("320.webp", b"x")])

    for where, name in ((folder, "640.webp"), (new_folder(), "320.webp")):
        with pytest.raises(BlobMissing, match=f"{where}/{name}"):
            await store.fetch(where, name, 100)
        with pytest.raises(BlobMissing, match=f"{where}/{name}"):
            await chunks_of(store, where, name)


async def test_a_blob_that_is_bigger_than_what_is_asked_for_is_not_fetched(store: BlobStore) -> None:
    folder = new_folder()
    await store.put(folder, [blob("320.webp", b"x" * 1001)])

    with pytest.raises(BlobTooBig, match="1000 bytes"):
        await store.fetch(folder, "320.webp", 1000)
    assert len(await store.fetch(folder, "320.webp", 1001)) == 1001


async def test_deleting_removes_a_folder_and_no_other_and_again_changes_nothing(store: BlobStore) -> None:
    folder, other = new_folder(), new_folder()
    for each in (folder, other):
        await store.put(each, [blob(f"{width}.webp", b"x") for width in range(10)])

    await store.delete(folder)
    await store.delete(folder)

    assert [found.name for found in store.folders()] == [other]
    assert len(next(store.folders()).blobs) == 10
    with pytest.raises(BlobMissing):
        await store.fetch(folder, "1.webp", 100)
    await store.put(folder, [blob("1.webp", b"again")])
    assert await store.fetch(folder, "1.webp", 100) == b"again"


async def test_all_folders_are_listed_in_the_order_of_their_names(store: BlobStore) -> None:
    before = time.time_ns() // 1000
    put = {new_folder(): {f"{width}.webp": width for width in range(1, 3 + number % 3)} for number in range(7)}
    for folder, sizes in put.items():
        await store.put(folder, [blob(name, b"x" * size) for name, size in sizes.items()])
    after = time.time_ns() // 1000

    found = list(store.folders())

    assert [each.name for each in found] == sorted(put)
    assert {each.name: each.blobs for each in found} == {folder: set(sizes) for folder, sizes in put.items()}
    assert {each.name: each.size for each in found} == {folder: sum(sizes.values()) for folder, sizes in put.items()}
    # Some count in whole seconds.
    assert all(before - 1_000_000 <= each.change_time <= after for each in found)


async def test_names_that_could_lead_elsewhere_are_refused(store: BlobStore) -> None:
    for folder in WRONG_FOLDERS:
        await _refuses(store, folder, "320.webp")
        with pytest.raises(ValueError, match="not the name of a folder"):
            await store.delete(folder)
    for name in WRONG_NAMES:
        await _refuses(store, new_folder(), name)
    assert list(store.folders()) == []


async def _refuses(store: BlobStore, folder: str, name: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.put(folder, [blob("320.jpg", b"x"), blob(name, b"x")]),
        lambda: chunks_of(store, folder, name),
        lambda: store.fetch(folder, name, 100),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not the name of a"):
            await call()
    with pytest.raises(ValueError, match="not the name of a"):
        store.url(folder, name)


async def test_many_can_put_and_delete_at_once(store: BlobStore) -> None:
    kept = {new_folder(): os.urandom(1000) for _ in range(20)}
    deleted = [new_folder() for _ in range(10)]
    contested = new_folder()

    async def put_and_delete(folder: str) -> None:
        await store.put(folder, [blob("320.webp", b"x"), blob("640.webp", b"y")])
        await store.delete(folder)

    await asyncio.gather(
        *(store.put(folder, [blob("320.webp", data), blob("640.webp", data)]) for folder, data in kept.items()),
        *map(put_and_delete, deleted),
        *(put_and_delete(contested) for _ in range(10)),
        *(store.delete(contested) for _ in range(5)),
    )

    assert [each.name for each in store.folders()] == sorted(kept)
    assert all(each.blobs == {"320.webp", "640.webp"} for each in store.folders())
    for folder, data in kept.items():
        assert await store.fetch(folder, "640.webp", 1000) == data


async def test_reading_that_is_broken_off_holds_up_no_other(store: BlobStore) -> None:
    folder, data = new_folder(), os.urandom(3_000_000)
    await store.put(folder, [blob("1080.webp", data)])
    before = open_files()

    # More than there are threads or connections.
    for _ in range(40):
        async with aclosing(store.read(folder, "1080.webp")) as reading:
            assert await anext(reading)
    cut_off = [asyncio.create_task(chunks_of(store, folder, "1080.webp")) for _ in range(40)]
    await asyncio.sleep(0)
    for task in cut_off:
        task.cancel()
    await asyncio.gather(*cut_off, return_exceptions=True)

    assert b"".join(await asyncio.wait_for(chunks_of(store, folder, "1080.webp"), 20)) == data

    async def are_closed() -> bool:
        # Connections stay for those who come next.
        return open_files() <= before + 16

    await until(are_closed)


async def test_reading_takes_little_memory_however_large_the_blob(store: BlobStore) -> None:
    folder = new_folder()
    await store.put(folder, [blob("1080.webp", bytes(16 << 20))])
    size = 0
    tracemalloc.start()
    try:
        async with aclosing(store.read(folder, "1080.webp")) as reading:
            async for chunk in reading:
                size += len(chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size == 16 << 20
    assert most < 5 << 20

"""Blobs in files: what crashes, full disks and other processes leave of them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from services.posts.media.blob_store import Blob, BlobMissing, BlobStoreAway, BlobStoreFull
from services.posts.media.file_blobs import FileBlobs
from tests import disks
from tests.people import until

FOLDER = "0123456789abcdef" * 2
NAMES = ("320.webp", "640.webp", "1080.webp")

# Puts three blobs into a folder, and is killed once it has written the second.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from services.posts.media.blob_store import Blob
from services.posts.media.file_blobs import FileBlobs

root, folder, *names = sys.argv[1:]

class Deadly(list):
    rounds = 0
    def __iter__(self):
        self.rounds += 1
        for number, blob in enumerate(list.__iter__(self)):
            if self.rounds == 2 and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield blob

blobs = Deadly(Blob(name, "image/webp", b"new" * 1000) for name in names)
asyncio.run(FileBlobs(Path(root), "").put(folder, blobs))
"""

# Deletes a folder, and is killed before it has deleted the first of its blobs.
KILLED_DELETING = """
import asyncio, os, signal, sys
from pathlib import Path
from services.posts.media.file_blobs import FileBlobs

Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(FileBlobs(Path(sys.argv[1]), "").delete(sys.argv[2]))
"""

# Puts where no file may have more than 100,000 bytes.
LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from services.posts.media.blob_store import Blob, BlobStoreFull
from services.posts.media.file_blobs import FileBlobs

root, folder, *names = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
blobs = [Blob(name, "image/webp", b"new" * 50_000 * number) for number, name in enumerate(names)]
try:
    asyncio.run(FileBlobs(Path(root), "").put(folder, blobs))
except BlobStoreFull as full:
    print(full)
"""

# Does everything where nothing more can be opened.
EXHAUSTED = """
import asyncio, resource, sys
from pathlib import Path
from chassis import logs
from services.posts.media.blob_store import Blob, BlobStoreAway
from services.posts.media.file_blobs import FileBlobs

root, folder, name, *_ = sys.argv[1:]
logs.configure("debug", False)
store = FileBlobs(Path(root), "")

async def first_chunk():
    async for chunk in store.read(folder, name):
        return chunk

async def list_folders():
    return list(store.folders())

async def do_all():
    blobs = [Blob(name, "image/webp", b"x")]
    await store.put(folder, blobs)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    calls = store.put(folder, blobs), first_chunk(), store.fetch(folder, name, 1), store.delete(folder), list_folders()
    for call in calls:
        try:
            await call
        except BlobStoreAway:
            pass
        else:
            raise AssertionError

asyncio.run(do_all())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "var" / "media"


@pytest.fixture
def store(root: Path) -> Iterator[FileBlobs]:
    opened = FileBlobs(root, "http://127.0.0.1:8080/media/")
    yield opened
    opened.close()


def blobs(data: bytes) -> list[Blob]:
    return [Blob(name, "image/webp", data) for name in NAMES]


def run(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, root, FOLDER, *NAMES], capture_output=True, text=True, timeout=60, check=False
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def hidden(root: Path) -> list[str]:
    """What there is beside folders of blobs."""
    return sorted(name for name in os.listdir(root) if name.startswith(".") and name != ".lock")


async def test_addresses_are_those_of_the_served_folder(store: FileBlobs, root: Path) -> None:
    assert store.url(FOLDER, "320.webp") == f"http://127.0.0.1:8080/media/{FOLDER}/320.webp"
    assert store.upload_target(FOLDER, "upload", "image/png", 5, 60) is None
    await store.put(FOLDER, blobs(b"x"))
    assert (root / FOLDER / "320.webp").read_bytes() == b"x"


async def test_nobody_else_may_look_at_the_files(store: FileBlobs, root: Path) -> None:
    await store.put(FOLDER, blobs(b"x"))

    files = [root / ".lock", *(root / FOLDER / name for name in NAMES)]
    assert {mode(folder) for folder in (root.parent, root, root / FOLDER)} == {0o700}
    assert {mode(file) for file in files} == {0o600}


async def test_what_was_put_or_deleted_is_on_the_disk(
    store: FileBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    synced_unseen: set[int] = set()
    sync = os.fsync

    def noting_sync(file: int) -> None:
        place = os.fstat(file).st_ino
        synced.add(place)
        if not os.path.exists(root / FOLDER):
            synced_unseen.add(place)
        sync(file)

    monkeypatch.setattr(os, "fsync", noting_sync)
    for data in (b"first", b"second"):
        synced.clear()
        await store.put(FOLDER, blobs(data))
        places = (root, root / FOLDER, *(root / FOLDER / name for name in NAMES))
        assert synced >= {os.stat(place).st_ino for place in places}
        # It is whole before it is there.
        assert os.stat(root / FOLDER).st_ino in synced_unseen
    synced.clear()
    await store.delete(FOLDER)
    assert os.stat(root).st_ino in synced


async def test_a_folder_appears_at_once(store: FileBlobs, root: Path) -> None:
    folders = [secrets.token_hex(16) for _ in range(30)]
    seen: set[frozenset[str]] = set()
    is_over = False

    def look() -> None:
        while not is_over:
            for folder in folders:
                with suppress(FileNotFoundError):
                    seen.add(frozenset(os.listdir(root / folder)))

    with ThreadPoolExecutor(1) as thread:
        looking = thread.submit(look)
        for folder in folders:
            await store.put(folder, blobs(b"x"))
        is_over = True
        looking.result(10)

    assert seen <= {frozenset(NAMES)}


async def test_a_folder_goes_at_once(store: FileBlobs, root: Path) -> None:
    await store.put(FOLDER, blobs(b"x"))

    assert run(KILLED_DELETING, root).returncode == -signal.SIGKILL

    (left,) = hidden(root)
    assert sorted(os.listdir(root / left)) == sorted(NAMES)
    assert list(store.folders()) == []
    # Nobody can need it any more.
    FileBlobs(root, "").close()
    assert hidden(root) == []


async def test_blobs_are_moved_by_one_process_at_a_time(store: FileBlobs, root: Path) -> None:
    async def written() -> int:
        return sum(len(os.listdir(root / name)) for name in hidden(root))

    # As another process does.
    turn = os.open(root / ".lock", os.O_RDWR)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        putting = asyncio.create_task(store.put(FOLDER, blobs(b"x")))
        deleting = asyncio.create_task(store.delete("f" * 32))
        await until(written, len(NAMES))
        await asyncio.sleep(0.1)
        assert FOLDER not in os.listdir(root)
        assert not deleting.done()
    finally:
        os.close(turn)
    await asyncio.wait_for(asyncio.gather(putting, deleting), 10)
    assert (await store.fetch(FOLDER, NAMES[0], 1)) == b"x"


async def test_a_put_that_is_killed_leaves_nothing_that_is_seen(root: Path) -> None:
    killed = run(KILLED, root)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (left,) = hidden(root)
    assert len(os.listdir(root / left)) == 2
    # Others may be putting: it is removed once it is older than any put.
    store = FileBlobs(root, "")
    assert hidden(root) == [left]
    assert list(store.folders()) == []
    with pytest.raises(BlobMissing):
        await store.fetch(FOLDER, NAMES[0], 10_000)
    await store.put(FOLDER, blobs(b"x"))
    store.close()
    os.utime(root / left, (time.time() - 4000,) * 2)
    FileBlobs(root, "").close()
    assert hidden(root) == []
    assert sorted(os.listdir(root / FOLDER)) == sorted(NAMES)


async def test_a_put_that_is_killed_changes_nothing_of_a_folder_that_is_there(store: FileBlobs, root: Path) -> None:
    await store.put(FOLDER, blobs(b"old"))

    assert run(KILLED, root).returncode == -signal.SIGKILL

    assert [await store.fetch(FOLDER, name, 100) for name in NAMES] == [b"old"] * 3


async def test_what_others_have_in_the_folder_is_left_alone(store: FileBlobs, root: Path) -> None:
    (root / "lost+found").mkdir()
    (root / "notes.txt").write_text("mine")
    (root / FOLDER).mkdir()
    (root / FOLDER / "Notes.txt").write_text("mine")

    FileBlobs(root, "").close()

    assert list(store.folders()) == []
    assert (root / FOLDER / "Notes.txt").read_text() == (root / "notes.txt").read_text() == "mine"


async def test_a_blob_of_a_put_without_space_leaves_nothing_behind(store: FileBlobs, root: Path) -> None:
    await store.put(FOLDER, blobs(b"old"))

    limited = run(LIMITED, root)

    assert limited.stdout == "the store of the images is full\n", limited.stderr
    assert hidden(root) == []
    assert [await store.fetch(FOLDER, name, 100) for name in NAMES] == [b"old"] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    with disks.small(tmp_path / "disk", 1) as folder:
        yield folder


async def test_a_full_disk_refuses_puts_until_something_is_deleted(small_disk: Path) -> None:
    store = FileBlobs(small_disk / "media", "")
    folders = [secrets.token_hex(16) for _ in range(20)]
    data = os.urandom(50_000)
    stored = []
    for folder in folders:
        try:
            await store.put(folder, blobs(data))
        except BlobStoreFull:
            continue
        stored.append(folder)

    assert 0 < len(stored) < len(folders)
    assert hidden(small_disk / "media") == []
    assert [each.name for each in store.folders()] == sorted(stored)
    assert {await store.fetch(folder, name, 50_000) for folder in stored for name in NAMES} == {data}
    await store.delete(stored[0])
    await store.put(folders[-1], blobs(data))
    store.close()


async def test_a_folder_that_is_taken_away_is_told(store: FileBlobs, root: Path) -> None:
    elsewhere = root.with_name("elsewhere")
    await store.put(FOLDER, blobs(b"x"))
    os.rename(root, elsewhere)

    for call in (
        lambda: store.put(FOLDER, blobs(b"x")),
        lambda: store.delete(FOLDER),
    ):
        with pytest.raises(BlobStoreAway):
            await call()
    with pytest.raises(BlobStoreAway):
        list(store.folders())

    os.rename(elsewhere, root)
    await store.put(FOLDER, blobs(b"y"))
    assert await store.fetch(FOLDER, "320.webp", 1) == b"y"


def test_the_log_says_what_failed_and_why_and_not_for_which_image(root: Path) -> None:
    """The name of a folder is all that it takes to see what is in it, and clients can bring a server out of files."""
    ended = run(EXHAUSTED, root)

    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["operation"] for line in lines] == ["put", "read", "fetch", "delete", "list"]
    assert {(line["errno"], line["error"]) for line in lines} == {(errno.EMFILE, os.strerror(errno.EMFILE))}
    assert FOLDER not in ended.stdout + ended.stderr


async def test_blobs_of_one_put_stay_together_whatever_others_put_and_delete(root: Path) -> None:
    # Each as another process would have one.
    stores = [FileBlobs(root, "") for _ in range(3)]
    for number in range(100):
        await asyncio.gather(
            stores[0].put(FOLDER, blobs(b"a%d" % number)),
            stores[1].put(FOLDER, blobs(b"b%d" % number)),
            stores[number % 3].delete(FOLDER),
        )
        found = list(stores[0].folders())
        if found:
            assert found[0].blobs == set(NAMES)
            assert len({await stores[0].fetch(FOLDER, name, 100) for name in NAMES}) == 1
    for each in stores:
        each.close()
    assert hidden(root) == []


async def test_a_file_that_is_slow_holds_up_nothing_but_its_reader(store: FileBlobs, root: Path) -> None:
    await store.put(FOLDER, blobs(b"x"))
    # Opening one waits until somebody writes to it.
    os.mkfifo(root / FOLDER / "slow.webp")

    async def read() -> bytes:
        async with aclosing(store.read(FOLDER, "slow.webp")) as reading:
            return b"".join([chunk async for chunk in reading])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    assert await asyncio.wait_for(store.fetch(FOLDER, "320.webp", 1), 10) == b"x"
    assert not reading.done()
    await asyncio.get_running_loop().run_in_executor(None, (root / FOLDER / "slow.webp").write_bytes, b"late")
    assert await asyncio.wait_for(reading, 10) == b"late"

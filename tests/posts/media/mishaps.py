"""Processes of the posts service that share a database and a folder of images, and to which anything may happen."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chassis import call, clock, errors, events, sqlite, tombstones
from chassis.call import Call, Caller
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.sqlite import SQLiteStore
from chassis.store import Database, Store
from insta.posts.v1 import media_pb2
from services.posts import erasure, service
from services.posts.media import collector
from services.posts.media.blob_store import Blob, BlobStoreAway, BlobStoreFull, StoredFolder, UploadTarget
from services.posts.media.file_blobs import FileBlobs
from services.posts.media.studio import Studio
from services.posts.media.workshop import Workshop
from services.posts.media_servicer import MediaServicer
from services.posts.messages import Messages
from services.posts.post_servicer import PostServicer

Result = TypeVar("Result")

BASE_URL = "http://images.test/media"
HOUR = 3600
DAY = 24 * HOUR
# What a direct upload is called in its folder.
FILE = "upload"
_KEY = b"sixteen bytes or more"


class Killed(asyncio.CancelledError):
    """The process is gone: none of its code goes on, and so no task of it has anything to tell."""


@dataclass
class Mishap:
    """What happens to a process at one of its next moments, each of which is just before or after it touches the
    database or the store, or between two blobs.

    Attributes:
        kind: killed, cancelled, away or full; with "late " before it, what was being put arrives all the same, later.
            Or overtaken: nothing happens to it, but something in between.
        after: How many moments go well before.
    """

    kind: str
    after: int = 0


class Fate:
    """What becomes of a process.

    Attributes:
        mishap: What is to happen.
        dead: Whether it was killed.
        overtake: What happens in between.
        late: What was put, and is on its way though nobody waits for it: functions that let it arrive.
    """

    def __init__(self, late: list[Callable[[], Awaitable[None]]]) -> None:
        self.mishap: Mishap | None = None
        self.dead = False
        self.overtake: Callable[[], Awaitable[None]] = _nothing_happens
        self.late = late

    async def moment(self, failure: Exception | None = None, put: Callable[[], Awaitable[None]] | None = None) -> None:
        """Whatever happens now.

        Args:
            failure: What is raised if something is away.
            put: What may arrive late.
        """
        if self.dead:
            raise Killed
        if self.mishap is None:
            return None
        if self.mishap.after:
            self.mishap.after -= 1
            return None
        kind, self.mishap = self.mishap.kind, None
        if kind == "overtaken":
            return await self.overtake()
        if kind.startswith("late ") and put is not None:
            self.late.append(put)
        if kind.endswith("killed"):
            self.dead = True
            raise Killed
        if kind.endswith("cancelled"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        # Who was cancelled does not come so far.
        raise BlobStoreFull if kind == "full" and put is not None else failure or BlobStoreAway()


class MortalStore(SQLiteStore):
    """A database whose process may die before a change and after its commit."""

    def __init__(self, path: Path, fate: Fate) -> None:
        assert service.SERVICE.migrations is not None
        super().__init__(path, service.SERVICE.migrations)
        self._fate = fate

    async def write(self, change: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        await self._fate.moment(errors.unavailable())
        result = await super().write(change, *args, **kwargs)
        await self._fate.moment(errors.unavailable())
        return result


class UncertainBlobs:
    """Real files, on a way to which anything may happen. Takes direct uploads, as S3 does."""

    def __init__(self, files: FileBlobs, root: Path, fate: Fate) -> None:
        self._files = files
        self._root = root
        self._fate = fate

    url_seconds = None

    async def put(self, folder: str, blobs: Sequence[Blob]) -> None:
        async def put() -> None:
            await self._files.put(folder, blobs)

        await self._fate.moment(put=put)
        await self._files.put(folder, blobs[:1])
        await self._fate.moment(put=put)
        await put()
        await self._fate.moment(put=put)

    def read(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        return self._files.read(folder, name)

    async def fetch(self, folder: str, name: str, most: int) -> bytes:
        await self._fate.moment()
        return await self._files.fetch(folder, name, most)

    async def delete(self, folder: str) -> None:
        await self._fate.moment()
        for stored in self._files.folders():
            if stored.name == folder:
                # As a deletion that ends in the middle.
                (self._root / folder / min(stored.blobs)).unlink(missing_ok=True)
        await self._fate.moment()
        await self._files.delete(folder)
        await self._fate.moment()

    def folders(self) -> Iterator[StoredFolder]:
        return self._files.folders()

    def url(self, folder: str, name: str) -> str:
        return self._files.url(folder, name)

    def upload_target(self, folder: str, name: str, content_type: str, size: int, seconds: int) -> UploadTarget:
        """The folder is what the address ends with."""
        return UploadTarget(f"{BASE_URL}/{folder}", {})

    def close(self) -> None:
        pass


class Process:
    """The posts service in one process.

    Attributes:
        media, posts: Its calls.
    """

    def __init__(self, path: Path, files: FileBlobs, root: Path, workshop: Workshop, fate: Fate) -> None:
        self.fate = fate
        self.store = MortalStore(path, fate)
        self.store.write_now(events.begin)
        self.blobs = UncertainBlobs(files, root, fate)
        replies, messages = Replies(self.store, _KEY), Messages(self.blobs)
        self.studio = Studio(self.store, self.blobs, workshop)
        self.media = MediaServicer(self.store, replies, self.blobs, self.studio, messages)
        self.posts = PostServicer(self.store, replies, Pager(_KEY), messages)
        self._collecting = collector.collecting(self.store, self.blobs)

    async def collect(self) -> bool:
        """A step of the collector."""
        return await self._collecting.step()

    async def erase(self) -> bool:
        """A step of what erases who is gone. Answers whether there was something to erase."""
        gone = await self.store.read(tombstones.pending)
        if gone is not None:
            await self.store.write(erasure.erase_some, gone)
        return gone is not None

    async def upload(self, data: bytes, content_type: str = "image/png", **header: Any) -> media_pb2.Media:
        """Upload an image as the caller."""

        async def requests() -> AsyncIterator[media_pb2.UploadMediaRequest]:
            first = media_pb2.UploadHeader(content_type=content_type, size=len(data), **header)
            yield media_pb2.UploadMediaRequest(header=first)
            yield media_pb2.UploadMediaRequest(chunk=data)

        return (await self.media.UploadMedia(requests(), None)).media


class Premises:
    """A database and a folder of images, the clock on the wall, and the processes that work there.

    Attributes:
        late: What is on its way to the folder though nobody waits for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, workshop: Workshop) -> None:
        self._loop = loop
        self._workshop = workshop
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "posts.db"
        self.root = Path(self._folder.name) / "media"
        self.late: list[Callable[[], Awaitable[None]]] = []
        self._processes: list[Process] = []
        self._patch = pytest.MonkeyPatch()
        self._seconds = 0
        # Power is never lost here, and to wait for the disk would take most of the time.
        self._patch.setattr(os, "fsync", lambda file: None)
        self._patch.setitem(sqlite._PRAGMAS, "synchronous", "off")
        now = clock.now
        self._patch.setattr(clock, "now", lambda: now() + self._seconds * 1_000_000)
        self.files = FileBlobs(self.root, BASE_URL)

    def close(self) -> None:
        for process in self._processes:
            process.store.close()
        self.files.close()
        self._patch.undo()
        self._folder.cleanup()

    def run(self, work: Coroutine[Any, Any, Result], who: int = 0) -> Result:
        """Do something as somebody, in a task of its own.

        Raises:
            Killed, asyncio.CancelledError: as happened to it.
        """

        async def as_somebody() -> Result | Killed:
            under_way = Call("/test", "", math.inf, "0" * 32)
            under_way.caller = Caller(who)
            call.current.set(under_way)
            try:
                return await work
            except Killed as killed:
                # A task would make another exception of it.
                return killed

        result = self._loop.run_until_complete(as_somebody())
        if isinstance(result, Killed):
            raise result
        return result

    def begin_process(self) -> Process:
        process = Process(self.path, self.files, self.root, self._workshop, Fate(self.late))
        self._processes.append(process)
        return process

    def pass_time(self, seconds: int) -> None:
        self._seconds += seconds

    async def arrive(self) -> None:
        """What is on its way arrives."""
        while self.late:
            await self.late.pop()()

    def settle(self, process: Process) -> None:
        """Wait for what the process does though nobody waits for it."""
        self.run(asyncio.sleep(0))
        self.run(process.store.write(_nothing))

    def stored(self) -> dict[str, frozenset[str]]:
        """The blobs in each folder."""
        return {folder.name: folder.blobs for folder in self.files.folders()}


@contextmanager
def loop_and_workshop() -> Iterator[tuple[asyncio.AbstractEventLoop, Workshop]]:
    """What premises need and is slow to begin."""
    loop = asyncio.new_event_loop()

    async def workshop() -> Workshop:
        return Workshop()

    try:
        with closing(loop.run_until_complete(workshop())) as made:
            yield loop, made
    finally:
        loop.close()


async def _nothing_happens() -> None:
    pass


def _nothing(db: Database) -> None:
    pass


def blobs_of(media: media_pb2.Media) -> tuple[str, frozenset[str]]:
    """The folder of an image, and the blobs that have to be in it."""
    paths = [variant.url.removeprefix(f"{BASE_URL}/").split("/") for variant in media.variants]
    (folder,) = {folder for folder, _ in paths}
    return folder, frozenset(name for _, name in paths)


def rows(database: Store, query: str) -> list[tuple[Any, ...]]:
    """What a query finds."""
    return database.read_now(lambda db: list(db.execute_sql(query)))

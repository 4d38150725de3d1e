"""Images in files: ROOT/FOLDER/NAME. A content type is not kept: it is what a name ends with.

A folder appears at once, with all blobs of its first `put`, and goes at once. Where one exists, its blobs are replaced
one by one. Several processes may share a root.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from chassis import logs
from services.posts.media.blob_store import (
    CHUNK_BYTES,
    Blob,
    BlobMissing,
    BlobStoreAway,
    BlobStoreFull,
    BlobTooBig,
    StoredFolder,
    UploadTarget,
    checked_folder,
    checked_name,
    is_folder,
    is_name,
)

Result = TypeVar("Result")
_THREADS = 8
# Handing work to a thread costs more than reading one chunk.
_CHUNKS_AT_ONCE = 4
# Folders that are being written, and those that are being removed.
_NEW = ".new-"
_GONE = ".gone-"
# No put takes as long.
_ABANDONED_SECONDS = 3600
# The last one is of a limit that a process has.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logs.get(__name__)


class FileBlobs:
    """A blob store in a folder, which is made if it is not there. What crashes have left in it is removed.

    Args:
        base_url: What addresses begin with. The root is to be served there.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, root: Path, base_url: str) -> None:
        for folder in (root.parent, root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._base_url = base_url.rstrip("/")
        self._turn = root / ".lock"
        os.close(os.open(self._turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._remove_leftovers()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="file-blobs")

    @property
    def serves_files(self) -> Path | None:
        return self._root

    @property
    def url_seconds(self) -> int | None:
        return None

    async def put(self, folder: str, blobs: Sequence[Blob]) -> None:
        target = self._root / checked_folder(folder)
        for blob in blobs:
            checked_name(blob.name)
        await self._run(lambda: self._put(target, blobs))

    async def read(self, folder: str, name: str) -> AsyncGenerator[bytes, None]:
        path = self._path(folder, name)
        file = await self._run(lambda: _open(path))
        try:
            while chunks := await self._run(lambda: _next_chunks(file)):
                for chunk in chunks:
                    yield chunk
        finally:
            self._close_later(file)

    async def fetch(self, folder: str, name: str, most: int) -> bytes:
        path = self._path(folder, name)
        return await self._run(lambda: _fetch(path, most))

    async def delete(self, folder: str) -> None:
        target = self._root / checked_folder(folder)
        await self._run(lambda: self._delete(target))

    def folders(self) -> Iterator[StoredFolder]:
        """As of `BlobStore`. The names of all folders are in memory at once: 90 bytes each."""
        with _telling():
            names = sorted(filter(is_folder, os.listdir(self._root)))
        for name in names:
            with _telling():
                stored = _stored(self._root / name)
            if stored is not None:
                yield stored

    def url(self, folder: str, name: str) -> str:
        return f"{self._base_url}/{checked_folder(folder)}/{checked_name(name)}"

    def upload_target(self, folder: str, name: str, content_type: str, size: int, seconds: int) -> UploadTarget | None:
        return None

    def close(self) -> None:
        self._threads.shutdown()

    def _path(self, folder: str, name: str) -> Path:
        return self._root / checked_folder(folder) / checked_name(name)

    async def _run(self, work: Callable[[], Result]) -> Result:
        with _telling():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _close_later(self, file: BinaryIO) -> None:
        """A thread may be reading still, for a call that was cancelled: closing waits for it."""
        try:
            self._threads.submit(file.close)
        except RuntimeError:
            # The store is closed, and its threads have ended.
            file.close()

    def _put(self, target: Path, blobs: Sequence[Blob]) -> None:
        if not blobs:
            return
        new = self._beside(_NEW)
        new.mkdir(mode=0o700)
        try:
            for blob in blobs:
                _write(new / blob.name, blob.data)
            _sync(new)
            with self._alone():
                _move(new, target)
            # Whoever deleted it meanwhile might have done so later.
            with suppress(FileNotFoundError):
                _sync(target)
            _sync(self._root)
        finally:
            _remove(new)

    def _delete(self, target: Path) -> None:
        gone = self._beside(_GONE)
        with self._alone(), suppress(FileNotFoundError):
            target.rename(gone)
        _sync(self._root)
        _remove(gone)

    def _beside(self, prefix: str) -> Path:
        return self._root / f"{prefix}{secrets.token_hex(16)}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No thread of any process moves blobs meanwhile: or those of one put could end in two folders."""
        turn = os.open(self._turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield
        finally:
            os.close(turn)

    def _remove_leftovers(self) -> None:
        for name in os.listdir(self._root):
            path = self._root / name
            # Another process may be writing to a new one.
            if name.startswith(_GONE) or (name.startswith(_NEW) and _is_abandoned(path)):
                _remove(path)


@contextmanager
def _telling() -> Iterator[None]:
    """Failures of the operating system become those of a store."""
    try:
        yield
    except OSError as failure:
        if failure.errno in _NO_SPACE:
            raise BlobStoreFull from None
        log.error("files of images failed", error=failure.strerror, path=str(failure.filename))
        raise BlobStoreAway from None


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise BlobMissing(path.parent.name, path.name) from None


def _next_chunks(file: BinaryIO) -> list[bytes]:
    chunks: list[bytes] = []
    while len(chunks) < _CHUNKS_AT_ONCE and (chunk := file.read(CHUNK_BYTES)):
        chunks.append(chunk)
    return chunks


def _fetch(path: Path, most: int) -> bytes:
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise BlobTooBig(path.parent.name, path.name, most)
        return file.read()


def _write(path: Path, data: bytes) -> None:
    """Make a file that lasts."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the entries of a folder last."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _move(new: Path, target: Path) -> None:
    """Make a folder be another: at once, or blob by blob where that one exists."""
    try:
        new.rename(target)
    except OSError as failure:
        if failure.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        for name in os.listdir(new):
            (new / name).replace(target / name)


def _remove(folder: Path) -> None:
    """Remove a folder, if it is there. Another process may be at it, too."""
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _is_abandoned(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime < time.time() - _ABANDONED_SECONDS
    return False


def _stored(folder: Path) -> StoredFolder | None:
    """What is in a folder. None: no blobs."""
    blobs: set[str] = set()
    size = newest = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            if not is_name(entry.name):
                continue
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                blobs.add(entry.name)
                size += found.st_size
                newest = max(newest, found.st_mtime_ns // 1000)
    return StoredFolder(folder.name, frozenset(blobs), size, newest) if blobs else None

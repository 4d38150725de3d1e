"""A disk that can lose its power: what was written and not yet synced is gone then, all of it or any part.

It lies between SQLite and the real files (a VFS). They hold what the operating system would show; the disk remembers
beside them what is safe. So it can be asked at any moment what would be left, and nothing has to crash.

It covers what SQLite writes to the database and to its log, in units of sectors. It does not cover entries of
directories (a file that was opened exists), sectors that are half written, and disks that lie about a sync.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

_SECTOR = 512


@dataclass
class _Contents:
    """A file: its bytes that are safe, and what was done to it since the last sync."""

    safe: bytearray = field(default_factory=bytearray)
    unsafe: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for offset, data in self.unsafe:
            _do(self.safe, offset, data)
        self.unsafe.clear()

    def after_loss(self, kept: Callable[[], bool]) -> bytearray:
        """What is left if of each sector that was not synced `kept` tells whether it reached the disk."""
        left = self.safe.copy()
        for offset, data in self.unsafe:
            if data is None:
                if kept():
                    _do(left, offset, None)
                continue
            for start in range(0, len(data), _SECTOR):
                if kept():
                    _do(left, offset + start, data[start : start + _SECTOR])
        return left


class Disk(apsw.VFS):  # type: ignore[misc]
    """A VFS with this name.

    Attributes:
        limit: How many bytes all files together may have. None: any number.
        on_write: Called before anything is written or synced.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit: int | None = None
        self.on_write: Callable[[], None] = lambda: None
        self.lock = threading.RLock()
        self.files: dict[str, _Contents] = {}
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> File:
        return File(self, name, flags)

    def xDelete(self, filename: str, sync_directory: bool) -> None:
        super().xDelete(filename, sync_directory)
        with self.lock:
            self.files.pop(filename, None)

    def lose_power(self, folder: Path, kept: Callable[[], bool]) -> None:
        """Put what would be left into a folder.

        Args:
            kept: Asked for each sector that was not synced: whether it reached the disk all the same.
        """
        with self.lock:
            left = {name: contents.after_loss(kept) for name, contents in self.files.items()}
        for name, data in left.items():
            (folder / Path(name).name).write_bytes(data)

    def size(self) -> int:
        """Bytes of all files together."""
        return sum(Path(name).stat().st_size for name in self.files if Path(name).exists())


class File(apsw.VFSFile):  # type: ignore[misc]
    """A file on a `Disk`."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        # A temporary file has no name, and nothing of it is to outlive anything.
        path = "" if name is None else name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        with disk.lock:
            self._contents = disk.files.setdefault(path, _Contents()) if path else _Contents()

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.on_write()
        with self._disk.lock:
            limit = self._disk.limit
            if limit is not None and offset + len(data) > self.xFileSize() and self._disk.size() + len(data) > limit:
                raise apsw.FullError("database or disk is full")
            super().xWrite(data, offset)
            self._contents.unsafe.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.on_write()
        with self._disk.lock:
            super().xTruncate(size)
            self._contents.unsafe.append((size, None))

    def xSync(self, flags: int) -> None:
        self._disk.on_write()
        with self._disk.lock:
            super().xSync(flags)
            self._contents.sync()


def nothing() -> bool:
    """No sector that was not synced reached the disk."""
    return False


def any_part(seed: int) -> Callable[[], bool]:
    """Some sectors that were not synced reached the disk."""
    rng = random.Random(seed)
    share = rng.random()
    return lambda: rng.random() < share


def _do(contents: bytearray, offset: int, data: bytes | None) -> None:
    """Write data at an offset; None: cut the file off there."""
    if data is None:
        del contents[offset:]
        return
    contents.extend(bytes(max(offset - len(contents), 0)))
    contents[offset : offset + len(data)] = data

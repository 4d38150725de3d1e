"""The write-ahead log of a SQLite database, which is to stay short.

SQLite writes it anew from its start once all of it is in the database and nobody reads from it any more. Short reads
that overlap put that off for ever, for after each commit somebody still sees what was before it. So where the log has
become long, a writer keeps others from writing until the readers of that moment are done. One that reads for longer
keeps the log growing by what is written meanwhile; it is cut to its usual length by the first writes after that.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from chassis import logs

# Twice what SQLite itself lets it grow to before it tries to empty it. As much of the file stays, to be written anew.
LIMIT_BYTES = 8 * 1024 * 1024
# For so long readers are waited for, and writers with them. Then there is a pause, longer each time: little is lost to
# somebody who reads for long.
_WAIT_MILLISECONDS = 100
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
# Who reads for so long that it gets there is told of, and again at each doubling.
_REMARKABLE_BYTES = 64 * 1024 * 1024
# The bytes of the -shm file that readers lock (https://sqlite.org/walformat.html#wal_locks).
_FIRST_READ_LOCK, _LAST_READ_LOCK = 123, 127
# 3: POSIX  ADVISORY  READ 4711 fe:00:9978503 124 124
_LOCK = re.compile(r"POSIX +ADVISORY +READ +(\d+) \S+:(\d+) (\d+) (\d+)$", re.MULTILINE)

log = logs.get(__name__)


class WriteAheadLog:
    """The log of one database.

    Args:
        path: Of the database.
        on_size: Told the size of the log's file, in bytes, whenever `keep_short` is called.
    """

    def __init__(self, path: Path, on_size: Callable[[int], None]) -> None:
        self._path = path
        self._file = Path(f"{path}-wal")
        self._on_size = on_size
        self._next_try = float("-inf")
        self._pause = _FIRST_PAUSE_SECONDS
        self._told_at = _REMARKABLE_BYTES

    def keep_short(self, connection: apsw.Connection) -> None:
        """Empty the log into the database if it has become long: after a transaction, in the writer's turn."""
        size = self._size()
        self._on_size(size)
        if size <= LIMIT_BYTES:
            self._pause, self._told_at = _FIRST_PAUSE_SECONDS, _REMARKABLE_BYTES
        elif time.monotonic() >= self._next_try and not _empty(connection):
            self._next_try = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            if size >= self._told_at:
                self._told_at = 2 * size
                self._tell(size)

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0

    def _tell(self, size: int) -> None:
        log.warning(
            "write-ahead log grows for as long as somebody reads from one moment",
            database=self._path.stem,
            megabytes=size // 1_000_000,
            reading_processes=readers(self._path),
        )


def readers(path: Path) -> list[int]:
    """The ids of the processes that read from a database at the moment, where the operating system tells (Linux)."""
    try:
        inode = Path(f"{path}-shm").stat().st_ino
        # To open the -shm file would be to give up the locks that this process has on it.
        locks = Path("/proc/locks").read_text()
    except OSError:
        return []
    return sorted(
        {
            int(pid)
            for pid, of_inode, first, last in _LOCK.findall(locks)
            if int(of_inode) == inode and int(first) <= _LAST_READ_LOCK and int(last) >= _FIRST_READ_LOCK
        }
    )


def _empty(connection: apsw.Connection) -> bool:
    """Put all of the log into the database, so that the next write begins it anew. False: somebody reads from it."""
    patience = connection.pragma("busy_timeout")
    connection.pragma("busy_timeout", _WAIT_MILLISECONDS)
    try:
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    except apsw.Error as failure:
        # What was written is safe in the log.
        log.error("write-ahead log cannot be put into the database", error=repr(failure))
        return False
    finally:
        connection.pragma("busy_timeout", patience)
    return not busy

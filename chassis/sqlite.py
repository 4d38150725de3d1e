"""A service's database as a SQLite file: reads on the calling thread, writes on one thread that commits many at once.

By way of APSW, which carries a current SQLite.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import datetime
import fcntl
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, NamedTuple

import apsw
import peewee
from playhouse import apsw_ext

from chassis import errors, logs, schema, wal
from chassis.call import current
from chassis.store import Arguments, Database, Result, Store, run_change, storage_full

# A transaction of many writes ends after this many, so that the first of them does not wait for ever.
_BATCH_LIMIT = 256
_BUSY_TIMEOUT_SECONDS = 10
_PRAGMAS = {
    "journal_mode": "wal",
    "journal_size_limit": wal.LIMIT_BYTES,
    "synchronous": "full",
    "foreign_keys": 1,
    "cache_size": -8192,
    "temp_store": "memory",
}
_WRITER_CACHE = -2048

# Before it a race at the reset of the WAL can corrupt a database (https://sqlite.org/wal.html#walresetbug).
_OLDEST_SQLITE = (3, 51, 3)

log = logs.get(__name__)


class SQLiteDatabase(apsw_ext.APSWDatabase, Database):  # type: ignore[misc]
    """A SQLite file. Each thread has a connection of its own.

    Args:
        vfs: The name of what SQLite reaches the file through. None: the operating system.
    """

    field_types = {**apsw_ext.APSWDatabase.field_types, "ID": "INTEGER"}  # noqa: RUF012 (as peewee's own)

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        if self.server_version < _OLDEST_SQLITE:
            version = apsw.sqlite_lib_version()
            raise RuntimeError(f"SQLite {version} can corrupt databases: install an apsw that carries 3.51.3 or newer")
        super().__init__(str(path), pragmas=_PRAGMAS, timeout=_BUSY_TIMEOUT_SECONDS, vfs=vfs)

    def _connect(self) -> apsw.Connection:
        connection: apsw.Connection = super()._connect()
        connection.convert_binding = _bindable
        return connection

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any:
        """As peewee's own, without its logs and hooks: they cost as much as a short query."""
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            return self.connection().execute(sql, params or ())

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads within see the same moment. Not within a transaction."""
        self.execute_sql("BEGIN")
        try:
            yield
        finally:
            # Some failures end it by themselves.
            if not self.connection().getautocommit():
                self.execute_sql("ROLLBACK")


def _bindable(cursor: object, number: int, value: object) -> str:
    """The history table of the migrations binds a datetime, which APSW takes not. Times of our own are integers."""
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"parameter {number} is a {type(value).__name__}, which no column takes")
    return str(value)


class Turnstile:
    """Lets the writers of several processes take turns at one database.

    SQLite's own lock is not fair: one of two busy writers may wait for seconds. Here each waits for the lock of the
    queue first, and keeps it only until it holds the lock of the database.
    """

    def __init__(self, path: Path) -> None:
        # A lock of a file does not tell threads of one process apart.
        self._threads = threading.Lock()
        self._queue = os.open(f"{path}.queue", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turn = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX)
            finally:
                fcntl.flock(self._queue, fcntl.LOCK_UN)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        os.close(self._queue)
        os.close(self._turn)


class _Job(NamedTuple):
    run: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    # Of the call that the change belongs to.
    context: contextvars.Context
    deadline: float

    def is_too_late(self) -> bool:
        """Whether nobody waits for the change any more."""
        # The clock of event loops.
        return self.future.cancelled() or time.monotonic() >= self.deadline


class _Answer(NamedTuple):
    job: _Job
    result: Any
    failure: Exception | None
    after: Sequence[Callable[[], None]] = ()


class SQLiteStore(Store):
    """The SQLite file of one service.

    Args:
        path: The SQLite file, made on first use.
        migrations_folder: Numbered migrations, applied where they were not yet (`schema.py`).
        on_commit: Called with the number of writes that each transaction made lasting, on the writer thread.
        on_log_size: Called after each transaction with the bytes of the write-ahead log, on the writer thread.
        vfs: As of `SQLiteDatabase`.

    Raises:
        MigrationFailed: the database could not be brought up to date.
    """

    def __init__(
        self,
        path: Path,
        migrations_folder: Path,
        on_commit: Callable[[int], None] = lambda writes: None,
        on_log_size: Callable[[int], None] = lambda size: None,
        vfs: str | None = None,
    ) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = SQLiteDatabase(path, vfs)
        self._turnstile = Turnstile(path)
        self._on_commit = on_commit
        self._wal = wal.WriteAheadLog(path, on_log_size)
        try:
            with self._turnstile:
                schema.bring_up_to_date(self._db, str(path), migrations_folder)
        except BaseException:
            self._db.close()
            self._turnstile.close()
            raise
        self._closed = False
        self._emptied = False
        # By the last transaction.
        self._committed_together = 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_jobs, name=f"{path.stem}-writer", daemon=True)
        self._writer.start()
        self._reader = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-reader")
        self._path = path
        self._leases: dict[str, int] = {}

    async def read(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        # A point read takes microseconds, less than handing it to another thread would.
        return query(self._db, *args, **kwargs)

    async def read_long(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, lambda: query(self._db, *args, **kwargs))

    async def write(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        if self._closed:
            raise errors.unavailable()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        call = current.get()
        recorded = None
        if call is not None and call.span is not None:
            recorded = call.span.writing(self._path.stem)
            change = recorded.timed(change, lambda: self._committed_together)
        deadline = math.inf if call is None else call.deadline
        context = contextvars.copy_context()
        self._jobs.put(_Job(lambda: change(self._db, *args, **kwargs), future, loop, context, deadline))
        if recorded is None:
            return await future
        with recorded:
            return await future

    def read_now(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        with self._db.atomic():
            return query(self._db, *args, **kwargs)

    def write_now(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        after: list[Callable[[], None]] = []
        with self._turnstile, self._transaction():
            result = contextvars.copy_context().run(run_change, lambda: change(self._db, *args, **kwargs), after)
        for callback in after:
            callback()
        return result

    def try_lease(self, name: str) -> bool:
        if name in self._leases:
            return True
        lease = os.open(f"{self._path}.{name}.lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lease)
            return False
        self._leases[name] = lease
        return True

    def is_leased(self, name: str) -> bool:
        lease = os.open(f"{self._path}.{name}.lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Given back at once: who wants it in this moment tries again.
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lease)
        return False

    def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        self._writer.join()
        self._reader.submit(self._db.close)
        self._reader.shutdown()
        self._db.close()
        self._turnstile.close()
        for lease in self._leases.values():
            os.close(lease)

    def _write_jobs(self) -> None:
        connection = None
        while (job := self._jobs.get()) is not None:
            try:
                if connection is not self._db.connection():
                    connection = self._db.connection()
                    # It reads little: most of what it needs is what was just written.
                    self._db.execute_sql(f"PRAGMA cache_size = {_WRITER_CACHE}")
                with self._turnstile:
                    self._commit(job)
                    # Those whose writes are made have their answers.
                    self._wal.keep_short(self._db.connection())
            except Exception:
                # Whatever it was: this thread goes on, or nothing would ever be written again.
                log.exception("writing failed")
                _send([_Answer(job, None, errors.unavailable())])
            if self._emptied:
                break
        self._db.close()

    def _commit(self, first: _Job) -> None:
        """Run `first` and whatever else is waiting in one transaction."""
        answers: list[_Answer] = []
        taken = [first]
        try:
            with self._transaction():
                job: _Job | None = first
                while job is not None:
                    answers.append(self._attempt(job))
                    job = self._waiting(len(taken))
                    if job is not None:
                        taken.append(job)
        except Exception as failure:
            log.error("commit failed", writes=len(taken), error=repr(failure))
            error = _storage_error(failure)
            answers = [_Answer(job, None, error) for job in taken]
        try:
            if made := sum(answer.failure is None for answer in answers):
                self._on_commit(made)
                self._committed_together = made
            _call_after(answers)
        finally:
            _send(answers)

    def _waiting(self, done: int) -> _Job | None:
        """The next job of this transaction, if there is one."""
        if done >= _BATCH_LIMIT:
            return None
        try:
            job = self._jobs.get_nowait()
        except queue.Empty:
            return None
        # Nothing comes after the mark with which the store closes.
        self._emptied = job is None
        return job

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute_sql("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute_sql("COMMIT")
        except BaseException:
            # SQLite ends the transaction by itself on some failures, a full disk for instance.
            if not self._db.connection().getautocommit():
                self._db.execute_sql("ROLLBACK")
            raise

    def _attempt(self, job: _Job) -> _Answer:
        """Run one job; what it raises undoes its own changes only."""
        if job.is_too_late():
            return _Answer(job, None, errors.deadline_exceeded())
        self._db.execute_sql("SAVEPOINT job")
        after: list[Callable[[], None]] = []
        try:
            result = job.context.run(run_change, job.run, after)
        except Exception as failure:
            if self._db.connection().getautocommit():
                raise
            self._db.execute_sql("ROLLBACK TO job")
            self._db.execute_sql("RELEASE job")
            if isinstance(failure, StopIteration):
                # A future takes none.
                failure = RuntimeError("a change raised StopIteration")
            return _Answer(job, None, _storage_error(failure) if _is_full(failure) else failure)
        self._db.execute_sql("RELEASE job")
        return _Answer(job, result, None, after)


def _call_after(answers: list[_Answer]) -> None:
    for answer in answers:
        for callback in answer.after:
            try:
                answer.job.context.run(callback)
            except Exception:
                log.exception("what follows a commit failed")


def _send(answers: list[_Answer]) -> None:
    """Resolve the futures of a batch, with one wake-up of each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer.job.loop, []).append(answer)
    for loop, its_answers in by_loop.items():
        # A loop that closes meanwhile has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, its_answers)


def _resolve(answers: list[_Answer]) -> None:
    for answer in answers:
        future = answer.job.future
        if future.done():
            continue
        if answer.failure is None:
            future.set_result(answer.result)
        else:
            future.set_exception(answer.failure)


def _is_full(failure: BaseException) -> bool:
    return isinstance(failure, peewee.OperationalError) and "full" in str(failure)


def _storage_error(failure: Exception) -> errors.Error:
    if _is_full(failure):
        return storage_full()
    return errors.unavailable()

"""A service's database on a PostgreSQL server: reads and changes on threads with a connection each.

Changes are transactions of the isolation level SERIALIZABLE, for store functions look first and then act, as if each
ran alone. Where two at once cannot have run one after the other the server lets one of them fail, and it is made again.
Each statement of a read sees what was committed before it, as in SQLite. Commits at the same time share a flush of the
server's log by themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Concatenate

import peewee

from chassis import errors, logs, postgres_database
from chassis.call import current
from chassis.postgres_database import (
    DEADLOCK,
    DISK_FULL,
    LONGEST_MILLISECONDS,
    QUERY_CANCELED,
    SERIALIZATION_FAILURE,
    UNIQUE_VIOLATION,
    PostgresDatabase,
    bring_up_to_date,
    told,
)
from chassis.postgres_leases import Leases
from chassis.settings import DatabaseAddress
from chassis.store import Arguments, Database, Result, Store, run_change, storage_full
from chassis.threads import Threads

# Of the connections of a process one is for long reads and one for leases.
_OTHER_CONNECTIONS = 2
# A change that fails so often because of others is given up.
_ATTEMPTS = 30
_LONGEST_RETRY_SECONDS = 0.05
# One that failed so often waits until no other such change of its process runs, but not for one that takes long: the
# threads that wait would be missing for all others.
_ATTEMPTS_AT_ONCE = 2
_LONGEST_WAIT_SECONDS = 0.2
# What a unique index refused may be what the change looked for before, and did not see yet.
_ATTEMPTS_OF_UNIQUE = 2
_RECONNECTS = 3

log = logs.get(__name__)


class _Again(Exception):
    """A change was undone, and is to be made once more."""


class PostgresStore(Store):
    """The PostgreSQL database of one service.

    Args:
        migrations_folder: Numbered migrations, applied where they were not yet (`schema.py`).
        on_commit: Called with 1 for each change that was made lasting, on a thread of the store.
        on_arrival: Called in the transaction of the first change on each connection: it may lead to another server than
            the last one, which took its place.
        connections: So many connections this process has at most.

    Raises:
        CannotConnect: the server does not let it in, or was away for too long.
        MigrationFailed: the database could not be brought up to date.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        migrations_folder: Path,
        on_commit: Callable[[int], None] = lambda writes: None,
        connections: int = 10,
        on_arrival: Callable[[Database], None] = lambda db: None,
    ) -> None:
        self._db = PostgresDatabase(address)
        self._on_commit = on_commit
        self._on_arrival = on_arrival
        self._closed = False
        writers = (connections - _OTHER_CONNECTIONS) // 2
        self._readers = Threads(connections - _OTHER_CONNECTIONS - writers, "postgres-reader")
        self._writers = ThreadPoolExecutor(writers, "postgres-writer")
        self._long_reader = ThreadPoolExecutor(1, "postgres-long-reader", self._be_patient)
        # Who waits for the answer of a long read.
        self._waiting: set[object] = set()
        self._long_reader_thread = 0
        self._one_by_one = threading.Lock()
        self._leases = Leases(self._db)
        try:
            self._long_reader.submit(bring_up_to_date, self._db, str(address), migrations_folder).result()
        except BaseException:
            self.close()
            raise

    async def read(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        if self._closed:
            raise errors.unavailable()
        return await self._readers.run(self._read, partial(query, self._db, *args, **kwargs))

    async def read_long(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        waiter = object()
        self._waiting.add(waiter)
        try:
            return await self._on_thread(self._long_reader, self._read, partial(query, self._db, *args, **kwargs))
        finally:
            self._waiting.remove(waiter)

    async def write(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        call = current.get()
        recorded = None
        if call is not None and call.span is not None:
            recorded = call.span.writing(self._db.name)
            change = recorded.timed(change, lambda: 1)
        abandoned = threading.Event()
        make = partial(self._change, abandoned=abandoned)
        try:
            with recorded or nullcontext():
                return await self._on_thread(self._writers, make, partial(change, self._db, *args, **kwargs))
        except asyncio.CancelledError:
            # One that has begun is undone, if it is not being committed.
            abandoned.set()
            raise

    def read_now(
        self,
        query: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        def read() -> Result:
            with self._db.snapshot():
                return query(self._db, *args, **kwargs)

        return self._long_reader.submit(self._read, read).result()

    def write_now(
        self,
        change: Callable[Concatenate[Database, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        context = contextvars.copy_context()
        make = partial(change, self._db, *args, **kwargs)
        return self._writers.submit(context.run, self._change, make, None, 0).result()

    def try_lease(self, name: str) -> bool:
        return self._leases.take(name)

    def is_leased(self, name: str) -> bool:
        return self.read_now(postgres_database.is_leased, name)

    def close(self) -> None:
        self._closed = True
        self._db.stop_waiting()
        if not self._waiting:
            # What runs still, runs for a call that is over.
            self._db.cancel(self._long_reader_thread)
        for executor in (self._writers, self._readers, self._long_reader):
            executor.shutdown()
        self._leases.close()
        self._db.close_all()

    def _be_patient(self) -> None:
        self._long_reader_thread = threading.get_ident()
        self._db.mine.longest = self._db.mine.patience = 0

    async def _on_thread(
        self,
        executor: ThreadPoolExecutor,
        run: Callable[[Callable[[], Result]], Result],
        work: Callable[[], Result],
    ) -> Result:
        if self._closed:
            raise errors.unavailable()
        # One that is cancelled before a thread takes it up does not begin.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(executor, context.run, run, work)

    def _read(self, query: Callable[[], Result]) -> Result:
        deadline = _deadline()
        for attempt in itertools.count(1):
            self._db.mine.failure = None
            if (left := deadline - time.monotonic()) <= 0:
                raise errors.deadline_exceeded()
            try:
                self._db.have_patience(left)
                return query()
            except peewee.PeeweeException as failure:
                if not self._db.is_lost():
                    raise self._judged(failure) from failure
                self._db.drop()
                if attempt >= _RECONNECTS:
                    raise self._given_up(failure) from None
        raise AssertionError("unreachable")

    def _change(
        self,
        change: Callable[[], Result],
        abandoned: threading.Event | None = None,
        longest: int = LONGEST_MILLISECONDS,
    ) -> Result:
        """Make a change, again and again if need be.

        Args:
            longest: The milliseconds that a statement may take of a change that belongs to no call; 0: any.
        """
        abandoned = abandoned or threading.Event()
        deadline = _deadline()
        lost = refused = 0
        with ExitStack() as turn:
            for attempt in itertools.count(1):
                if abandoned.is_set() or time.monotonic() >= deadline:
                    raise errors.deadline_exceeded()
                after: list[Callable[[], None]] = []
                try:
                    may_look_again = refused + 1 < _ATTEMPTS_OF_UNIQUE
                    result = self._attempt(change, abandoned, deadline, longest, after, may_look_again)
                    break
                except _Again as again:
                    refused += self._db.mine.failure == UNIQUE_VIOLATION
                    lost += self._db.is_lost()
                    if lost >= _RECONNECTS or attempt >= _ATTEMPTS:
                        raise self._given_up(again.__cause__ or again) from None
                    if attempt == _ATTEMPTS_AT_ONCE:
                        left = max(deadline - time.monotonic(), 0)
                        if self._one_by_one.acquire(timeout=min(left, _LONGEST_WAIT_SECONDS)):
                            turn.callback(self._one_by_one.release)
                    time.sleep(random.uniform(0, min(0.001 * 2**attempt, _LONGEST_RETRY_SECONDS)))
        self._on_commit(1)
        for callback in after:
            try:
                callback()
            except Exception:
                log.exception("what follows a commit failed")
        return result

    def _attempt(
        self,
        change: Callable[[], Result],
        abandoned: threading.Event,
        deadline: float,
        longest: int,
        after: list[Callable[[], None]],
        may_look_again: bool,
    ) -> Result:
        """Make a change, and commit it.

        Args:
            may_look_again: Whether what a unique index refuses is to be made once more.

        Raises:
            _Again: it was undone because of others, or because the connection broke before its end.
        """
        db, mine = self._db, self._db.mine
        mine.events, mine.failure = 0, None
        remaining = (deadline - time.monotonic()) * 1000
        if remaining < math.inf:
            longest = max(math.ceil(min(remaining, LONGEST_MILLISECONDS)), 1)
        try:
            db.command(f"BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL statement_timeout = {longest}")
            if not mine.has_changed:
                self._on_arrival(db)
            result = contextvars.copy_context().run(run_change, change, after)
            if mine.failure is not None:
                raise RuntimeError("a change went on after a statement had failed")
            if abandoned.is_set():
                raise errors.deadline_exceeded()
        except Exception as failure:
            db.undo()
            if mine.failure in (SERIALIZATION_FAILURE, DEADLOCK) or self._db.is_lost():
                raise _Again from failure
            if mine.failure == UNIQUE_VIOLATION and may_look_again:
                raise _Again from failure
            if isinstance(failure, StopIteration):
                # A future takes none.
                raise RuntimeError("a change raised StopIteration") from failure
            raise self._judged(failure) from None
        try:
            db.command("COMMIT")
        except Exception as failure:
            db.undo()
            if mine.failure in (SERIALIZATION_FAILURE, DEADLOCK):
                raise _Again from failure
            if db.is_lost():
                # Each is told: what follows a commit, a line for auditors among it, does not follow this one.
                log.error("a change may have been made: no answer to its commit", database=db.name, error=told(failure))
            else:
                db.complaints.make("commit failed", told(failure))
            judged = self._judged(failure)
            raise (judged if isinstance(judged, errors.Error) else errors.unavailable()) from failure
        mine.has_changed = True
        return result

    def _given_up(self, failure: BaseException) -> errors.Error:
        """What to tell of what was tried often enough."""
        # That the server is waited for the log tells already.
        if not self._db.is_away:
            self._db.complaints.make("calls given up", told(failure))
        return errors.unavailable()

    def _judged(self, failure: Exception) -> Exception:
        """What to tell of a failure."""
        if not isinstance(failure, peewee.PeeweeException):
            return failure
        if self._db.mine.failure == DISK_FULL:
            self._db.complaints.make("the disk of the database is full", told(failure))
            return storage_full()
        if self._db.mine.failure == QUERY_CANCELED:
            return errors.deadline_exceeded()
        return failure


def _deadline() -> float:
    """When the call under way ends, by the clock of event loops; infinite if there is none."""
    call = current.get()
    return math.inf if call is None else call.deadline

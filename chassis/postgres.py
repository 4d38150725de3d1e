"""A service's database on a PostgreSQL server: reads and changes on threads with a connection each.

Changes are transactions of the isolation level SERIALIZABLE, for store functions look first and then act, as if each
ran alone. Where two at once cannot have run one after the other the server lets one of them fail, and it is made again.
Reads are single statements, or a snapshot. Commits at the same time share a flush of the server's log by themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import math
import queue
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, NamedTuple

import peewee
import psycopg
from psycopg import conninfo, pq
from psycopg.types.numeric import Int8Dumper

from chassis import errors, logs, schema
from chassis.call import current
from chassis.settings import DatabaseAddress
from chassis.store import POSTGRESQL, Arguments, Database, Result, Store, run_change, storage_full

# Of the connections of a process one is for long reads and one for leases.
_OTHER_CONNECTIONS = 2
# How long a server may be away when a process starts.
_START_SECONDS = 20.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
# So long one connection waits until another is opened.
_LONGEST_TURN_SECONDS = 1.0
# A statement of a call without a deadline ends after so long.
_LONGEST_MILLISECONDS = 60_000
# One of a call that has less left may take so long: where it ends is not worth a statement that says so.
_SHORTEST_MILLISECONDS = 50
# So long a server is asked to end a statement.
_LONGEST_CANCEL_SECONDS = 1.0
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
# How often leases are asked for, and how long the answer holds.
_LEASE_SECONDS, _LEASE_PROOF_SECONDS = 0.25, 3.0
_MIGRATING = "migrating"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SERIALIZATION_FAILURE, _DEADLOCK, _UNIQUE_VIOLATION = "40001", "40P01", "23505"
_DISK_FULL, _QUERY_CANCELED, _NOT_ALLOWED = "53100", "57014", "42501"
# What the driver found out for itself about a statement, and did not send it: a text with a NUL, for instance.
_NOT_SENT = "not sent"
# The session ends with such a failure.
_ENDING = ("FATAL", "PANIC")
# The server stops or starts, or only answers reads: it is the former primary.
_AWAY = ("57P01", "57P02", "57P03", "25006")
_AWAY_LATELY = "the server was away a moment ago"
_SILENT = "the server has been asked for a connection and does not answer"
# What only a person can mend, as libpq says it, and a server that speaks English: with which SQLSTATE a server refuses
# connections, libpq keeps to itself. Where it is said otherwise it is told after some waiting in vain.
_PERMANENT = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "not permitted",
    "permission denied",
    "no pg_hba.conf entry",
    " certificate",
    "signature failure",
    "does not support SSL",
    " invalid ",
)
_CANNOT_CONNECT = "cannot connect to the database"
_CORRECT_IT = "Correct {setting}, or the server"
_START_IT = "Start the server, or correct {setting}"
_TRUST_IT = "Has its certificate expired, or is it not of an authority in sslrootcert? Correct {setting}, or the server"
_LET_IT_OWN = "Make the role in {setting} the owner of the database, or name there the one that is"
_SECONDS_BETWEEN_COMPLAINTS = 60.0
# A server that vanished is noticed within some 10 seconds.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "fallback_application_name": "insta",
}

log = logs.get(__name__)


class CannotConnect(Exception):
    """The server does not let the suite in, or is away. The text says why, without the password.

    Attributes:
        remedy: What to do about it, with {setting} where the caller is to name the setting of the address.
    """

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


class _Mine(threading.local):
    """What a thread knows of its transaction.

    Attributes:
        events: How many events it appended.
        failure: The SQLSTATE of the last statement that failed, or _NOT_SENT; "" if the connection did; None: none has.
        longest: The milliseconds that a statement of a call without a deadline may take; 0: any.
        patience: Those that a statement may take at the moment, outside of changes.
    """

    events = 0
    failure: str | None = None
    longest = _LONGEST_MILLISECONDS
    patience = _LONGEST_MILLISECONDS


class _Complaints:
    """What is wrong with a database, told in the log once a minute, however many calls meet it."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._made_at: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def make(self, event: str, error: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._made_at.get((event, error), -math.inf) < _SECONDS_BETWEEN_COMPLAINTS:
                return
            self._made_at[event, error] = now
        log.warning(event, database=self._database, error=error)

    def withdraw(self, event: str, news: str) -> None:
        """Tell that it is over, if it was told."""
        with self._lock:
            made = [complaint for complaint in self._made_at if complaint[0] == event]
            for complaint in made:
                del self._made_at[complaint]
        if made:
            log.info(news, database=self._database)


class PostgresDatabase(peewee.PostgresqlDatabase, Database):
    """A database of a PostgreSQL server. Each thread has a connection of its own.

    Attributes:
        name: What the server calls it.
    """

    dialect = POSTGRESQL
    field_types = {**peewee.PostgresqlDatabase.field_types, "ID": "BIGINT"}  # noqa: RUF012 (as peewee's own)

    def __init__(self, address: DatabaseAddress) -> None:
        super().__init__(str(address), prefer_psycopg3=True)
        self.mine = _Mine()
        self._state: Any
        self._parameters: dict[str, Any] = {**_DEFAULTS, **_parameters(address)}
        self.name = str(self._parameters["dbname"])
        self.complaints = _Complaints(str(address))
        # Each of a thread.
        self._opened: dict[psycopg.Connection[Any], int] = {}
        self._pause = 0.0
        self._next_try = -math.inf
        self._asking = threading.Lock()
        self._closing = threading.Event()

    def get_context_options(self) -> dict[str, Any]:
        return {**super().get_context_options(), "dialect": self.dialect}

    def connect(self, reuse_if_open: bool = False) -> bool:
        """As peewee's own. Of a server that is away one asks at a time, now and then, and no other waits meanwhile."""
        if not self._state.closed:
            return bool(super().connect(reuse_if_open))
        self.mine.failure = ""
        # Connections that are opened at once at a start wait for each other, but not for a server that is silent.
        if not self._asking.acquire(timeout=0 if self.is_away else _LONGEST_TURN_SECONDS):
            raise peewee.OperationalError(_AWAY_LATELY if self.is_away else _SILENT)
        try:
            if time.monotonic() < self._next_try:
                raise peewee.OperationalError(_AWAY_LATELY)
            return bool(super().connect())
        finally:
            self._asking.release()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = self._opened_connection()
        except psycopg.Error as failure:
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            self.complaints.make(_CANNOT_CONNECT, told(failure))
            raise
        else:
            self._pause = 0.0
            self.complaints.withdraw(_CANNOT_CONNECT, "connected to the database")
        finally:
            self._next_try = time.monotonic() + self._pause
        self.mine.failure = None
        self._opened[connection] = threading.get_ident()
        return connection

    def _opened_connection(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(**self._parameters, autocommit=True)
        except UnicodeError:
            raise psycopg.ProgrammingError("its host cannot be a name") from None
        # Or a number would have another type, and each statement another plan, by its size.
        connection.adapters.register_dumper(int, Int8Dumper)
        try:
            # Whatever is read has an index. On a small table the planner would rather read all of it, and a change that
            # did would have read what every other change writes. One of a row or two is read whole nevertheless, at a
            # cost that looks so high to the planner that it would compile the statement, for tens of milliseconds.
            # The limit comes last: a call without patience would have these fail, and the server look away.
            connection.execute(
                f"SET idle_in_transaction_session_timeout = {_LONGEST_MILLISECONDS};"
                " SET enable_seqscan = off; SET jit = off; SET client_encoding = 'UTF8';"
                f" SET statement_timeout = {self.mine.patience}"
            )
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_away(self) -> bool:
        """Whether the last attempt to connect failed."""
        return self._pause > 0

    def wait(self, seconds: float) -> bool:
        """Wait so long at least, until it makes sense to connect again. False: it does not any more."""
        return not self._closing.wait(max(self._next_try - time.monotonic(), seconds))

    def stop_waiting(self) -> None:
        """End `wait`, now and later."""
        self._closing.set()

    def have_patience(self, seconds: float) -> None:
        """Let statements outside of changes take so long; at most twice as long, or each call would have to say so."""
        milliseconds = self.mine.longest
        if seconds < math.inf:
            rounded = int(2 ** math.ceil(math.log2(max(seconds * 1000, _SHORTEST_MILLISECONDS))))
            milliseconds = min(rounded, milliseconds or rounded)
        if milliseconds != self.mine.patience:
            self.mine.patience = milliseconds
            if self._state.closed:
                return
            try:
                self.command(f"SET statement_timeout = {milliseconds}")
            except peewee.PeeweeException:
                # The limit of before may have ended this statement, and would end those to come.
                self.mine.failure = ""
                raise

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Any:
        """As peewee's own, without its logs and hooks; it remembers what failed."""
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            try:
                return self.connection().execute(sql, params or None)
            except psycopg.Error as failure:
                self.mine.failure = _state_of(failure)
                raise

    def next_event(self) -> int:
        number = self.mine.events
        self.mine.events += 1
        return number

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            self.undo()

    def command(self, text: str) -> None:
        """Run what is no query, one statement or several."""
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
            try:
                self.connection().execute(text, prepare=False)
            except psycopg.Error as failure:
                self.mine.failure = _state_of(failure)
                raise

    def is_lost(self) -> bool:
        """Whether what failed last on this thread was its connection, or the server on its other end."""
        return self.mine.failure == "" or self.mine.failure in _AWAY

    def undo(self) -> None:
        """End the transaction, if there is one, and whatever happened to it. A connection that is of no use goes."""
        if self._state.closed:
            return
        status = self._state.conn.pgconn.transaction_status
        if status != pq.TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                self._state.conn.execute("ROLLBACK", prepare=False)
        if self.mine.failure in _AWAY or self._state.conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self.drop()

    def drop(self) -> None:
        """Close the connection of this thread; its next statement opens another."""
        connection = None if self._state.closed else self._state.conn
        self._state.reset()
        if connection is not None:
            self._opened.pop(connection, None)
            connection.close()

    def cancel(self, thread: int) -> None:
        """End the statement of another thread, if it runs one, and tell it so."""
        for connection, owner in tuple(self._opened.items()):
            if owner == thread:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_LONGEST_CANCEL_SECONDS)

    def close_all(self) -> None:
        """Close the connections of all threads, which do nothing any more."""
        self._state.reset()
        for connection in tuple(self._opened):
            connection.close()
        self._opened.clear()


def connect(address: DatabaseAddress) -> PostgresDatabase:
    """A database for a command that serves no calls: its statements may take any time.

    Raises:
        CannotConnect: the server does not let it in, or is away.
    """
    db = PostgresDatabase(address)
    db.mine.longest = db.mine.patience = 0
    try:
        db.connect()
    except peewee.PeeweeException as failure:
        why = told(failure)
        raise CannotConnect(why, _remedy(failure, why) or _START_IT) from None
    return db


@contextmanager
def starts_held(db: PostgresDatabase) -> Iterator[None]:
    """Let nobody else change the schema: a suite that starts on the database waits."""
    key = _key(_MIGRATING)
    db.execute_sql("SELECT pg_advisory_lock(%s)", (key,))
    try:
        yield
    finally:
        # A connection that broke has given it back.
        with suppress(peewee.PeeweeException):
            db.execute_sql("SELECT pg_advisory_unlock(%s)", (key,))


class _Again(Exception):
    """A change was undone, and is to be made once more."""


class PostgresStore(Store):
    """The PostgreSQL database of one service.

    Args:
        migrations_folder: Numbered migrations, applied where they were not yet (`schema.py`).
        on_commit: Called with 1 for each change that was made lasting, on a thread of the store.
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
    ) -> None:
        self._db = PostgresDatabase(address)
        self._on_commit = on_commit
        self._closed = False
        writers = (connections - _OTHER_CONNECTIONS) // 2
        self._readers = _Threads(connections - _OTHER_CONNECTIONS - writers, "postgres-reader")
        self._writers = ThreadPoolExecutor(writers, "postgres-writer")
        self._long_reader = ThreadPoolExecutor(1, "postgres-long-reader", self._be_patient)
        # Who waits for the answer of a long read.
        self._waiting: set[object] = set()
        self._long_reader_thread = 0
        self._one_by_one = threading.Lock()
        self._leases = _Leases(self._db)
        try:
            self._long_reader.submit(_bring_up_to_date, self._db, str(address), migrations_folder).result()
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
        return self._writers.submit(context.run, self._change, partial(change, self._db, *args, **kwargs)).result()

    def try_lease(self, name: str) -> bool:
        return self._leases.take(name)

    def is_leased(self, name: str) -> bool:
        return self.read_now(is_leased, name)

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

    def _change(self, change: Callable[[], Result], abandoned: threading.Event | None = None) -> Result:
        abandoned = abandoned or threading.Event()
        deadline = _deadline()
        lost = refused = 0
        with ExitStack() as turn:
            for attempt in itertools.count(1):
                if abandoned.is_set() or time.monotonic() >= deadline:
                    raise errors.deadline_exceeded()
                after: list[Callable[[], None]] = []
                try:
                    result = self._attempt(change, abandoned, deadline, after, refused + 1 < _ATTEMPTS_OF_UNIQUE)
                    break
                except _Again as again:
                    refused += self._db.mine.failure == _UNIQUE_VIOLATION
                    if self._db.is_lost():
                        self._db.drop()
                        lost += 1
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
        remaining = min((deadline - time.monotonic()) * 1000, _LONGEST_MILLISECONDS)
        try:
            db.command(
                f"BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL statement_timeout = {max(math.ceil(remaining), 1)}"
            )
            result = contextvars.copy_context().run(run_change, change, after)
            if mine.failure is not None:
                raise RuntimeError("a change went on after a statement had failed")
            if abandoned.is_set():
                raise errors.deadline_exceeded()
        except Exception as failure:
            db.undo()
            if mine.failure in (_SERIALIZATION_FAILURE, _DEADLOCK) or self._db.is_lost():
                raise _Again from failure
            if mine.failure == _UNIQUE_VIOLATION and may_look_again:
                raise _Again from failure
            if isinstance(failure, StopIteration):
                # A future takes none.
                raise RuntimeError("a change raised StopIteration") from failure
            raise self._judged(failure) from None
        try:
            db.command("COMMIT")
        except Exception as failure:
            db.undo()
            if mine.failure in (_SERIALIZATION_FAILURE, _DEADLOCK):
                raise _Again from failure
            db.complaints.make("commit failed", told(failure))
            if self._db.is_lost():
                db.drop()
            judged = self._judged(failure)
            raise (judged if isinstance(judged, errors.Error) else errors.unavailable()) from failure
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
        if self._db.mine.failure == _DISK_FULL:
            self._db.complaints.make("the disk of the database is full", told(failure))
            return storage_full()
        if self._db.mine.failure == _QUERY_CANCELED:
            return errors.deadline_exceeded()
        return failure


class _Job(NamedTuple):
    """Work for a thread, and who waits for it."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context


class _Answer(NamedTuple):
    """What came of it."""

    future: asyncio.Future[Any]
    result: Any
    failure: BaseException | None


class _Threads:
    """Threads that work, each in the context of who waits for it.

    To hand a read to a ThreadPoolExecutor takes about as long as the read itself, and here half of that: all answers
    that are there when an event loop wakes up are given at once.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Of loops that are about to wake up.
        self._answers: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        self._answering = threading.Lock()
        self._threads = [threading.Thread(target=self._work, name=f"{name}_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Callable[[], Result]], Result], query: Callable[[], Result]) -> Result:
        """Do something on a thread. What is cancelled before a thread takes it up does not begin."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put(_Job(partial(work, query), future, loop, contextvars.copy_context()))
        return await future

    def shutdown(self) -> None:
        """Finish what was begun or waits."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._do(self._jobs.get()):
            # Here nothing is kept of what was read while there is nothing to do.
            pass

    def _do(self, job: _Job | None) -> bool:
        """Do a job. False: it was the last."""
        if job is None:
            return False
        if job.future.cancelled():
            return True
        result = None
        failure: BaseException | None = None
        try:
            result = job.context.run(job.run)
        except StopIteration as raised:
            # A future takes none.
            failure = RuntimeError("a read raised StopIteration")
            failure.__cause__ = raised
        except BaseException as raised:
            failure = raised
        self._tell(job.loop, _Answer(job.future, result, failure))
        return True

    def _tell(self, loop: asyncio.AbstractEventLoop, answer: _Answer) -> None:
        with self._answering:
            told = self._answers.get(loop)
            if told is not None:
                told.append(answer)
                return
            self._answers[loop] = [answer]
        try:
            loop.call_soon_threadsafe(self._give, loop)
        except RuntimeError:
            # It is closed: nobody waits.
            with self._answering:
                self._answers.pop(loop)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._answering:
            answers = self._answers.pop(loop)
        for future, result, failure in answers:
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


class _Leases:
    """Advisory locks of a session, on a connection that is kept for nothing else.

    They end with the connection, on the server at once: so a lease counts only while the server answers on it. For a
    moment two processes may believe that they have it: the offsets that they store tell them apart (`consumer.py`).
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._wanted: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        self._proven_at = float("-inf")
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Whether this process has a lease. It is asked for every now and then, from the first time on, by a thread."""
        if name not in self._wanted:
            with self._changed:
                self._wanted |= {name}
                if self._thread is None:
                    self._thread = threading.Thread(target=self._keep, name="postgres-leases", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        return name in self._held and time.monotonic() - self._proven_at < _LEASE_PROOF_SECONDS

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        tried: frozenset[str] = frozenset()
        while not self._stopping:
            tried = self._wanted
            try:
                self._prove(tried)
            except peewee.PeeweeException as failure:
                if self._held:
                    log.warning("leases lost with the connection to the database", error=told(failure))
                self._held = frozenset()
                self._database.drop()
            with self._changed:
                if tried == self._wanted and not self._stopping:
                    self._changed.wait(_LEASE_SECONDS)
        self._database.drop()

    def _prove(self, wanted: frozenset[str]) -> None:
        """Ask for what is wanted, and see that the server is there to keep what is held."""
        asked_at = time.monotonic()
        missing = wanted - self._held
        if not missing:
            self._database.execute_sql("SELECT 1")
        for name in missing:
            ((locked,),) = self._database.execute_sql("SELECT pg_try_advisory_lock(%s)", (_key(name),)).fetchall()
            if locked:
                self._held |= {name}
        self._proven_at = asked_at


def _key(name: str) -> int:
    """The advisory lock of a name. Locks of one database are no locks of another."""
    return zlib.crc32(f"insta {name}".encode())


def is_leased(db: Database, name: str) -> bool:
    """Whether some process has a lease at the moment."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0"
        " AND objid = %s::bigint::oid AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    return bool(db.execute_sql(query, (_key(name),)).fetchall()[0][0])


def _bring_up_to_date(db: PostgresDatabase, name: str, folder: Path) -> None:
    """Connect, and apply what is new in the schema. A server that is away, or goes away meanwhile, is waited for.

    Raises:
        CannotConnect: it does not answer within `_START_SECONDS`, or it refuses.
        MigrationFailed: a migration did.
    """
    end = time.monotonic() + _START_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            db.connect(reuse_if_open=True)
            _migrate(db, name, folder)
            return
        except (peewee.PeeweeException, schema.MigrationFailed) as failure:
            cause = failure.__cause__ if isinstance(failure, schema.MigrationFailed) else failure
            why = told(cause or failure)
            db.drop()
            if db.mine.failure == _NOT_ALLOWED:
                raise CannotConnect(f"its role may not make or change tables ({why})", _LET_IT_OWN) from None
            if not db.is_lost():
                raise
            if remedy := _remedy(cause, why):
                raise CannotConnect(why, remedy) from None
            if time.monotonic() >= end:
                raise CannotConnect(why, _START_IT) from None
        if not db.is_away:
            db.complaints.make("waiting for the database", why)
        if not db.wait(pause):
            raise CannotConnect(why, _START_IT)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _remedy(failure: BaseException | None, why: str) -> str:
    """What to do about a server that does not let the suite in; "" if it may do so in a moment."""
    # Some options are read by the driver itself.
    if isinstance(failure, peewee.ProgrammingError) or any(text in why for text in _PERMANENT):
        return _TRUST_IT if "SSL error" in why else _CORRECT_IT
    return ""


def _migrate(db: PostgresDatabase, name: str, folder: Path) -> None:
    """Apply what is new in the schema: of several processes at once, one does.

    CockroachDB has no advisory locks: there a table of locks would have to take their place, here and in `_Leases`.
    """
    with starts_held(db):
        schema.bring_up_to_date(db, name, folder)


def _parameters(address: DatabaseAddress) -> dict[str, Any]:
    """What an address says, as libpq knows it."""
    try:
        return conninfo.conninfo_to_dict(address.url)
    except psycopg.ProgrammingError as failure:
        # Of what cannot be read, it tells parts that may be the password's.
        known = str(failure).startswith("invalid URI query parameter")
        text = str(failure).strip() if known else "PostgreSQL cannot read this address"
        raise CannotConnect(text, _CORRECT_IT) from None


def told(failure: BaseException) -> str:
    """What a failure says, in a line, and without the values of rows."""
    cause = failure.args[0] if failure.args and isinstance(failure.args[0], psycopg.Error) else failure
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    # What follows on other lines is advice, of which some would undo what was set.
    line, *_ = (primary or str(cause) or repr(cause)).splitlines()
    return line.removeprefix("connection failed: ").strip()


def _state_of(failure: psycopg.Error) -> str:
    """The SQLSTATE of a failure, or _NOT_SENT; "" if it is, or ends, that of the connection."""
    if failure.diag.severity_nonlocalized in _ENDING:
        return ""
    of_connection = isinstance(failure, (psycopg.OperationalError, psycopg.InterfaceError))
    return failure.sqlstate or ("" if of_connection else _NOT_SENT)


def _deadline() -> float:
    """When the call under way ends, by the clock of event loops; infinite if there is none."""
    call = current.get()
    return math.inf if call is None else call.deadline

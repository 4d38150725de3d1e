"""A database of a PostgreSQL server: connections, one for each thread, what their failures mean, and the schema."""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
import psycopg
from psycopg import conninfo, pq
from psycopg.types.numeric import Int8Dumper

from chassis import logs, schema
from chassis.settings import DatabaseAddress
from chassis.store import POSTGRESQL, Database

# How long a server may be away when a process starts.
_START_SECONDS = 20.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
# So long one connection waits until another is opened.
_LONGEST_TURN_SECONDS = 1.0
# A statement of a call without a deadline ends after so long.
LONGEST_MILLISECONDS = 60_000
# One of a call that has less left may take so long: where it ends is not worth a statement that says so.
_SHORTEST_MILLISECONDS = 50
# So long a server is asked to end a statement.
_LONGEST_CANCEL_SECONDS = 1.0
_MIGRATING = "migrating"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
SERIALIZATION_FAILURE, DEADLOCK, UNIQUE_VIOLATION = "40001", "40P01", "23505"
DISK_FULL, QUERY_CANCELED, _NOT_ALLOWED = "53100", "57014", "42501"
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
    # Of several hosts the primary; what a standby would answer to reads may be old.
    "target_session_attrs": "read-write",
}
# So does the server notice: until then a machine that vanished has its leases and its transactions.
_SERVERS_KEEPALIVES = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;"
    " SET tcp_user_timeout = 10000"
)

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
        has_changed: Whether a change was made on its connection.
    """

    events = 0
    failure: str | None = None
    longest = LONGEST_MILLISECONDS
    patience = LONGEST_MILLISECONDS
    has_changed = False


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
        self.mine.has_changed = False
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
                f"SET idle_in_transaction_session_timeout = {LONGEST_MILLISECONDS}; {_SERVERS_KEEPALIVES};"
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
                self._note(failure)
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
                self._note(failure)
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
        if self.is_lost() or self._state.conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self.drop()

    def drop(self) -> None:
        """Close the connection of this thread; its next statement opens another."""
        connection = None if self._state.closed else self._state.conn
        self._state.reset()
        if connection is not None:
            self._opened.pop(connection, None)
            connection.close()

    def _note(self, failure: psycopg.Error) -> None:
        """Remember what failed, and have it say no more than what may be in a log: not the values of rows."""
        self.mine.failure = _state_of(failure)
        failure.args = (told(failure),)

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
    key = advisory_lock(_MIGRATING)
    db.execute_sql("SELECT pg_advisory_lock(%s)", (key,))
    try:
        yield
    finally:
        # A connection that broke has given it back.
        with suppress(peewee.PeeweeException):
            db.execute_sql("SELECT pg_advisory_unlock(%s)", (key,))


def is_leased(db: Database, name: str) -> bool:
    """Whether some process has a lease at the moment."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0"
        " AND objid = %s::bigint::oid AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    return bool(db.execute_sql(query, (advisory_lock(name),)).fetchall()[0][0])


def bring_up_to_date(db: PostgresDatabase, name: str, folder: Path) -> None:
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

    CockroachDB has no advisory locks: there a table of locks would have to take their place, here and of leases.
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


def advisory_lock(name: str) -> int:
    """The advisory lock of a name. Locks of one database are no locks of another."""
    return zlib.crc32(f"insta {name}".encode())

"""Moves the database of one service: from a file to a PostgreSQL server, or back.

Whatever ends it, nothing is half moved; only where the connection breaks while all is being committed, nobody knows at
once whether it was. A database on a server is filled in one transaction; a file takes its place
when it is whole. Meanwhile nobody changes the database that is read, nor starts on either.

Rows are moved as they are: what is secret, sessions and answers to retries go with them. Only the name of the event log
changes, so that those who read it go on where they were, and notice if the old database goes on as well (`events.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import peewee
from rich.console import Console

from chassis import background, events, postgres_database, schema
from chassis.models import go_on_after, last_ids
from chassis.service import Service
from chassis.settings import DatabaseAddress, database_variable
from chassis.sqlite import SQLiteDatabase, Turnstile
from chassis.store import Database
from suite import table_copies
from suite.backup import schema_of, sync
from suite.databases import require_whole
from suite.progress import advancing
from suite.table_copies import HISTORY, Content, Table

_SUFFIXES = ("", "-wal", "-shm")
# A server of before 14 notices that the command was killed when it has done what it is at.
_NOTICE_DEATH = "SELECT set_config(name, '1s', true) FROM pg_settings WHERE name = 'client_connection_check_interval'"
_LOG = events.LoggedEvent._meta.table_name


@dataclass(frozen=True)
class Move:
    """A database, and where it is moved.

    Attributes:
        file: Of SQLite.
        address: Of the database on a server.
        to_server: From the file to the server. False: back.
    """

    service: Service
    file: Path
    address: DatabaseAddress
    to_server: bool

    @property
    def source(self) -> str:
        """What to call the database that is read."""
        return str(self.file if self.to_server else self.address)

    @property
    def target(self) -> str:
        """What to call the one that is filled."""
        return str(self.address if self.to_server else self.file)

    def run(self, console: Console) -> dict[str, Content]:
        """Move all rows, and compare them. What each table holds at both ends.

        Raises:
            click.ClickException: it cannot be moved, or was not moved well; says why. Nothing has changed.
            postgres_database.CannotConnect, schema.MigrationFailed: as they say.
        """
        if self.to_server:
            with _file_to_read(self) as source, _server_to_fill(self) as target:
                return _carry(source, target, table_copies.tables_of(target), self.service.name, console)
        with _server_to_read(self) as source, _file_to_fill(self) as target:
            moved = _carry(source, target, table_copies.tables_of(source), self.service.name, console)
            # One that had just started when the move began could not be seen yet.
            _require_no_suite(source, self)
            return moved


def _carry(source: Database, target: Database, tables: list[Table], name: str, console: Console) -> dict[str, Content]:
    counts = {table.name: table_copies.count(source, table) for table in tables}
    with advancing(console, f"{name}: moved", sum(counts.values())) as moved:
        told = {table.name: table_copies.copy(source, target, table, moved) for table in tables}
    with advancing(console, f"{name}: compared", sum(counts.values())) as compared:
        found = {table.name: table_copies.content(target, table, compared) for table in tables}
    for table, count in counts.items():
        if not (count == told[table].rows and told[table] == found[table]):
            raise click.ClickException(
                f"the {name} database was not moved: of the table {table} there are {count:,} rows, and"
                f" {found[table].rows:,} arrived, or arrived otherwise."
            )
    ids = last_ids(source)
    # On a server the offsets of events are no ids that it assigns.
    ids[_LOG] = max(ids[_LOG], events.state(source).head_offset)
    go_on_after(target, ids)
    events.carry_on(target)
    return told


@contextmanager
def _file_to_read(move: Move) -> Iterator[Database]:
    db = SQLiteDatabase(move.file)
    turnstile = Turnstile(move.file)
    # As a writer, so that nobody else is one.
    with closing(turnstile), closing(db), turnstile, db.atomic("IMMEDIATE"):
        _require_schema(db, move)
        yield db


@contextmanager
def _file_to_fill(move: Move) -> Iterator[Database]:
    if move.file.exists():
        raise click.ClickException(f"there is a {move.file} already. Move it away, or name another folder with --to.")
    partial = move.file.with_name(f"{move.file.name}.moving")
    _remove(partial)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(SQLiteDatabase(partial)) as db:
            schema.bring_up_to_date(db, str(move.file), _migrations(move))
            # Once, when it is whole.
            db.execute_sql("PRAGMA synchronous = off")
            yield db
        require_whole(partial, move.file)
        sync(partial)
        partial.rename(move.file)
        sync(move.file.parent)
    finally:
        _remove(partial)


@contextmanager
def _server_to_read(move: Move) -> Iterator[Database]:
    with _alone_on_server(move) as db:
        if not db.get_tables():
            raise click.ClickException(f"there is nothing in {move.address}.")
        _require_schema(db, move)
        # Not a snapshot: it would be older than the lock, and not know what was committed while that was waited for.
        with _transaction(db, "BEGIN"):
            _lock(db, "SHARE")
            if not events.is_at_home(db):
                raise click.ClickException(
                    f"{move.address} was restored from a copy. Start the suite on it once before it is moved."
                )
            yield db


@contextmanager
def _server_to_fill(move: Move) -> Iterator[Database]:
    with _alone_on_server(move) as db:
        there = db.get_tables()
        if there and (HISTORY not in there or _unknown(db, move)):
            raise click.ClickException(
                f"{move.address} is no empty database of the {move.service.name} service. Make another: CREATE DATABASE"
            )
        schema.bring_up_to_date(db, str(move.address), _migrations(move))
        with _transaction(db, "BEGIN"):
            _lock(db, "ACCESS EXCLUSIVE")
            tables = table_copies.tables_of(db)
            if not all(table_copies.is_empty(db, table) for table in tables):
                raise click.ClickException(
                    f"there are data in {move.address} already. Make another database: CREATE DATABASE"
                )
            # What a transaction adds after it, takes no room when it is undone.
            db.command(f"TRUNCATE {_listed(tables)}")
            yield db
            db.command("ANALYZE")
            _commit(db, move)


@contextmanager
def _alone_on_server(move: Move) -> Iterator[postgres_database.PostgresDatabase]:
    db = postgres_database.connect(move.address)
    try:
        with postgres_database.starts_held(db):
            _require_no_suite(db, move)
            yield db
    finally:
        db.close_all()


def _require_no_suite(db: Database, move: Move) -> None:
    if postgres_database.is_leased(db, background.ERASURE):
        raise click.ClickException(f"a suite is running on {move.address}. Stop it.")


@contextmanager
def _transaction(db: postgres_database.PostgresDatabase, begin: str) -> Iterator[None]:
    """A transaction that is undone, unless it is committed within."""
    db.command(f"{begin}; SET LOCAL idle_in_transaction_session_timeout = 0; {_NOTICE_DEATH}")
    try:
        yield
    finally:
        db.undo()


def _commit(db: postgres_database.PostgresDatabase, move: Move) -> None:
    try:
        db.command("COMMIT")
    except peewee.PeeweeException as failure:
        if not db.is_lost():
            raise
        raise click.ClickException(
            f"the connection to {move.address} broke while all was being committed"
            f" ({postgres_database.told(failure)}): nobody knows whether the {move.service.name} database was moved."
            " Run the command again: if it says that there are data already, it was."
        ) from None


def _lock(db: postgres_database.PostgresDatabase, mode: str) -> None:
    db.command(f"LOCK TABLE {_listed(table_copies.tables_of(db))} IN {mode} MODE")


def _listed(tables: list[Table]) -> str:
    return ", ".join(f'"{table.name}"' for table in tables)


def _require_schema(db: Database, move: Move) -> None:
    """Refuse to read a database whose tables are not those of this version."""
    try:
        unknown, missing = _unknown(db, move), _known(move) - schema_of(db)
    except peewee.DatabaseError:
        raise click.ClickException(f"{move.source} is no database of the {move.service.name} service.") from None
    if unknown:
        raise click.ClickException(
            f"{move.source} was made by a newer version of insta ({min(unknown)}). Move it with that one."
        )
    if missing:
        # With the setting the command would work on the server.
        how = f"insta migrate, without {database_variable(move.service.name)}" if move.to_server else "insta migrate"
        raise click.ClickException(
            f"{move.source} was made by an older version of insta ({min(missing)} is missing). Bring it up to date"
            f" first: {how}"
        )


def _unknown(db: Database, move: Move) -> set[str]:
    """Migrations that a database went through and this version does not know."""
    return schema_of(db) - _known(move)


def _known(move: Move) -> set[str]:
    return {path.stem for path in _migrations(move).glob("[0-9]*.py")}


def _migrations(move: Move) -> Path:
    folder = move.service.migrations
    assert folder is not None
    return folder


def _remove(partial: Path) -> None:
    """Remove a file that never became whole, if there is one."""
    for suffix in _SUFFIXES:
        Path(f"{partial}{suffix}").unlink(missing_ok=True)

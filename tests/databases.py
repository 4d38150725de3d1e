"""The databases of a running suite, looked into from outside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import psycopg

from chassis import events
from chassis.settings import DatabaseAddress
from chassis.sqlite import SQLiteDatabase, SQLiteStore, Turnstile
from chassis.store import Database, Store
from tests import postgres_server
from tests.running import DATABASES, ON_POSTGRESQL, RunningSuite, database_urls

# Which columns of which database hold the id of a user, and of a post.
USER_COLUMNS = {
    "users": {"user": ("id",), "session": ("user_id",), "reply": ("caller_id", "about_id")},
    "posts": {
        "post": ("author_id",),
        "author_counter": ("author_id",),
        "media": ("owner_id", "avatar_of"),
        "upload": ("owner_id",),
        "discard": ("owner_id",),
        "reply": ("caller_id", "about_id"),
    },
    "social": {
        "like": ("user_id",),
        "comment": ("author_id",),
        "follow": ("follower_id", "followee_id"),
        "user_counter": ("user_id",),
        "reply": ("caller_id", "about_id"),
    },
}
POST_COLUMNS = {
    "posts": {"post": ("id",), "media": ("post_id",)},
    "social": {"like": ("post_id",), "comment": ("post_id",), "post_counter": ("post_id",)},
}
# What counts; in which database, and the rows that it counts.
COUNTERS = {
    "SELECT author_id, post_count FROM author_counter": ("posts", "SELECT author_id, COUNT(*) FROM post GROUP BY 1"),
    "SELECT post_id, like_count FROM post_counter": ("social", 'SELECT post_id, COUNT(*) FROM "like" GROUP BY 1'),
    "SELECT post_id, comment_count FROM post_counter": ("social", "SELECT post_id, COUNT(*) FROM comment GROUP BY 1"),
    "SELECT user_id, follower_count FROM user_counter": (
        "social",
        "SELECT followee_id, COUNT(*) FROM follow GROUP BY 1",
    ),
    "SELECT user_id, followee_count FROM user_counter": (
        "social",
        "SELECT follower_id, COUNT(*) FROM follow GROUP BY 1",
    ),
}


def open_store(path: Path, migrations: Path, on_commit: Callable[[int], None] = lambda writes: None) -> Store:
    """The store of a file, or of the database on the server that takes its place."""
    if not ON_POSTGRESQL:
        return SQLiteStore(path, migrations, on_commit)
    from chassis.postgres import PostgresStore

    return PostgresStore(DatabaseAddress(postgres_server.address(path)), migrations, on_commit, connections=6)


def open_database(path: Path) -> Database:
    """What queries run on, apart from any store."""
    if not ON_POSTGRESQL:
        return SQLiteDatabase(path)
    from chassis.postgres_database import PostgresDatabase

    return PostgresDatabase(DatabaseAddress(postgres_server.address(path)))


def copied(environment: Mapping[str, str], data: Path) -> dict[str, str]:
    """Copy all that a suite has stored which is stopped. The environment of the copy."""
    shutil.copytree(environment["INSTA_DATA"], data)
    if not ON_POSTGRESQL:
        return {**environment, "INSTA_DATA": str(data)}
    for name in DATABASES:
        postgres_server.copy(Path(environment["INSTA_DATA"]) / f"{name}.db", data / f"{name}.db")
    return {**environment, "INSTA_DATA": str(data), **database_urls(data)}


def name_of(suite: RunningSuite, service: str) -> str:
    """What the database of a service is called."""
    return postgres_server.name_of(path_of(suite, service)) if ON_POSTGRESQL else service


def place(path: Path) -> str:
    """How a store calls its database."""
    return str(DatabaseAddress(postgres_server.address(path))) if ON_POSTGRESQL else str(path)


def sql(text: str) -> str:
    """SQL with a question mark for each value, as the database at hand takes it."""
    return text.replace("?", "%s") if ON_POSTGRESQL else text


class Connection:
    """A connection of a test's own, to the database of a file or at an address. As a context it is a transaction."""

    def __init__(self, place: Path | str) -> None:
        self._connection: Any
        self._on_postgresql = ON_POSTGRESQL or isinstance(place, str)
        if self._on_postgresql:
            address = place if isinstance(place, str) else postgres_server.address(place)
            self._connection = psycopg.connect(address, autocommit=True)
        else:
            self._connection = apsw.Connection(str(place))
            self._connection.set_busy_timeout(10_000)

    def execute(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, with a question mark for each value. Its rows."""
        cursor = self._connection.execute(self._sql(text), values or None)
        if self._on_postgresql and cursor.description is None:
            return []
        return list(cursor)

    def executemany(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of many rows of values."""
        self._connection.cursor().executemany(self._sql(text), rows)

    def __enter__(self) -> Connection:
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if self._on_postgresql else "BEGIN")
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self.execute("ROLLBACK" if failed else "COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _sql(self, text: str) -> str:
        return text.replace("?", "%s") if self._on_postgresql else text


def settle(log: Store) -> None:
    """Wait until an event log holds back nothing: on a server there may be older transactions of others under way."""
    while log.read_now(events.read, 0, 0, 1).head_offset != log.read_now(events.state).head_offset:
        time.sleep(0.01)


@contextmanager
def writers_held(path: Path) -> Iterator[None]:
    """Let nobody write to a database, and everybody read."""
    if not ON_POSTGRESQL:
        turnstile = Turnstile(path)
        try:
            with turnstile:
                yield
        finally:
            turnstile.close()
        return
    with closing(Connection(path)) as holder, holder:
        tables = [
            f'"{name}"' for (name,) in holder.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        holder.execute(f"LOCK TABLE {', '.join(tables)} IN EXCLUSIVE MODE")
        yield


def path_of(suite: RunningSuite, service: str) -> Path:
    """The database of a service."""
    return Path(suite.environment["INSTA_DATA"]) / f"{service}.db"


def place_of(suite: RunningSuite, service: str) -> Path | str:
    """The database of a service: its file, or its address where it is on a server."""
    return suite.environment.get(f"INSTA_{service.upper()}_DATABASE_URL") or path_of(suite, service)


def rows(suite: RunningSuite, service: str, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """What a query finds in the database of a service."""
    with closing(Connection(place_of(suite, service))) as database:
        return database.execute(query, values)


def everything(path: Path) -> Iterator[bytes]:
    """All that is stored in a database, in whatever form."""
    if not ON_POSTGRESQL:
        yield from (file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
        return
    with psycopg.connect(postgres_server.address(path)) as connection, connection.cursor() as cursor:
        tables = cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with cursor.copy(f'COPY "{table}" TO STDOUT (FORMAT BINARY)') as copy:
                yield b"".join(map(bytes, copy))


def left_of_users(suite: RunningSuite, user_ids: Iterable[int]) -> dict[str, int]:
    """How many rows refer to one of these users, by table and column; those without any are left out."""
    return _left(suite, USER_COLUMNS, user_ids)


def left_of_posts(suite: RunningSuite, post_ids: Iterable[int]) -> dict[str, int]:
    """How many rows refer to one of these posts, by table and column; those without any are left out."""
    return _left(suite, POST_COLUMNS, post_ids)


def wrong_counters(suite: RunningSuite) -> dict[str, set[tuple[Any, ...]]]:
    """Counters that differ from the rows that they count."""
    return counted_wrongly({service: place_of(suite, service) for service in ("posts", "social")})


def counted_wrongly(places: Mapping[str, Path | str]) -> dict[str, set[tuple[Any, ...]]]:
    """As `wrong_counters`, of the databases of these services."""
    wrong = {}
    for counters, (service, counted) in COUNTERS.items():
        if service not in places:
            continue
        # In one transaction, so that both see the same moment.
        with closing(Connection(places[service])) as opened, opened as database:
            stored = {row for row in database.execute(counters) if row[1]}
            found = set(database.execute(counted))
        if stored != found:
            wrong[counters] = stored ^ found
    return wrong


def _left(
    suite: RunningSuite, columns: Mapping[str, Mapping[str, tuple[str, ...]]], ids: Iterable[int]
) -> dict[str, int]:
    among = ",".join(map(str, ids)) or "NULL"
    left = {}
    for service, tables in columns.items():
        for table, names in tables.items():
            for name in names:
                query = f'SELECT COUNT(*) FROM "{table}" WHERE {name} IN ({among})'
                ((count,),) = rows(suite, service, query)
                if count:
                    left[f"{service}.{table}.{name}"] = count
    return left

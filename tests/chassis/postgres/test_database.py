"""PostgreSQL servers that go away, come back, are silent, or let nobody in."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from chassis import errors, postgres_database
from chassis.postgres import PostgresStore
from chassis.postgres_database import CannotConnect, PostgresDatabase
from chassis.settings import DatabaseAddress
from tests import postgres_server
from tests.chassis import items
from tests.chassis.postgres.stores import can_add, open_store
from tests.people import until
from tests.postgres_server import Server

pytestmark = pytest.mark.postgresql

ENDS_ONCE = """
from pathlib import Path


def up(migrator, db):
    db.execute_sql("INSERT INTO item (name) VALUES ('of the migration')")
    ended = Path({path!r})
    if not ended.exists():
        ended.touch()
        db.execute_sql("SELECT pg_terminate_backend(pg_backend_pid())")
"""


async def test_a_server_that_crashes_and_comes_back_is_told_of_and_used_again(logged: list[Any]) -> None:
    with postgres_server.running(durable=True) as server:
        address = DatabaseAddress(server.database("items"))
        store = open_store(address)
        try:
            await store.write(items.add, "before")
            server.stop(signal.SIGQUIT)

            for _ in range(20):
                with pytest.raises(errors.Unavailable):
                    await store.write(items.add, "meanwhile")
                with pytest.raises(errors.Unavailable):
                    await store.read(items.count)
            server.start()
            await until(partial(can_add, store, "after"))
            assert await store.read(items.names) == ["first", "before", "after"]
        finally:
            store.close()
    told = [(line["event"], line.get("error")) for line in logged]
    # Each reason once: that it is not there, and perhaps that it starts.
    assert len(told) == len(set(told))
    assert "refused" in str(told[0])
    assert told[-1] == ("connected to the database", None)
    assert {event for event, _ in told[:-1]} == {"cannot connect to the database"}


def test_nobody_waits_for_the_one_that_asks_a_silent_server_whether_it_is_back() -> None:
    with socket.socket() as silent, ThreadPoolExecutor(1) as thread:
        silent.bind(("127.0.0.1", 0))
        db = PostgresDatabase(DatabaseAddress(f"postgresql://insta@127.0.0.1:{silent.getsockname()[1]}/items"))
        with pytest.raises(peewee.OperationalError, match="refused"):
            db.connect()
        silent.listen()
        assert db.wait(0)
        asking = thread.submit(db.connect)
        connection, _ = silent.accept()

        with pytest.raises(peewee.OperationalError, match="a moment ago"):
            db.connect()

        assert db.is_lost()
        assert not asking.done()
        connection.close()
        assert isinstance(asking.exception(10), peewee.OperationalError)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "nowhere"}, "does not exist"),
        ({"user": "nobody"}, "password authentication failed"),
    ],
    ids=["password", "database", "user"],
)
def test_who_is_not_let_in_is_told_why_at_once_and_without_the_password(
    server: Server, wrong: dict[str, str], said: str
) -> None:
    with pytest.raises(CannotConnect, match=said) as refused:
        PostgresStore(DatabaseAddress(server.url(**wrong)), items.MIGRATIONS)

    assert refused.value.remedy == "Correct {setting}, or the server"
    assert "wrong" not in str(refused.value)


def test_what_a_server_says_in_another_language_is_waited_for_and_then_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "_PERMANENT", ("Passwort-Authentifizierung",))
    monkeypatch.setattr(postgres_database, "_START_SECONDS", 0.2)

    with pytest.raises(CannotConnect, match="password authentication failed"):
        PostgresStore(DatabaseAddress(server.url(password="wrong")), items.MIGRATIONS)


async def test_a_password_that_was_changed_is_told_in_the_log_and_may_be_changed_back(
    server: Server, address: DatabaseAddress, logged: list[Any]
) -> None:
    with closing(psycopg.connect(server.url(), autocommit=True)) as operator:
        operator.execute(f"CREATE ROLE ana LOGIN PASSWORD '{postgres_server.PASSWORD}'")
        operator.execute(f'ALTER DATABASE "{address.url.rpartition("/")[2]}" OWNER TO ana')
        with closing(open_store(DatabaseAddress(address.url.replace("insta", "ana")))) as store:
            operator.execute("ALTER ROLE ana PASSWORD 'another'")
            # Who is connected stays so.
            assert await store.read_long(items.count) == 1
            operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ana'")
            for _ in range(20):
                with pytest.raises(errors.Unavailable) as refused:
                    await store.write(items.add, "meanwhile")
                assert refused.value.retry_after
            operator.execute(f"ALTER ROLE ana PASSWORD '{postgres_server.PASSWORD}'")
            await until(partial(can_add, store, "after"))

    cannot, again = logged
    assert cannot["event"] == "cannot connect to the database"
    assert 'password authentication failed for user "ana"' in cannot["error"]
    assert again["event"] == "connected to the database"


def test_a_server_that_ends_in_the_middle_of_a_migration_is_waited_for(
    address: DatabaseAddress, tmp_path: Path, logged: list[Any]
) -> None:
    folder = Path(shutil.copytree(items.MIGRATIONS, tmp_path / "migrations"))
    (folder / "0003_ends.py").write_text(ENDS_ONCE.format(path=str(tmp_path / "ended")))

    with closing(PostgresStore(address, folder)) as store:
        assert store.read_now(items.names) == ["first", "of the migration"]
    (told,) = [line["event"] for line in logged if line["log_level"] == "warning"]
    assert told == "waiting for the database"


def test_a_server_that_takes_no_changes_yet_is_waited_for(
    server: Server, address: DatabaseAddress, logged: list[Any]
) -> None:
    """As one that is to take the place of another, which it copies still."""
    name = address.url.rpartition("/")[2]

    def told() -> bool:
        return any("read-only" in line.get("error", "") for line in logged)

    with closing(psycopg.connect(server.url(), autocommit=True)) as operator, ThreadPoolExecutor(1) as thread:
        operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        starting = thread.submit(PostgresStore, address, items.MIGRATIONS)
        while not told():
            assert not starting.done()
            time.sleep(0.01)
        operator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with closing(starting.result(20)) as store:
            assert store.read_now(items.names) == ["first"]
    assert [line["event"] for line in logged] == ["cannot connect to the database", "connected to the database"]


def test_a_role_that_may_not_make_tables_is_told_so(server: Server, address: DatabaseAddress) -> None:
    with closing(psycopg.connect(server.url(), autocommit=True)) as operator:
        operator.execute(f"CREATE ROLE guest LOGIN PASSWORD '{postgres_server.PASSWORD}'")

    with pytest.raises(CannotConnect, match="may not make or change tables") as refused:
        PostgresStore(DatabaseAddress(address.url.replace("insta", "guest")), items.MIGRATIONS)

    assert "owner" in refused.value.remedy


def test_a_connection_that_did_not_take_a_time_limit_is_of_no_use(address: DatabaseAddress) -> None:
    db = postgres_database.connect(address)
    try:
        db.command("BEGIN")
        with pytest.raises(peewee.PeeweeException):
            db.command("nonsense")

        # In such a transaction it takes none, as if it had run out of the limit of before.
        with pytest.raises(peewee.PeeweeException):
            db.have_patience(1)
        assert db.is_lost()
        db.drop()

        assert db.execute_sql("SHOW statement_timeout").fetchall() == [("1024ms",)]
        db.drop()
        db.have_patience(0.001)
        assert db.mine.patience == 64
    finally:
        db.close_all()

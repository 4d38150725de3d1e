"""Migrations: applied once, as a whole or not at all, to a database that others work on meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from chassis.schema import MigrationFailed
from chassis.store import Database, Store
from tests import databases
from tests.chassis import items
from tests.running import ON_POSTGRESQL

PROJECT = Path(__file__).parents[2]
# With the default in the database: who does not know of the column writes rows, too.
ADDS_A_COLUMN = """
import peewee


def up(migrator, db):
    weight = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 7")])
    migrator.migrate(
        migrator.add_column("item", "weight", weight, allow_not_null=True),
        migrator.add_index("item", ("weight",)),
    )
    db.execute_sql("INSERT INTO item (name) VALUES ('of the migration')")
"""
_SCHEMA_TABLES = ["pg_indexes WHERE schemaname = 'public'"] if ON_POSTGRESQL else ["sqlite_master"]
RAISES = f"{ADDS_A_COLUMN}    raise LookupError('in the middle')\n"
IS_REFUSED = f"{ADDS_A_COLUMN}    db.execute_sql('ALTER TABLE item ADD COLUMN weight BIGINT')\n"
DIES = f"import os\nimport signal\n{ADDS_A_COLUMN}    os.kill(os.getpid(), signal.SIGKILL)\n"
IS_NO_PYTHON = "def up(migrator, db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "items.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations of the next version."""
    return Path(shutil.copytree(items.MIGRATIONS, tmp_path / "migrations"))


@pytest.fixture
def old(path: Path) -> Iterator[Store]:
    """The database, open in this version."""
    store = databases.open_store(path, items.MIGRATIONS)
    yield store
    store.close()


def schema_and_rows(db: Database) -> dict[str, list[Any]]:
    tables = [*_SCHEMA_TABLES, "schema_migration", "item"]
    return {table: db.execute_sql(f"SELECT * FROM {table}").fetchall() for table in tables}


def weights(db: Database) -> list[tuple[str, int]]:
    return db.execute_sql("SELECT name, weight FROM item ORDER BY id").fetchall()


async def test_who_does_not_know_of_a_new_column_reads_and_writes_on(old: Store, path: Path, folder: Path) -> None:
    (folder / "0003_weight.py").write_text(ADDS_A_COLUMN)
    await old.write(items.add, "before")
    names = await old.read_long(items.names)

    with closing(databases.open_store(path, folder)) as new:
        # Each of these was prepared for the schema of before, on each connection.
        await old.write(items.add, "after")
        assert await old.read(items.names) == [*names, "of the migration", "after"]
        assert await old.read_long(items.names) == [*names, "of the migration", "after"]
        assert await new.read(weights) == [(name, 7) for name in await old.read(items.names)]


@pytest.mark.parametrize("migration", [RAISES, IS_REFUSED, IS_NO_PYTHON], ids=["raises", "refused", "no python"])
async def test_a_migration_that_fails_leaves_nothing_and_is_tried_again(
    old: Store, path: Path, folder: Path, migration: str
) -> None:
    failing = folder / "0003_weight.py"
    failing.write_text(migration)
    before = await old.read(schema_and_rows)

    for _ in range(2):
        with pytest.raises(MigrationFailed, match="0003_weight") as failed:
            databases.open_store(path, folder)
        assert databases.place(path) in str(failed.value)
        assert await old.read(schema_and_rows) == before
    # Nobody is kept from writing.
    await old.write(items.add, "after")
    failing.write_text(ADDS_A_COLUMN)

    with closing(databases.open_store(path, folder)) as new:
        assert await new.read(weights) == [("first", 7), ("after", 7), ("of the migration", 7)]


async def test_those_before_one_that_fails_stay_applied(path: Path, folder: Path) -> None:
    (folder / "0003_weight.py").write_text(ADDS_A_COLUMN)
    (folder / "0004_fails.py").write_text(RAISES)

    for _ in range(2):
        with pytest.raises(MigrationFailed, match="0004_fails"):
            databases.open_store(path, folder)

    (folder / "0004_fails.py").unlink()
    with closing(databases.open_store(path, folder)) as store:
        assert await store.read(weights) == [("first", 7), ("of the migration", 7)]


async def test_a_process_that_dies_in_the_middle_of_a_migration_leaves_nothing(
    old: Store, path: Path, folder: Path
) -> None:
    (folder / "0003_weight.py").write_text(DIES)
    before = await old.read(schema_and_rows)
    paths = f"Path({str(path)!r}), Path({str(folder)!r})"
    code = f"from pathlib import Path; from tests import databases; databases.open_store({paths})"

    starting = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=PROJECT)

    assert await starting.wait() == -signal.SIGKILL
    assert await old.read(schema_and_rows) == before
    await old.write(items.add, "after")


async def test_a_database_of_a_newer_version_is_used_and_the_log_says_so(path: Path, folder: Path) -> None:
    (folder / "0003_weight.py").write_text(ADDS_A_COLUMN)
    databases.open_store(path, folder).close()

    with structlog.testing.capture_logs() as logged, closing(databases.open_store(path, items.MIGRATIONS)) as old:
        await old.write(items.add, "by the old one")

        assert await old.read(weights) == [("first", 7), ("of the migration", 7), ("by the old one", 7)]
    (said,) = [line for line in logged if line["log_level"] == "warning"]
    assert said["database"] == databases.place(path)
    assert said["migrations"] == ["0003_weight"]


async def test_of_a_database_of_its_own_version_nothing_is_said(old: Store, path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        databases.open_store(path, items.MIGRATIONS).close()

    assert logged == []

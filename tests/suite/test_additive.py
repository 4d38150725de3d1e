"""Migrations only add: the version before goes on reading and writing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chassis.store import Database
from suite.composition import SERVICES
from tests import databases
from tests.running import ON_POSTGRESQL

MIGRATIONS = {name: service.migrations for name, service in SERVICES.items() if service.migrations is not None}
# Made before this was asked of any: they rename a column, or give it a default in the code only.
OLDER = {
    "users": {"0002_sign_time", "0003_sessions_events_throttles", "0005_tombstones_floor", "0006_replies_about"},
    "posts": {"0004_replies_about"},
    "social": {"0004_replies_about"},
}


class Column(NamedTuple):
    type: str
    required: int
    default: str | None
    key: int


def _column(column: Any) -> Column:
    # What the server numbers itself needs no value.
    default = "identity" if column.identity else column.default
    return Column(column.data_type, not column.null, default, column.primary_key)


def columns(db: Database) -> dict[str, dict[str, Column]]:
    """The columns of each table."""
    if ON_POSTGRESQL:
        return {table: {column.name: _column(column) for column in db.get_columns(table)} for table in db.get_tables()}
    tables = db.execute_sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {
        table: {row[1]: Column(*row[2:]) for row in db.execute_sql(f'PRAGMA table_info("{table}")').fetchall()}
        for (table,) in tables.fetchall()
    }


def rules(db: Database) -> set[tuple[str, str]]:
    """What refuses rows or acts on them, unique indexes and triggers: table and SQL of each."""
    if ON_POSTGRESQL:
        indexes = [index for table in db.get_tables() for index in db.get_indexes(table)]
        triggers = db.execute_sql("SELECT tgrelid::regclass::text, tgname FROM pg_trigger").fetchall()
        return {(index.table, index.sql) for index in indexes if index.unique} | set(triggers)
    made = db.execute_sql("SELECT tbl_name, sql FROM sqlite_master WHERE type IN ('index', 'trigger')").fetchall()
    return {(table, sql) for table, sql in made if sql and ("UNIQUE" in sql or "TRIGGER" in sql)}


@pytest.mark.parametrize("name", MIGRATIONS)
def test_the_version_before_a_migration_reads_and_writes_on(name: str, tmp_path: Path) -> None:
    first, *later = sorted(MIGRATIONS[name].glob("[0-9]*.py"))
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(first, folder)
    with closing(databases.open_store(tmp_path / "old.db", folder)) as old:
        for migration in later:
            before, rules_before = old.read_now(columns), old.read_now(rules)
            shutil.copy(migration, folder)
            databases.open_store(tmp_path / "old.db", folder).close()
            if migration.stem not in OLDER[name]:
                after, new_rules = old.read_now(columns), old.read_now(rules) - rules_before
                wrong = [what for table in before for what in not_added(table, before[table], after.get(table, {}))]
                wrong += [f"{table}: {sql}" for table, sql in new_rules if table in before]
                assert not wrong, f"after {migration.stem} the version before it cannot go on"


def not_added(table: str, before: Mapping[str, Column], after: Mapping[str, Column]) -> list[str]:
    """What the version before would miss in a table, or could not leave out."""
    gone = [f"{table}.{name} is another one" for name in before if after.get(name) != before[name]]
    needed = [name for name in after.keys() - before.keys() if after[name].required and after[name].default is None]
    return gone + [f"{table}.{name} has no default in the database" for name in needed]

"""What `insta demo` has made."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from tests import databases
from tests.running import environment, insta

PASSWORD = "a password of the demo"
ROWS = ("--users", "40", "--posts", "60", "--likes", "300", "--comments", "120", "--follows", "200")
SIZES = (*ROWS, "--pictures", "0")


def demo(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `insta demo`."""
    return insta("demo", *arguments, environment=environment(data))


def rows(data: Path, database: str, query: str) -> list[tuple[object, ...]]:
    with closing(databases.Connection(data / f"{database}.db")) as connection:
        return connection.execute(query)


def everything(data: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, without what is random for a reason."""
    found = {}
    for database in ("users", "posts", "social"):
        with closing(databases.open_database(data / f"{database}.db")) as db:
            tables = {
                table: [column.name for column in db.get_columns(table)]
                for table in sorted(db.get_tables())
                if table not in ("secret", "signing_key", "schema_migration")
            }
        for table, columns in tables.items():
            # Of an event time and offset are not made up.
            order = "id" if "id" in columns else "1"
            kept = [
                f'"{column}"'
                for column in columns
                if column not in ("password_hash", "folder")
                and (table, column) not in (("logged_event", "time"), ("logged_event", "id"))
            ]
            found[f"{database}.{table}"] = rows(
                data, database, f'SELECT {", ".join(kept)} FROM "{table}" ORDER BY {order}'
            )
    return found

"""What `insta demo` has made."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from tests.running import environment, insta

PASSWORD = "a password of the demo"
ROWS = ("--users", "40", "--posts", "60", "--likes", "300", "--comments", "120", "--follows", "200")
SIZES = (*ROWS, "--pictures", "0")


def demo(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `insta demo`."""
    return insta("demo", *arguments, environment=environment(data))


def rows(data: Path, database: str, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{data / database}.db?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def everything(data: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, without what is random for a reason."""
    found = {}
    for database in ("users", "posts", "social"):
        tables = rows(data, database, "SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in sorted(tables):
            if table in ("secret", "signing_key", "schema_migration"):
                continue
            columns = [
                f'"{column}"'
                for (column,) in rows(data, database, f"SELECT name FROM pragma_table_info('{table}')")
                if column not in ("password_hash", "folder") and (table, column) != ("logged_event", "time")
            ]
            found[f"{database}.{table}"] = rows(
                data, database, f'SELECT {", ".join(columns)} FROM "{table}" ORDER BY 1'
            )
    return found

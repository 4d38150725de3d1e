"""Tables from a file into a database of a PostgreSQL server, or back, by the thousand rows.

In between, rows are lines of text as PostgreSQL's COPY writes and reads them. Both kinds of database tell the same rows
in the same bytes, in the order of their primary keys: two tables are alike if their lines have the same checksum.
https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from chassis.store import POSTGRESQL, Database

HISTORY = "schema_migration"
_AT_ONCE = 2_000
_NULL = b"\\N"
# What a character is written as, after a backslash; the backslash itself first.
_ESCAPES = {"\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MEANT = {escape.encode(): character.encode() for character, escape in _ESCAPES.items()}
_INDEXES_OF_FILE = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
_INDEXES_ON_SERVER = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = %s::regclass AND NOT indisprimary
"""


class Table(NamedTuple):
    """A table as a server knows it: a file does not tell what is true or false from numbers.

    Attributes:
        columns: The type of each, by name.
        key: The columns of its primary key.
    """

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]


class Lines(NamedTuple):
    """Some rows as text."""

    text: bytes
    rows: int


class Content(NamedTuple):
    """What a table holds: how many rows, and the SHA-256 of their lines in hexadecimal digits."""

    rows: int
    sha256: str


def tables_of(db: Database) -> list[Table]:
    """The tables of a database on a server, without the history of its schema."""
    return [
        Table(
            name,
            {column.name: column.data_type for column in db.get_columns(name)},
            tuple(sorted(db.get_primary_keys(name))),
        )
        for name in db.get_tables()
        if name != HISTORY
    ]


def count(db: Database, table: Table) -> int:
    """How many rows there are."""
    ((rows,),) = db.execute_sql(f"SELECT count(*) FROM {_quoted(table.name)}").fetchall()
    return int(rows)


def is_empty(db: Database, table: Table) -> bool:
    """Whether there are no rows."""
    return not db.execute_sql(f"SELECT 1 FROM {_quoted(table.name)} LIMIT 1").fetchall()


def copy(source: Database, target: Database, table: Table, copied: Callable[[int], None]) -> Content:
    """Add the rows of a table to the empty one of another database.

    Args:
        copied: Told how many rows were since.

    Returns:
        What the source holds.
    """
    tally = _Tally(copied)
    with _without_indexes(target, table):
        _write(target, table, tally.of(_read(source, table)))
    return tally.content()


def content(db: Database, table: Table, read: Callable[[int], None]) -> Content:
    """What a table holds.

    Args:
        read: Told how many rows were since.
    """
    tally = _Tally(read)
    for _ in tally.of(_read(db, table)):
        pass
    return tally.content()


class _Tally:
    """Counts what passes by."""

    def __init__(self, passed: Callable[[int], None]) -> None:
        self._passed = passed
        self._rows = 0
        self._sha256 = hashlib.sha256()

    def of(self, parts: Iterable[Lines]) -> Iterator[Lines]:
        for lines in parts:
            self._sha256.update(lines.text)
            self._rows += lines.rows
            yield lines
            self._passed(lines.rows)

    def content(self) -> Content:
        return Content(self._rows, self._sha256.hexdigest())


def _read(db: Database, table: Table) -> Iterator[Lines]:
    """All rows in the order of their keys."""
    rows = _lines_on_server(db, table) if db.dialect == POSTGRESQL else _lines_of_file(db, table)
    while some := list(itertools.islice(rows, _AT_ONCE)):
        yield Lines(b"".join(some), len(some))


def _lines_on_server(db: Database, table: Table) -> Iterator[bytes]:
    # The order of bytes, whatever the language of the database: as in files.
    collation = {"text": ' COLLATE "C"'}
    key = ", ".join(_quoted(name) + collation.get(table.columns[name], "") for name in table.key)
    query = f"COPY (SELECT {_columns(table)} FROM {_quoted(table.name)} ORDER BY {key}) TO STDOUT"
    with db.connection().cursor() as cursor, cursor.copy(query) as lines:
        yield from map(bytes, lines)


def _lines_of_file(db: Database, table: Table) -> Iterator[bytes]:
    line = " || char(9) || ".join(_as_text(name, kind) for name, kind in table.columns.items())
    key = ", ".join(map(_quoted, table.key))
    # Bytes, as they are stored: no characters are made of them here.
    query = f"SELECT CAST({line} || char(10) AS BLOB) FROM {_quoted(table.name)} ORDER BY {key}"
    return (row[0] for row in db.execute_sql(query))


def _as_text(name: str, kind: str) -> str:
    """SQL, as SQLite takes it, for a column as COPY writes it."""
    column = _quoted(name)
    if kind == "text":
        text = column
        for character, escape in _ESCAPES.items():
            text = f"replace({text}, char({ord(character)}), '\\{escape}')"
    elif kind == "bytea":
        text = rf"'\\x' || lower(hex({column}))"
    elif kind == "boolean":
        text = f"iif({column}, 't', 'f')"
    elif kind in ("bigint", "integer"):
        text = f"CAST({column} AS TEXT)"
    else:
        raise LookupError(f"nobody has said how a {kind} is moved")
    return f"iif({column} IS NULL, '\\N', {text})"


def _write(db: Database, table: Table, parts: Iterable[Lines]) -> None:
    if db.dialect == POSTGRESQL:
        query = f"COPY {_quoted(table.name)} ({_columns(table)}) FROM STDIN"
        with db.connection().cursor() as cursor, cursor.copy(query) as opened:
            for lines in parts:
                opened.write(lines.text)
        return
    places = ", ".join("?" * len(table.columns))
    insert = f"INSERT INTO {_quoted(table.name)} ({_columns(table)}) VALUES ({places})"
    kinds = tuple(table.columns.values())
    for lines in parts:
        with db.atomic():
            db.cursor().executemany(insert, (_values(line, kinds) for line in lines.text.split(b"\n")[:-1]))


def _values(line: bytes, kinds: Sequence[str]) -> list[Any]:
    """A row of a line, as a file takes it."""
    fields = line.split(b"\t")
    return [None if field == _NULL else _value(field, kind) for field, kind in zip(fields, kinds, strict=True)]


def _value(field: bytes, kind: str) -> Any:
    if kind == "text":
        return _ESCAPED.sub(lambda escape: _MEANT[escape[1]], field).decode()
    if kind == "bytea":
        return bytes.fromhex(field[3:].decode())
    return field == b"t" if kind == "boolean" else int(field)


@contextmanager
def _without_indexes(db: Database, table: Table) -> Iterator[None]:
    """Leave out the indexes of a table meanwhile: to make them of all rows takes less time than row by row."""
    if db.dialect == POSTGRESQL:
        indexes = db.execute_sql(_INDEXES_ON_SERVER, (_quoted(table.name),)).fetchall()
    else:
        indexes = [(_quoted(name), sql) for name, sql in db.execute_sql(_INDEXES_OF_FILE, (table.name,)).fetchall()]
    for name, _ in indexes:
        db.execute_sql(f"DROP INDEX {name}")
    yield
    for _, definition in indexes:
        db.execute_sql(definition)


def _columns(table: Table) -> str:
    return ", ".join(map(_quoted, table.columns))


def _quoted(name: str) -> str:
    return f'"{name}"'

"""What the tables of every service are made of."""

from __future__ import annotations

import secrets
from typing import Any

import peewee
from playhouse import apsw_ext

from chassis.query import compiled, param


class IdField(peewee.AutoField):
    """An id that the database assigns: 64 bits, growing with creation, never used again."""

    def ddl(self, ctx: peewee.Context) -> peewee.NodeList:
        return peewee.NodeList((super().ddl(ctx), peewee.SQL("AUTOINCREMENT")))


# More than any service hands out between a backup and the loss of what came after it.
_SKIPPED = 1_000_000_000
_BY_SEQUENCE = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"


def skip_ids(db: peewee.Database) -> None:
    """Leave out so many ids in every table that none can be assigned again that a later state of the database knew.

    Runs in a write, once an older copy took the place of a database.
    """
    for (table,) in db.execute_sql(_BY_SEQUENCE).fetchall():
        if not db.execute_sql(
            "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ? RETURNING 1", (_SKIPPED, table)
        ).fetchall():
            db.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, _SKIPPED))


# Plain peewee would hand Python's booleans to APSW, which takes none.
BooleanField = apsw_ext.BooleanField


class Table(peewee.Model):
    """The base of all models. It is bound to no database: two suites may run in one process."""

    class Meta:
        legacy_table_names = False


class Secret(Table):
    """Random keys that every process of a service shares and that outlive a restart."""

    name = peewee.TextField(primary_key=True)
    value = peewee.BlobField()


_secret = compiled(Secret.select(Secret.value).where(Secret.name == param("name")))
_insert_secret = compiled(
    Secret.insert(name=param("name"), value=param("value")).on_conflict(action="nothing", conflict_target=[Secret.name])
)


def secret(db: peewee.Database, name: str) -> bytes:
    """The secret with this name, 32 random bytes, made at its first use. Runs in a write."""
    _insert_secret.run(db, name=name, value=secrets.token_bytes(32))
    row: Any = _secret.one(db, name=name)
    return bytes(row[0])

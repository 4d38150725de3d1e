"""A database of items with unique names, and a process that writes to it as fast as it can.

    python -m tests.chassis.items PATH NAME SECONDS

It says that it is ready, waits for a line, opens the store, and says what it did as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import peewee

from chassis.models import IdField, Table
from chassis.query import among, compiled, param
from chassis.store import Database, Store
from tests import databases

MIGRATIONS = Path(__file__).parent / "migrations"
# Made by a migration.
FIRST = 1
_WRITERS = 4


class Item(Table):
    """Something with a name of its own."""

    id = IdField()
    name = peewee.TextField(unique=True)


class Tag(Table):
    """Something that an item must exist for."""

    id = IdField()
    item = peewee.ForeignKeyField(Item)


_insert = compiled(Item.insert(name=param("name")).returning(Item.id))
_insert_tag = compiled(Tag.insert(item=param("item")))
_rename = compiled(Item.update(name=param("name")).where(Item.id == param("id")))
_delete = compiled(Item.delete().where(Item.id == param("id")))
_all = compiled(Item.select(Item.id, Item.name).order_by(Item.id))
_count = compiled(Item.select(peewee.fn.count(Item.id)))
_id_of = compiled(Item.select(Item.id).where(Item.name == param("name")))
_among = compiled(Item.select(Item.id).where(among(Item.id, "ids")).order_by(Item.id))


def add(db: Database, name: str) -> int:
    """Add an item. Returns its id."""
    row = _insert.one(db, name=name)
    assert row is not None
    return int(row[0])


def rename_first(db: Database, name: str) -> None:
    """Rename the item that is always there."""
    _rename.run(db, id=FIRST, name=name)


def tag(db: Database, item_id: int) -> None:
    """Tag an item, which must exist."""
    _insert_tag.run(db, item=item_id)


def delete(db: Database, item_id: int) -> int:
    """Delete an item. Returns how many there were."""
    return _delete.run(db, id=item_id)


def names(db: Database) -> list[str]:
    """The names of all items, the oldest first."""
    return [name for _, name in _all.all(db)]


def count(db: Database) -> int:
    """How many items there are."""
    row = _count.one(db)
    assert row is not None
    return int(row[0])


def id_of(db: Database, name: str) -> int:
    """The id of an item."""
    row = _id_of.one(db, name=name)
    assert row is not None
    return int(row[0])


def existing(db: Database, ids: list[int]) -> list[int]:
    """Those of `ids` that exist, in order."""
    return [row[0] for row in _among.all(db, ids=ids)]


async def _write(store: Store, name: str, seconds: float) -> dict[str, float]:
    """Write one item after the other, several at once. What came of it."""
    end = time.monotonic() + seconds
    waits: list[float] = []

    async def write(writer: int) -> None:
        while (began := time.monotonic()) < end:
            await store.write(add, f"{name}-{writer}-{len(waits)}")
            waits.append(time.monotonic() - began)

    await asyncio.gather(*(write(writer) for writer in range(_WRITERS)))
    return {"written": len(waits), "longest_wait": max(waits, default=0.0)}


def main() -> None:
    """Write to the database named on the command line."""
    path, name, seconds = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    store = databases.open_store(Path(path), MIGRATIONS)
    done = asyncio.run(_write(store, name, float(seconds)))
    store.close()
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()

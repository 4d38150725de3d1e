"""What is gone for good: ids of deleted users and posts, kept so that whatever comes late for one is refused.

Each change that would refer to one asks inside its transaction. Each is also a task: what the service holds of it is
erased in the background, a bounded number of rows at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import peewee

from chassis.models import BooleanField, Table
from chassis.query import among, compiled, param
from chassis.store import Database, Store

_COMPARED_AT_ONCE = 500

USER = "user"
POST = "post"


class Tombstone(Table):
    """Something that is gone."""

    kind = peewee.TextField()
    gone_id = peewee.BigIntegerField()
    erased = BooleanField(index=True)

    class Meta:
        primary_key = peewee.CompositeKey("kind", "gone_id")


class Gone(NamedTuple):
    """What a tombstone stands for, and whether nothing is left of it here."""

    kind: str
    id: int
    erased: bool


_add = compiled(
    Tombstone.insert(kind=param("kind"), gone_id=param("id"), erased=False).on_conflict(
        action="nothing", conflict_target=[Tombstone.kind, Tombstone.gone_id]
    )
)
_columns = (Tombstone.kind, Tombstone.gone_id, Tombstone.erased)
_get = compiled(
    Tombstone.select(*_columns).where(Tombstone.kind == param("kind"), Tombstone.gone_id == param("id")), row=Gone
)
_above = compiled(
    Tombstone.select(*_columns)
    .where(Tombstone.kind == param("kind"), Tombstone.gone_id > param("above"))
    .order_by(Tombstone.gone_id)
    .limit(_COMPARED_AT_ONCE),
    row=Gone,
)
_among = compiled(
    Tombstone.select(*_columns).where(Tombstone.kind == param("kind"), among(Tombstone.gone_id, "ids")), row=Gone
)
_pending = compiled(Tombstone.select(*_columns).where(Tombstone.erased == param("no")).limit(1), row=Gone)
_unfinished = compiled(Tombstone.select(*_columns).where(Tombstone.erased == param("no")), row=Gone)
_count_pending = compiled(
    Tombstone.select(peewee.fn.count(Tombstone.gone_id)).where(
        Tombstone.erased == param("no"), Tombstone.kind == param("kind")
    )
)
_finish = compiled(
    Tombstone.update(erased=True).where(Tombstone.kind == param("kind"), Tombstone.gone_id == param("id"))
)
_reopen = compiled(
    Tombstone.insert(kind=param("kind"), gone_id=param("id"), erased=False).on_conflict(
        conflict_target=[Tombstone.kind, Tombstone.gone_id], preserve=[Tombstone.erased]
    )
)
_drop = compiled(Tombstone.delete().where(Tombstone.kind == param("kind"), among(Tombstone.gone_id, "ids")))


def add(db: Database, kind: str, gone_id: int) -> None:
    """Something is gone from now on. Adding it again changes nothing."""
    _add.run(db, kind=kind, id=gone_id)


def get(db: Database, kind: str, gone_id: int) -> Gone | None:
    """The tombstone of something. None: it is not known to be gone."""
    return _get.one(db, kind=kind, id=gone_id)


def above(db: Database, kind: str, gone_id: int) -> list[Gone]:
    """The tombstones of a kind with ids above one, in growing order, some at a time."""
    return _above.all(db, kind=kind, above=gone_id)


def among_ids(db: Database, kind: str, ids: Sequence[int]) -> list[Gone]:
    """The tombstones that there are of these ids."""
    return _among.all(db, kind=kind, ids=ids)


def pending(db: Database) -> Gone | None:
    """Something of which there may be rows left. None: everything is erased."""
    return _pending.one(db, no=False)


def unfinished(db: Database) -> list[Gone]:
    """Everything of which there may be rows left."""
    return _unfinished.all(db, no=False)


def count_pending(db: Database, kind: str) -> int:
    """Of how many things of a kind there may be rows left."""
    return int(_count_pending.all(db, no=False, kind=kind)[0][0])


def finish(db: Database, gone: Gone) -> None:
    """Nothing is left of it."""
    _finish.run(db, kind=gone.kind, id=gone.id)


def reopen(db: Database, kind: str, gone_id: int) -> None:
    """Something is gone, and there are rows of it: erase it, though that was done already."""
    _reopen.run(db, kind=kind, id=gone_id)


def drop(db: Database, kind: str, ids: Sequence[int]) -> None:
    """These are not gone: let them be referred to again."""
    _drop.run(db, kind=kind, ids=ids)


def referred_to(field: peewee.Field) -> compiled[tuple[int]]:
    """The ids in a column, in growing order, some at a time: those above the argument `above`."""
    query = field.model.select(field).where(field > param("above")).distinct()
    return compiled(query.order_by(field).limit(_COMPARED_AT_ONCE))


async def bury_missing(
    store: Store,
    kind: str,
    sources: Sequence[compiled[tuple[int]]],
    missing: Callable[[list[int]], Awaitable[Sequence[int]]],
) -> None:
    """Give a tombstone to everything that rows of this service refer to and that does not exist any more.

    Args:
        sources: Queries made by `referred_to`.
        missing: Answers which of some ids do not exist.
    """
    for source in sources:
        above = 0
        # As a change: one that is under way, and looked for a tombstone before there was any, comes before or after it,
        # where a read would not see it.
        while known := await store.write(_next, source, above):
            for gone_id in await missing(known):
                await store.write(add, kind, gone_id)
            above = known[-1]


def _next(db: Database, source: compiled[tuple[int]], above: int) -> list[int]:
    return [row[0] for row in source.all(db, above=above)]

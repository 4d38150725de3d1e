"""What an audit compares of a service's rows: counters with what they count, references with what exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import peewee

from chassis import tombstones
from chassis.query import among, compiled, param
from chassis.store import Database

# So many ids are compared in one snapshot.
AT_ONCE = 500
# Below every id.
BOTTOM = -(2**63)


class Compared(NamedTuple):
    """A part of a comparison.

    Attributes:
        size: How many ids were compared.
        differing: Those of them that differ.
        above: The id to go on above. None: that was all.
    """

    size: int
    differing: list[int]
    above: int | None


class _Tally(NamedTuple):
    id: int
    rows: int


class CounterColumn:
    """A column that holds a number of rows, in a table whose primary key is what they are counted of.

    Args:
        counter: The column.
        counted: What the rows are counted by.
    """

    def __init__(self, counter: peewee.Field, counted: peewee.Field) -> None:
        table: Any = counter.model
        key = table._meta.primary_key
        rows: Any = counted.model
        # Compared by name: `==` of fields makes an expression.
        others = {other: 0 for name, other in table._meta.fields.items() if name not in (key.name, counter.name)}
        self.name = name_of(counter)
        self._stored = compiled(
            table.select(key, counter).where(key > param("above")).order_by(key).limit(AT_ONCE), row=_Tally
        )
        self._stored_among = compiled(table.select(key, counter).where(among(key, "ids")), row=_Tally)
        tallies = rows.select(counted, peewee.fn.count(counted)).group_by(counted)
        self._actual = compiled(
            tallies.where(counted > param("above")).order_by(counted).limit(AT_ONCE),
            row=_Tally,
        )
        self._actual_among = compiled(tallies.where(among(counted, "ids")), row=_Tally)
        self._set = compiled(
            table.insert({key: param("id"), counter: param("count"), **others}).on_conflict(
                conflict_target=[key], preserve=[counter]
            )
        )

    def compare(self, db: Database, above: int) -> Compared:
        """Compare some counters with the rows, those of ids above `above`. Both are to be read at the same moment."""
        stored = self._stored.all(db, above=above)
        actual = self._actual.all(db, above=above)
        # Beyond the end of a full page it is not known what the other one has.
        ends = [page[-1].id for page in (stored, actual) if len(page) == AT_ONCE]
        end = min(ends, default=None)
        tallies = [dict(tally for tally in page if end is None or tally.id <= end) for page in (stored, actual)]
        return Compared(len(tallies[0] | tallies[1]), _differing(*tallies), end)

    def wrong(self, db: Database, ids: Sequence[int]) -> list[int]:
        """Those of `ids` whose counter is not the number of their rows."""
        return _differing(dict(self._stored_among.all(db, ids=ids)), dict(self._actual_among.all(db, ids=ids)))

    def recount(self, db: Database, ids: Sequence[int]) -> None:
        """Set the counters of `ids` to the numbers of their rows."""
        actual = dict(self._actual_among.all(db, ids=ids))
        for counted_id in ids:
            self._set.run(db, id=counted_id, count=actual.get(counted_id, 0))


class Reference:
    """A column of ids of what may be deleted: users, for instance."""

    def __init__(self, column: peewee.Field, kind: str) -> None:
        self.name = name_of(column)
        self.kind = kind
        table: Any = column.model
        ids = table.select(column).distinct()
        self._above = compiled(ids.where(column > param("above")).order_by(column).limit(AT_ONCE))
        self._among = compiled(ids.where(among(column, "ids")))

    def above(self, db: Database, referred_id: int) -> list[int]:
        """The ids above one that the column holds, in growing order, some at a time."""
        return [row[0] for row in self._above.all(db, above=referred_id)]

    def among(self, db: Database, ids: Sequence[int]) -> list[int]:
        """Those of `ids` that the column holds."""
        return [row[0] for row in self._among.all(db, ids=ids)]


def _reopen(db: Database, kind: str, ids: Sequence[int]) -> None:
    for gone_id in ids:
        tombstones.reopen(db, kind, gone_id)


@dataclass(frozen=True)
class Rows:
    """What a service tells an audit.

    Attributes:
        counters: What it counts.
        references: To what has to exist.
        traces: Further columns with ids of what may be gone. Nothing may be in them once it is erased.
        missing: By the kind of thing that the service owns: those of some ids that do not exist.
        appends: Whether it has an event log.
        reads: The services whose event logs it reads.
        bury: Has everything erased that refers to things that are gone, given their kind and ids. Runs in a write.
    """

    counters: Sequence[CounterColumn] = ()
    references: Sequence[Reference] = ()
    traces: Sequence[Reference] = ()
    missing: Mapping[str, Callable[[Database, Sequence[int]], list[int]]] = field(default_factory=dict)
    appends: bool = False
    reads: Sequence[str] = ()
    bury: Callable[[Database, str, Sequence[int]], None] = _reopen

    def left_among(self, db: Database, kind: str, ids: Sequence[int]) -> list[int]:
        """Those of `ids` of which there are rows."""
        columns = [column for column in (*self.references, *self.traces) if column.kind == kind]
        return sorted({left for column in columns for left in column.among(db, ids)})


def name_of(column: peewee.Field) -> str:
    """table.column, as in the database."""
    table: Any = column.model
    return f"{table._meta.table_name}.{column.column_name}"


def _differing(stored: Mapping[int, int], actual: Mapping[int, int]) -> list[int]:
    return sorted(key for key in stored.keys() | actual.keys() if stored.get(key, 0) != actual.get(key, 0))

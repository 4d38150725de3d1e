"""Queries that are declared in peewee, rendered once for each kind of database, and run as plain SQL.

    _by_id = compiled(Post.select(Post.title).where(Post.id == param("id")), row=PostRow)
    _by_id.one(db, id=5)

Building a peewee query costs 50 to 150 microseconds each time, running its rendered SQL 2 to 10.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import peewee

from chassis.store import POSTGRESQL

Row = TypeVar("Row")


class _Parameter(NamedTuple):
    name: str
    encode: Callable[[Any], Any] | None


def param(name: str) -> peewee.Value:
    """The place of the argument `name` of a compiled query."""
    return peewee.Value(_Parameter(name, None), converter=False, unpack=False)


class ByDialect(peewee.ColumnBase):
    """What is written one way in SQLite and another in PostgreSQL."""

    def __init__(self, sqlite: peewee.Node, postgresql: peewee.Node) -> None:
        self._sqlite = sqlite
        self._postgresql = postgresql
        super().__init__()

    def __sql__(self, ctx: Any) -> Any:
        return ctx.sql(self._postgresql if ctx.state.dialect == POSTGRESQL else self._sqlite)


def each(name: str) -> peewee.Node:
    """The argument `name`, a list of numbers of any length, as a table `name` with the column `value`."""
    unnested = (peewee.SQL("unnest("), _array(name), peewee.SQL(") AS "), peewee.Entity(name), peewee.SQL("(value)"))
    return ByDialect(peewee.fn.json_each(_json(name)).alias(name), peewee.NodeList(unnested, glue=""))


def among(column: peewee.Field, name: str) -> peewee.ColumnBase:
    """Whether `column` is in the argument `name`, a list of numbers of any length."""
    values = peewee.Select([peewee.fn.json_each(_json(name)).alias(name)], [peewee.SQL("value")])
    return ByDialect(column.in_(values), peewee.Expression(column, "=", peewee.fn.ANY(_array(name))))


def gathered(column: peewee.Field) -> peewee.Node:
    """All values of a column of numbers as one, for `numbers` to take apart: thousands of rows take longer to fetch."""
    return ByDialect(peewee.fn.json_group_array(column), peewee.fn.array_agg(column))


def numbers(value: str | list[int] | None) -> list[int]:
    """What `gathered` found."""
    return json.loads(value) if isinstance(value, str) else value or []


def _json(name: str) -> peewee.Value:
    # What Python writes for a list of integers is JSON, and takes it a seventh of the time that its JSON encoder takes.
    return peewee.Value(_Parameter(name, lambda ids: repr(list(ids))), converter=False, unpack=False)


def _array(name: str) -> peewee.NodeList:
    values = peewee.Value(_Parameter(name, list), converter=False, unpack=False)
    # An empty list does not tell what it is one of.
    return peewee.NodeList((values, peewee.SQL("::bigint[]")), glue="")


class _Rendered(NamedTuple):
    sql: str
    values: list[Any]
    places: list[tuple[int, str, Callable[[Any], Any] | None]]

    def bind(self, arguments: dict[str, Any]) -> list[Any]:
        bound = self.values.copy()
        for index, name, encode in self.places:
            value = arguments[name]
            bound[index] = value if encode is None else encode(value)
        return bound


class compiled(Generic[Row]):  # noqa: N801 (reads as the function that it is)
    """A peewee query that is rendered at its first use on each kind of database.

    Args:
        query: A query with `param` and `among` where arguments go.
        row: A NamedTuple of the query's columns. Without it rows are plain tuples.
    """

    @overload
    def __init__(self: compiled[tuple[Any, ...]], query: peewee.BaseQuery) -> None: ...

    @overload
    def __init__(self, query: peewee.BaseQuery, row: type[Row]) -> None: ...

    def __init__(self, query: peewee.BaseQuery, row: Any = tuple) -> None:
        self._query = query
        self._row: Callable[[Sequence[Any]], Row] = getattr(row, "_make", row)
        self._rendered: dict[type[peewee.Database], _Rendered] = {}

    def all(self, db: peewee.Database, **arguments: Any) -> list[Row]:
        """Run the query; its rows."""
        # Always to the end: a read cursor that is not exhausted pins its snapshot, and later commits stay invisible.
        return list(map(self._row, self._execute(db, arguments).fetchall()))

    def one(self, db: peewee.Database, **arguments: Any) -> Row | None:
        """Run the query; its first row, or None."""
        rows = self._execute(db, arguments).fetchall()
        return self._row(rows[0]) if rows else None

    def run(self, db: peewee.Database, **arguments: Any) -> int:
        """Run a query without rows; how many rows it changed."""
        changed: int = db.rows_affected(self._execute(db, arguments))
        return changed

    def _execute(self, db: peewee.Database, arguments: dict[str, Any]) -> Any:
        rendered = self._rendered.get(type(db)) or self._render(db)
        return db.execute_sql(rendered.sql, rendered.bind(arguments))

    def _render(self, db: peewee.Database) -> _Rendered:
        sql, values = db.get_sql_context().sql(self._query).query()
        places = [
            (index, value.name, value.encode) for index, value in enumerate(values) if isinstance(value, _Parameter)
        ]
        self._rendered[type(db)] = rendered = _Rendered(sql, values, places)
        return rendered

"""Consumes the event log of another service: each event takes effect exactly once, in order.

The offset is stored in the transaction of the effects. A log that cannot be read on (it is another one now, or what was
missed is forgotten) is caught up with by comparing what is here with what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import peewee

from chassis import events, logs
from chassis.background import BackgroundTask
from chassis.models import Table
from chassis.query import compiled, param
from chassis.store import Database, Store

if TYPE_CHECKING:
    from chassis.tracing import Tracer

_LIMIT = 200
# How long a question for events waits for one, and until its answer has to be there.
WAIT_SECONDS = 5
TIMEOUT_SECONDS = 8.0
_PAUSE_SECONDS = 0.02

log = logs.get(__name__)


class Cursor(Table):
    """How far the log of another service was read, and how often it was compared with instead."""

    log = peewee.TextField(primary_key=True)
    epoch = peewee.TextField()
    offset = peewee.BigIntegerField()
    comparisons = peewee.BigIntegerField(default=0)


class Position(NamedTuple):
    """A place in a log."""

    epoch: str
    offset: int


class Batch(Protocol):
    """An answer of a log."""

    @property
    def events(self) -> Sequence[Any]: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def epoch(self) -> str: ...
    @property
    def floor_offset(self) -> int: ...
    @property
    def head_offset(self) -> int: ...
    @property
    def remaining_count(self) -> int: ...


_get = compiled(Cursor.select(Cursor.epoch, Cursor.offset).where(Cursor.log == param("log")), row=Position)
_put = compiled(
    Cursor.insert(log=param("log"), epoch=param("epoch"), offset=param("offset")).on_conflict(
        conflict_target=[Cursor.log], preserve=[Cursor.epoch, Cursor.offset]
    )
)
_compared = compiled(
    Cursor.insert(log=param("log"), epoch="", offset=0, comparisons=1).on_conflict(
        conflict_target=[Cursor.log], update={Cursor.comparisons: Cursor.comparisons + 1}
    )
)
_comparisons = compiled(Cursor.select(peewee.fn.sum(Cursor.comparisons)))


class Consumer:
    """Applies the events of one log to the database of a service.

    Args:
        name: Of the service whose log it is.
        read: Answers so many events after an offset, and waits for one.
        apply: The effect of an event, in a transaction. Passes over what it does not know.
        compare: Brings the database up to date with the other service as it is now, without its log.
        on_lag: Told how many events are still to be applied; 0 where another process applies them.
        tracer: Records how events are applied. None: nothing is recorded.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        read: Callable[[int, int], Awaitable[Batch]],
        apply: Callable[[Database, Any], None],
        compare: Callable[[], Awaitable[None]],
        on_lag: Callable[[int], None],
        tracer: Tracer | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._read = read
        self._apply = apply
        self._compare = compare
        self._on_lag = on_lag
        self._tracer = tracer

    def task(self) -> BackgroundTask:
        """Applies events for as long as it runs."""
        return BackgroundTask(f"consumer-{self._name}", self.step, _PAUSE_SECONDS, at_rest=lambda: self._on_lag(0))

    async def step(self) -> bool:
        """Apply what happened since. Answers whether there may be more.

        Raises:
            Exception: an event cannot be applied. It stays the next one: none is passed over.
        """
        position = await self._store.read(position_of, self._name)
        batch = await self._read(position.offset, _LIMIT)
        if not _continues(position, batch):
            await self._catch_up(position, batch)
            return True
        # Before anything is applied: where an event cannot be, this is what grows.
        self._on_lag(_waiting(batch, position.offset))
        if batch.events:
            with nullcontext() if self._tracer is None else self._tracer.consuming(self._name, batch.events):
                await self._store.write(_consume, self._name, position, batch, self._apply)
        elif position.epoch != batch.epoch:
            await self._store.write(_move, self._name, position, Position(batch.epoch, batch.next_offset))
        self._on_lag(_waiting(batch, batch.next_offset))
        return len(batch.events) == _LIMIT

    async def _catch_up(self, position: Position, now: Batch) -> None:
        log.warning("event log cannot be read on; comparing instead", log=self._name, offset=position.offset)
        # First of all. A change that is made before this is seen by the comparison; one that is made later finds that
        # it has to ask again, and what it is told ends in events after those that are passed over.
        await self._store.write(_count_comparison, self._name)
        await self._compare()
        # What happened while it was compared is applied afterwards, perhaps a second time: that changes nothing.
        await self._store.write(_move, self._name, position, Position(now.epoch, now.head_offset))


def position_of(db: Database, name: str) -> Position:
    """How far a log was read."""
    return _get.one(db, log=name) or Position("", 0)


def comparisons(db: Database) -> int:
    """How many comparisons began, with whatever service. What was known of others before the last one may be outdated
    without a tombstone (`premises.py`).
    """
    # PostgreSQL adds up to a number of another type.
    return int(_comparisons.all(db)[0][0] or 0)


def _count_comparison(db: Database, name: str) -> None:
    _compared.run(db, log=name)


def _continues(position: Position, batch: Batch) -> bool:
    """Whether nothing is missing between what was read until now and a batch."""
    if position == ("", 0):
        return batch.floor_offset == 0
    if not events.continues(position.epoch, position.offset, batch.epoch):
        return False
    return batch.floor_offset <= position.offset <= batch.head_offset


def _waiting(batch: Batch, offset: int) -> int:
    """How many events there are after an offset."""
    unread: int = sum(event.offset > offset for event in batch.events)
    return unread + batch.remaining_count


def _consume(db: Database, name: str, position: Position, batch: Batch, apply: Callable[[Database, Any], None]) -> None:
    offset = position.offset
    for event in batch.events:
        # An answer that comes twice, or has an event twice, has no second effect.
        if event.offset > offset:
            apply(db, event)
            offset = event.offset
    _move(db, name, position, Position(batch.epoch, offset))


def _move(db: Database, name: str, before: Position, after: Position) -> None:
    if position_of(db, name) != before:
        raise RuntimeError(f"the offset of the log {name} was moved by somebody else meanwhile")
    _put.run(db, log=name, epoch=after.epoch, offset=after.offset)

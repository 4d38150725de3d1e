"""The event log of a service: what happened, in order, appended in the transaction in which it happened.

A reader names the offset of the last event that it has seen. The epoch names the log itself: where it changes, the
offsets of before mean nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import NamedTuple

import peewee
from google.protobuf import message

from chassis import clock
from chassis.models import IdField, Table
from chassis.query import compiled, param
from chassis.store import Database, Store

# How soon a waiting reader sees what another process appended, at most.
_POLL_SECONDS = 0.05


class LoggedEvent(Table):
    """One event. Its id is its offset."""

    id = IdField()
    time = peewee.BigIntegerField(index=True)
    payload = peewee.BlobField()


class EventLog(Table):
    """The log as a whole: one row."""

    id = peewee.IntegerField(primary_key=True)
    epoch = peewee.TextField()


class Event(NamedTuple):
    """A row of `LoggedEvent`; its time in microseconds since 1970."""

    offset: int
    time: int
    payload: bytes


class Batch(NamedTuple):
    """Events in order, the offset to read on after, and the epoch of the log."""

    events: list[Event]
    next_offset: int
    epoch: str


_ONLY = 1
_append = compiled(LoggedEvent.insert(time=param("time"), payload=param("payload")))
_columns = (LoggedEvent.id, LoggedEvent.time, LoggedEvent.payload)
_after = compiled(
    LoggedEvent.select(*_columns)
    .where(LoggedEvent.id > param("offset"))
    .order_by(LoggedEvent.id)
    .limit(param("limit")),
    row=Event,
)
_since = compiled(
    LoggedEvent.select(*_columns)
    .where(LoggedEvent.time >= param("start_time"))
    .order_by(LoggedEvent.id)
    .limit(param("limit")),
    row=Event,
)
_head = compiled(LoggedEvent.select(peewee.fn.max(LoggedEvent.id)))
_epoch = compiled(EventLog.select(EventLog.epoch).where(EventLog.id == _ONLY))
_begin = compiled(
    EventLog.insert(id=_ONLY, epoch=param("epoch")).on_conflict(action="nothing", conflict_target=[EventLog.id])
)


def begin(db: Database) -> None:
    """Give the log its epoch, if it has none. Runs in a write, before the log is used."""
    _begin.run(db, epoch=secrets.token_hex(8))


def append(db: Database, event: message.Message) -> None:
    """Add an event, in the transaction of what it tells of."""
    _append.run(db, time=clock.now(), payload=event.SerializeToString())


def read(db: Database, offset: int, start_time: int, limit: int) -> Batch:
    """Up to `limit` events after `offset`; if that is 0, events since `start_time` (microseconds since 1970)."""
    # Before the events: what is appended meanwhile must come after it.
    head = _head.all(db)[0][0] or 0
    if offset:
        events = _after.all(db, offset=offset, limit=limit)
    else:
        events = _since.all(db, start_time=start_time, limit=limit)
    next_offset = events[-1].offset if events else offset or head
    return Batch(events, next_offset, _epoch.all(db)[0][0])


async def wait_for(
    store: Store, offset: int, start_time: int, limit: int, seconds: float, draining: asyncio.Event
) -> Batch:
    """As `read`; if there is no event yet, wait for one until `seconds` have passed or the server drains."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        batch = await store.read(read, offset, start_time, limit)
        if batch.events or draining.is_set() or loop.time() >= end:
            return batch
        await asyncio.sleep(_POLL_SECONDS)

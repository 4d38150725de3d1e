"""The event log of a service: what happened, in order, appended in the transaction in which it happened.

A reader names the offset of the last event that it has seen. The epoch names the log itself: where it changes, the
offsets of before mean nothing.

In SQLite transactions are committed one after the other, and the id of an event is its place. In PostgreSQL many are
under way at once, and one with a smaller id may be committed after one with a greater: a reader that had passed it by
would never see it. So there an offset is made of the number of the transaction and of the event's place within it, and
readers take no events but those of transactions before the oldest that is under way: nothing can come between them any
more. A transaction that lasts, in whatever database of the server, holds back what was appended after it began.

Such numbers belong to one server, and to one course of its history. A database that was restored, from a dump or with
its server, is found out by the epoch, which names them, and so is a standby that took the place of its primary, which
may have told more than the standby heard of: at a start, before the first change on a connection, and before anybody
reads on. The log gets another epoch then, and its readers compare.

A database that was moved (`insta move`) keeps its events and their offsets. Its log gets an epoch that tells of which
one it is the continuation, and up to which offset the two are the same: who has read no further reads on.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import zlib
from typing import Any, NamedTuple, TypeVar

import peewee
from google.protobuf import message

from chassis import clock, errors
from chassis.call import current
from chassis.models import IdField, Table, skip_ids
from chassis.query import compiled, param
from chassis.store import POSTGRESQL, Database, Store

# How soon a waiting reader sees what another process appended, at most.
_POLL_SECONDS = 0.05
_DEFAULT_LIMIT = 100

Response = TypeVar("Response", bound=message.Message)


class LoggedEvent(Table):
    """One event. Its id is its offset."""

    id = IdField()
    time = peewee.BigIntegerField(index=True)
    payload = peewee.BlobField()


class EventLog(Table):
    """The log as a whole: one row."""

    id = peewee.IntegerField(primary_key=True)
    epoch = peewee.TextField()
    floor_offset = peewee.BigIntegerField(default=0)


class Event(NamedTuple):
    """A row of `LoggedEvent`; its time in microseconds since 1970."""

    offset: int
    time: int
    payload: bytes


class Batch(NamedTuple):
    """Events in order, the offset to read on after, of the log as a whole its epoch, its floor, its head (what can be
    read ends there) and its newest event, and how many events there are after these.
    """

    events: list[Event]
    next_offset: int
    epoch: str
    floor_offset: int
    head_offset: int
    newest_offset: int
    remaining_count: int


class State(NamedTuple):
    """A log as a whole: its epoch, the offset up to which it is forgotten, and that of its last event."""

    epoch: str
    floor_offset: int
    head_offset: int


class _Log(NamedTuple):
    epoch: str
    floor_offset: int


class _Whole(NamedTuple):
    """The log, the offset up to which nothing can be appended any more, and that of the last event: it may be greater,
    and is held back then.
    """

    epoch: str
    floor: int
    head: int
    newest: int


class _Elsewhere(Exception):
    """The log is not where it was written (its server took the place of another), or began anew a moment ago."""


_ONLY = 1
_append = compiled(LoggedEvent.insert(time=param("time"), payload=param("payload")))
# So many events one transaction may append, of 2**43 transactions.
_PLACES = 2**20
_append_concurrently = compiled(
    LoggedEvent.insert(
        id=peewee.NodeList((peewee.SQL(f"pg_current_xact_id()::text::bigint * {_PLACES} +"), param("place"))),
        time=param("time"),
        payload=param("payload"),
    )
)
# The first offset of all transactions that are or will be under way, and of those to come.
_FIRST = f"pg_snapshot_xmin(pg_current_snapshot())::text::bigint * {_PLACES}"
_NEXT = f"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint * {_PLACES}"
_WHOLE = f"SELECT epoch, floor_offset, (SELECT max(id) FROM logged_event), {_FIRST} FROM event_log"
_FIRST_AND_COUNT = f"SELECT {_FIRST}, count(*) FROM logged_event"
# In two steps: no two events may have one offset in between. The newest comes first then.
_TURN_AROUND = "UPDATE logged_event SET id = -id"
_NUMBER_DOWN = """
UPDATE logged_event SET id = numbered.offset FROM
(SELECT id, %s::bigint - row_number() OVER (ORDER BY id) AS offset FROM logged_event) AS numbered
WHERE logged_event.id = numbered.id
"""
# A restored dump makes its tables anew. The file of the write-ahead log begins with the number of the history, which a
# promoted standby increases, and a server that recovers from an archive; pg_control_checkpoint() tells of it minutes
# later. A standby writes none.
_HOME = """
SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), 'event_log'::regclass::oid,
CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END FROM pg_control_system()
"""
_columns = (LoggedEvent.id, LoggedEvent.time, LoggedEvent.payload)
_after = compiled(
    LoggedEvent.select(*_columns)
    .where(LoggedEvent.id > param("offset"), LoggedEvent.id <= param("head"))
    .order_by(LoggedEvent.id)
    .limit(param("limit")),
    row=Event,
)
# Of an expression: of the column itself SQLite would look through all ids from the first on.
_first_since = compiled(
    LoggedEvent.select(peewee.fn.min(LoggedEvent.id + 0)).where(LoggedEvent.time >= param("start_time"))
)
_max_offset = compiled(LoggedEvent.select(peewee.fn.max(LoggedEvent.id)))
_between = compiled(
    LoggedEvent.select(peewee.fn.count(LoggedEvent.id)).where(
        LoggedEvent.id > param("offset"), LoggedEvent.id <= param("end")
    )
)
_log = compiled(EventLog.select(EventLog.epoch, EventLog.floor_offset).where(EventLog.id == _ONLY), row=_Log)
_oldest = LoggedEvent.select(LoggedEvent.id).where(LoggedEvent.time < param("before")).order_by(LoggedEvent.id)
_forget = compiled(
    LoggedEvent.delete().where(LoggedEvent.id.in_(_oldest.limit(param("limit")))).returning(LoggedEvent.id)
)
_raise_floor = compiled(EventLog.update(floor_offset=param("floor_offset")).where(EventLog.id == _ONLY))
_first = EventLog.insert(id=_ONLY, epoch=param("epoch"), floor_offset=0)
_begin = compiled(_first.on_conflict(action="nothing", conflict_target=[EventLog.id]))
_renew = compiled(
    EventLog.insert(id=_ONLY, epoch=param("epoch"), floor_offset=0).on_conflict(
        conflict_target=[EventLog.id], preserve=[EventLog.epoch]
    )
)


_put = compiled(EventLog.update(epoch=param("epoch"), floor_offset=param("floor_offset")).where(EventLog.id == _ONLY))


def begin(db: Database) -> None:
    """Give the log its epoch, if it has none, or another where it was restored. Runs in a write."""
    _begin.run(db, epoch=_new_epoch(db))
    begin_elsewhere(db)


def begin_elsewhere(db: Database) -> None:
    """Begin a log anew that is not where it was written, and leave any other as it is. Runs in a write."""
    if not is_at_home(db):
        _begin_anew(db)
        skip_ids(db)


def renew(db: Database) -> None:
    """Give the log a new epoch, where it is not the continuation of what its readers know: a copy put in its place.

    Consumers compare then instead of reading on, and followers start over. Runs in a write, while nobody reads.
    """
    _renew.run(db, epoch=_new_epoch(db))


def is_at_home(db: Database) -> bool:
    """Whether the log is where it was written, or was never used, and not restored from a copy."""
    epoch = state(db).epoch
    return not epoch or epoch.endswith(_home(db))


def carry_on(db: Database) -> None:
    """Go on with the log of a database that was moved into this one and is not written any more.

    Its readers read on, those that are no further than it. Runs in a write, while nobody reads.
    """
    before = state(db)
    if not before.epoch:
        return
    if _is_ahead(db):
        # Its readers cannot read on, but compare.
        _begin_anew(db)
    else:
        epoch = f"{before.epoch}+{before.head_offset}{_home(db)}"
        _put.run(db, epoch=epoch, floor_offset=before.floor_offset)


def continues(epoch: str, offset: int, now: str) -> bool:
    """Whether a log that has the epoch `now` is the one that was read up to an offset, or was moved since."""
    moved = re.match(rf"{re.escape(epoch)}\+(\d+)", now, re.ASCII)
    return epoch == now or (moved is not None and offset <= int(moved[1]))


def state(db: Database) -> State:
    """The log as it is now. One that was never used has no epoch."""
    whole = _log.one(db) or _Log("", 0)
    return State(whole.epoch, whole.floor_offset, max(_last(db), whole.floor_offset))


def between(db: Database, offset: int, end: int) -> int:
    """How many events there are after one offset and up to another."""
    count: int = _between.all(db, offset=offset, end=end)[0][0]
    return count


def append(db: Database, event: Any) -> None:
    """Add an event, in the transaction of what it tells of.

    Each service has a message of its own for it, and they are all alike.
    """
    call = current.get()
    if call is not None and call.span is not None:
        event.traceparent = call.span.traceparent
    payload = event.SerializeToString()
    if db.dialect == POSTGRESQL:
        _append_concurrently.run(db, place=db.next_event(), time=clock.now(), payload=payload)
    else:
        _append.run(db, time=clock.now(), payload=payload)


def read(db: Database, offset: int, start_time: int, limit: int) -> Batch:
    """Up to `limit` events after `offset`; if that is 0, events since `start_time` (microseconds since 1970).

    Raises:
        _Elsewhere: the log has to begin anew.
    """
    # Before the events: what is appended meanwhile must come after it.
    epoch, _, head, newest = _whole(db)
    if not offset:
        first = _first_since.all(db, start_time=start_time)[0][0]
        offset = head if first is None else min(first - 1, head)
    events = _after.all(db, offset=offset, head=head, limit=limit)
    # After the events: what was forgotten before they were read must lie below the floor.
    now = _log.all(db)[0]
    if now.epoch != epoch or not epoch.endswith(_home(db)):
        raise _Elsewhere
    next_offset = events[-1].offset if events else head
    remaining = between(db, next_offset, newest) if len(events) == limit or newest > head else 0
    return Batch(events, next_offset, epoch, now.floor_offset, head, newest, remaining)


def forget(db: Database, before: int, limit: int) -> int:
    """Delete up to `limit` events of before a time (microseconds since 1970). Returns how many."""
    forgotten = [row[0] for row in _forget.all(db, before=before, limit=limit)]
    if forgotten:
        _raise_floor.run(db, floor_offset=max(forgotten))
    return len(forgotten)


def _last(db: Database) -> int:
    """The offset of the last event that there is; 0 if there is none."""
    return _max_offset.all(db)[0][0] or 0


def _whole(db: Database) -> _Whole:
    if db.dialect == POSTGRESQL:
        ((epoch, floor, last, first),) = db.execute_sql(_WHOLE).fetchall()
        newest = last or 0
        head = min(newest, first - 1)
    else:
        head = newest = _last(db)
        epoch, floor = _log.all(db)[0]
    return _Whole(epoch, floor, max(head, floor), max(newest, floor))


def _head(db: Database) -> int:
    return _whole(db).head


def _is_ahead(db: Database) -> bool:
    """Whether events to come would have smaller offsets: the server is younger than the one where the log was."""
    return db.dialect == POSTGRESQL and state(db).head_offset >= int(db.execute_sql(_NEXT).fetchall()[0][0])


def _begin_anew(db: Database) -> None:
    """Give a log on a server another epoch, and if it is ahead, its events offsets below those of what is under way.

    That takes some seconds for a million of them.
    """
    # Who had read nothing is to see that something is missing.
    floor = max(state(db).floor_offset, 1)
    if _is_ahead(db):
        ((first, count),) = db.execute_sql(_FIRST_AND_COUNT).fetchall()
        db.execute_sql(_TURN_AROUND)
        db.execute_sql(_NUMBER_DOWN, (first,))
        floor = first - count - 1
    _put.run(db, epoch=_new_epoch(db), floor_offset=floor)


def _new_epoch(db: Database) -> str:
    return secrets.token_hex(8) + _home(db)


def _home(db: Database) -> str:
    """What tells where a log is written from where a copy of it is. Empty: its offsets do not depend on it."""
    if db.dialect != POSTGRESQL:
        return ""
    (home,) = db.execute_sql(_HOME).fetchall()
    return f"-{zlib.crc32(' '.join(map(str, home)).encode()):08x}"


async def answer(store: Store, draining: asyncio.Event, request: Any, response_class: type[Response]) -> Response:
    """The answer to a ReadEventsRequest: each service has such a message of its own, and they are all alike."""
    batch = await wait_for(
        store,
        request.offset,
        request.start_time.ToMicroseconds(),
        request.limit or _DEFAULT_LIMIT,
        request.wait.ToMilliseconds() / 1000,
        draining,
    )
    response: Any = response_class()
    for event in batch.events:
        told = response.events.add()
        told.MergeFromString(bytes(event.payload))
        told.offset = event.offset
        clock.set_timestamp(told.time, event.time)
    response.next_offset = batch.next_offset
    response.epoch = batch.epoch
    response.floor_offset = batch.floor_offset
    response.head_offset = batch.head_offset
    response.newest_offset = batch.newest_offset
    response.remaining_count = batch.remaining_count
    return response  # type: ignore[no-any-return]


async def wait_for(
    store: Store, offset: int, start_time: int, limit: int, seconds: float, draining: asyncio.Event
) -> Batch:
    """As `read`; if there is no event yet, wait for one until `seconds` have passed or the server drains.

    Who asks for what is beyond the log is answered at once: it is not the log that they read before.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    elsewhere = False
    while True:
        head = await store.read(_head)
        try:
            batch = await store.read(read, offset, start_time, limit)
        except _Elsewhere:
            if elsewhere:
                raise errors.unavailable() from None
            elsewhere = True
            await store.write(begin_elsewhere)
            continue
        if batch.events or offset > batch.head_offset or draining.is_set() or loop.time() >= end:
            return batch
        await asyncio.sleep(_POLL_SECONDS)
        # One query, not the five of `read`: it is most of what a suite does while nobody calls it.
        while (  # noqa: ASYNC110 (nobody tells when another process appends)
            await store.read(_head) == head and not draining.is_set() and loop.time() < end
        ):
            await asyncio.sleep(_POLL_SECONDS)

"""EventService: the event log for other services."""

from __future__ import annotations

import asyncio

from chassis import clock, events
from chassis.store import Store
from insta.users.v1 import events_pb2, events_pb2_grpc

_DEFAULT_LIMIT = 100


class EventServicer(events_pb2_grpc.EventServiceServicer):
    def __init__(self, store: Store, draining: asyncio.Event) -> None:
        self._store = store
        self._draining = draining

    async def ReadEvents(self, request: events_pb2.ReadEventsRequest, context: object) -> events_pb2.ReadEventsResponse:
        batch = await events.wait_for(
            self._store,
            request.offset,
            request.start_time.ToMicroseconds(),
            request.limit or _DEFAULT_LIMIT,
            request.wait.ToMilliseconds() / 1000,
            self._draining,
        )
        return events_pb2.ReadEventsResponse(
            events=map(_event, batch.events), next_offset=batch.next_offset, epoch=batch.epoch
        )


def _event(stored: events.Event) -> events_pb2.Event:
    event = events_pb2.Event.FromString(bytes(stored.payload))
    event.offset = stored.offset
    event.time.CopyFrom(clock.timestamp(stored.time))
    return event

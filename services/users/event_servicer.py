"""EventService: the event log for other services."""

from __future__ import annotations

import asyncio

from chassis import events
from chassis.store import Store
from insta.users.v1 import events_pb2, events_pb2_grpc
from services.users import accounts


class EventServicer(events_pb2_grpc.EventServiceServicer):
    def __init__(self, store: Store, draining: asyncio.Event) -> None:
        self._store = store
        self._draining = draining

    async def ReadEvents(self, request: events_pb2.ReadEventsRequest, context: object) -> events_pb2.ReadEventsResponse:
        return await events.answer(self._store, self._draining, request, events_pb2.ReadEventsResponse)

    async def FindMissingUsers(
        self, request: events_pb2.FindMissingUsersRequest, context: object
    ) -> events_pb2.FindMissingUsersResponse:
        missing = await self._store.read(accounts.missing, request.user_ids)
        return events_pb2.FindMissingUsersResponse(user_ids=missing)

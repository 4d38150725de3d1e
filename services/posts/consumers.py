"""What the posts service learns from the event log of the users service: who is gone."""

from __future__ import annotations

from google.protobuf import duration_pb2

from chassis import tombstones
from chassis.consumer import TIMEOUT_SECONDS, WAIT_SECONDS, Consumer
from chassis.replay import Reply
from chassis.service import Parts
from chassis.store import Database
from chassis.tombstones import USER, bury_missing, referred_to
from insta.users.v1 import events_pb2, events_pb2_grpc
from services.posts.models import AuthorCounter, Media, Post, Upload

_WAIT = duration_pb2.Duration(seconds=WAIT_SECONDS)

_OWNED = (Post.author_id, AuthorCounter.author_id, Media.owner_id, Upload.owner_id, Reply.caller_id)
_AUTHORS = [referred_to(field) for field in _OWNED]


def users(parts: Parts) -> Consumer:
    """Follows who was deleted."""
    stub = events_pb2_grpc.EventServiceStub(parts.channels["users"])

    async def read(offset: int, limit: int) -> events_pb2.ReadEventsResponse:
        request = events_pb2.ReadEventsRequest(offset=offset, limit=limit, wait=_WAIT)
        return await stub.ReadEvents(request, timeout=TIMEOUT_SECONDS)

    def apply(db: Database, event: events_pb2.Event) -> None:
        if event.WhichOneof("payload") == "user_deleted":
            tombstones.add(db, USER, event.user_deleted.user_id)

    async def missing(user_ids: list[int]) -> list[int]:
        request = events_pb2.FindMissingUsersRequest(user_ids=user_ids)
        return list((await stub.FindMissingUsers(request)).user_ids)

    async def compare() -> None:
        await bury_missing(parts.store, USER, _AUTHORS, missing)

    lag = parts.metrics.consumer_lag("posts", "users")
    return Consumer(parts.store, "users", read, apply, compare, lag.set, parts.tracer)

"""What the social service learns from the event logs of others: who and what is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from google.protobuf import duration_pb2

from chassis import tombstones
from chassis.consumer import TIMEOUT_SECONDS, WAIT_SECONDS, Consumer, position_of
from chassis.replay import Reply
from chassis.service import Parts
from chassis.store import Database
from chassis.tombstones import POST, USER, bury_missing, referred_to
from insta.posts.v1 import events_pb2 as post_events_pb2
from insta.posts.v1 import events_pb2_grpc as post_events_pb2_grpc
from insta.users.v1 import events_pb2 as user_events_pb2
from insta.users.v1 import events_pb2_grpc as user_events_pb2_grpc
from services.social.models import Comment, Follow, Like, PostCounter, UserCounter

_WAIT = duration_pb2.Duration(seconds=WAIT_SECONDS)


_USERS = [
    referred_to(field)
    for field in (
        Like.user_id,
        Comment.author_id,
        Follow.follower_id,
        Follow.followee_id,
        UserCounter.user_id,
        Reply.caller_id,
    )
]
_POSTS = [referred_to(field) for field in (Like.post_id, Comment.post_id, PostCounter.post_id)]


def users(parts: Parts) -> Consumer:
    """Follows who was deleted."""
    stub = user_events_pb2_grpc.EventServiceStub(parts.channels["users"])

    async def read(offset: int, limit: int) -> user_events_pb2.ReadEventsResponse:
        request = user_events_pb2.ReadEventsRequest(offset=offset, limit=limit, wait=_WAIT)
        return await stub.ReadEvents(request, timeout=TIMEOUT_SECONDS)

    async def missing(user_ids: list[int]) -> list[int]:
        request = user_events_pb2.FindMissingUsersRequest(user_ids=user_ids)
        return list((await stub.FindMissingUsers(request)).user_ids)

    def apply(db: Database, event: user_events_pb2.Event) -> None:
        if event.WhichOneof("payload") == "user_deleted":
            tombstones.add(db, USER, event.user_deleted.user_id)

    async def compare() -> None:
        await bury_missing(parts.store, USER, _USERS, missing)

    lag = parts.metrics.consumer_lag("social", "users")
    return Consumer(parts.store, "users", read, apply, compare, lag.set, parts.tracer)


def posts(parts: Parts) -> Consumer:
    """Follows what was deleted."""
    stub = post_events_pb2_grpc.EventServiceStub(parts.channels["posts"])

    async def read(offset: int, limit: int) -> post_events_pb2.ReadEventsResponse:
        request = post_events_pb2.ReadEventsRequest(offset=offset, limit=limit, wait=_WAIT)
        return await stub.ReadEvents(request, timeout=TIMEOUT_SECONDS)

    async def missing(post_ids: list[int]) -> list[int]:
        request = post_events_pb2.FindMissingPostsRequest(post_ids=post_ids)
        return list((await stub.FindMissingPosts(request)).post_ids)

    def apply(db: Database, event: post_events_pb2.Event) -> None:
        if event.WhichOneof("payload") == "post_deleted":
            tombstones.add(db, POST, event.post_deleted.post_id)

    async def compare() -> None:
        await bury_missing(parts.store, POST, _POSTS, missing)

    lag = parts.metrics.consumer_lag("social", "posts")
    return Consumer(parts.store, "posts", read, apply, compare, lag.set, parts.tracer)


def heard_of_all_posts(parts: Parts) -> Callable[[], Awaitable[bool]]:
    """Tells whether everything that happened to posts until now is known here."""
    stub = post_events_pb2_grpc.EventServiceStub(parts.channels["posts"])

    async def heard() -> bool:
        position = await parts.store.read(position_of, "posts")
        log = await stub.ReadEvents(post_events_pb2.ReadEventsRequest(offset=position.offset, limit=1))
        # A service of an older version tells its head only.
        newest = max(log.newest_offset, log.head_offset)
        return position.offset == newest and position.epoch in ("", log.epoch)

    return heard

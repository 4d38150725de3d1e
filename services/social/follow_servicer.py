"""FollowService: follows over gRPC."""

from __future__ import annotations

from functools import partial

from chassis import errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.social.v1 import follows_pb2, follows_pb2_grpc
from services.social import existence, follows


class FollowServicer(follows_pb2_grpc.FollowServiceServicer):
    def __init__(self, store: Store, replies: Replies, pager: Pager, users: existence.Users) -> None:
        self._store = store
        self._replies = replies
        self._pager = pager
        self._users = users

    async def Follow(self, request: follows_pb2.FollowRequest, context: object) -> follows_pb2.FollowResponse:
        if request.followee_id == caller().user_id:
            raise errors.FailedPrecondition(Reason.REASON_SELF_FOLLOW, "nobody can follow themselves")
        follower_id = caller().user_id

        def follow(db: Database) -> follows_pb2.FollowResponse:
            return follows_pb2.FollowResponse(follower_count=follows.add(db, follower_id, request.followee_id))

        exists = partial(self._users.require, request.followee_id)
        return await self._replies.write(request, follows_pb2.FollowResponse, follow, ask=exists)

    async def Unfollow(self, request: follows_pb2.UnfollowRequest, context: object) -> follows_pb2.UnfollowResponse:
        follower_id = caller().user_id
        if not await self._store.read(follows.exists, follower_id, request.followee_id):
            await self._users.require(request.followee_id)

        def unfollow(db: Database) -> follows_pb2.UnfollowResponse:
            return follows_pb2.UnfollowResponse(follower_count=follows.remove(db, follower_id, request.followee_id))

        return await self._replies.write(request, follows_pb2.UnfollowResponse, unfollow)

    async def ListFollowers(
        self, request: follows_pb2.ListFollowersRequest, context: object
    ) -> follows_pb2.ListFollowersResponse:
        start = self._pager.start(request)
        await self._users.require(request.user_id)
        found = await self._store.read(follows.followers, request.user_id, start, self._pager.size(request) + 1)
        page, token = self._pager.page(request, found, lambda follow: follow.id)
        return follows_pb2.ListFollowersResponse(
            follower_ids=(follow.user_id for follow in page), next_page_token=token
        )

    async def ListFollowees(
        self, request: follows_pb2.ListFolloweesRequest, context: object
    ) -> follows_pb2.ListFolloweesResponse:
        start = self._pager.start(request)
        await self._users.require(request.user_id)
        found = await self._store.read(follows.followees, request.user_id, start, self._pager.size(request) + 1)
        page, token = self._pager.page(request, found, lambda follow: follow.id)
        return follows_pb2.ListFolloweesResponse(
            followee_ids=(follow.user_id for follow in page), next_page_token=token
        )

    async def ListFolloweeIds(
        self, request: follows_pb2.ListFolloweeIdsRequest, context: object
    ) -> follows_pb2.ListFolloweeIdsResponse:
        return follows_pb2.ListFolloweeIdsResponse(
            followee_ids=await self._store.read(follows.followee_ids, caller().user_id)
        )

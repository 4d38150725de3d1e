"""LikeService: likes over gRPC."""

from __future__ import annotations

from functools import partial

from chassis.call import caller
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.social.v1 import likes_pb2, likes_pb2_grpc
from services.social import existence, likes


class LikeServicer(likes_pb2_grpc.LikeServiceServicer):
    def __init__(self, store: Store, replies: Replies, pager: Pager, posts: existence.Posts) -> None:
        self._store = store
        self._replies = replies
        self._pager = pager
        self._posts = posts

    async def LikePost(self, request: likes_pb2.LikePostRequest, context: object) -> likes_pb2.LikePostResponse:
        user_id = caller().user_id

        def like(db: Database) -> likes_pb2.LikePostResponse:
            return likes_pb2.LikePostResponse(like_count=likes.add(db, request.post_id, user_id))

        exists = partial(self._posts.require, request.post_id)
        return await self._replies.write(request, likes_pb2.LikePostResponse, like, ask=exists)

    async def UnlikePost(self, request: likes_pb2.UnlikePostRequest, context: object) -> likes_pb2.UnlikePostResponse:
        user_id = caller().user_id
        if not await self._store.read(likes.exists, user_id, request.post_id):
            await self._posts.require(request.post_id)

        def unlike(db: Database) -> likes_pb2.UnlikePostResponse:
            return likes_pb2.UnlikePostResponse(like_count=likes.remove(db, request.post_id, user_id))

        return await self._replies.write(request, likes_pb2.UnlikePostResponse, unlike)

    async def ListLikes(self, request: likes_pb2.ListLikesRequest, context: object) -> likes_pb2.ListLikesResponse:
        start = self._pager.start(request)
        await self._posts.require(request.post_id)
        found = await self._store.read(likes.of_post, request.post_id, start, self._pager.size(request) + 1)
        page, token = self._pager.page(request, found, lambda like: like.id)
        return likes_pb2.ListLikesResponse(user_ids=(like.user_id for like in page), next_page_token=token)

"""StatsService: counters over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from chassis.call import caller
from chassis.store import Store
from insta.social.v1 import stats_pb2, stats_pb2_grpc
from services.social import erasure, stats


class StatsServicer(stats_pb2_grpc.StatsServiceServicer):
    def __init__(self, store: Store, heard_of_all_posts: Callable[[], Awaitable[bool]]) -> None:
        self._store = store
        self._heard_of_all_posts = heard_of_all_posts

    async def BatchGetPostStats(
        self, request: stats_pb2.BatchGetPostStatsRequest, context: object
    ) -> stats_pb2.BatchGetPostStatsResponse:
        found = await self._store.read(stats.of_posts, caller().user_id, request.post_ids)
        return stats_pb2.BatchGetPostStatsResponse(
            stats=(
                stats_pb2.PostStats(
                    post_id=post.post_id,
                    like_count=post.like_count,
                    comment_count=post.comment_count,
                    viewer_liked=post.viewer_liked,
                )
                for post in found
            )
        )

    async def BatchGetUserStats(
        self, request: stats_pb2.BatchGetUserStatsRequest, context: object
    ) -> stats_pb2.BatchGetUserStatsResponse:
        found = await self._store.read(stats.of_users, caller().user_id, request.user_ids)
        return stats_pb2.BatchGetUserStatsResponse(
            stats=(
                stats_pb2.UserStats(
                    user_id=user.user_id,
                    follower_count=user.follower_count,
                    followee_count=user.followee_count,
                    viewer_follows=user.viewer_follows,
                    follows_viewer=user.follows_viewer,
                )
                for user in found
            )
        )

    async def GetErasure(self, request: stats_pb2.GetErasureRequest, context: object) -> stats_pb2.GetErasureResponse:
        # Before the rows are counted: what was heard until then has its tombstone.
        heard = await self._heard_of_all_posts()
        erased, left = await self._store.read_long(erasure.left_of, request.user_id)
        return stats_pb2.GetErasureResponse(erased=erased and heard, left=left)

"""FeedService: the posts of whom one follows."""

from __future__ import annotations

from collections.abc import Collection

from gateway import hydrate
from gateway.backends import Backends
from insta.gateway.v1 import feed_pb2, feed_pb2_grpc
from insta.posts.v1 import posts_pb2
from insta.social.v1 import follows_pb2


class FeedServicer(feed_pb2_grpc.FeedServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def ListHomeFeed(
        self, request: feed_pb2.ListHomeFeedRequest, context: object
    ) -> feed_pb2.ListHomeFeedResponse:
        followees = await self._backends.follows.ListFolloweeIds(follows_pb2.ListFolloweeIdsRequest())
        author_ids: Collection[int] = followees.followee_ids
        while True:
            page = await self._backends.posts.ListPostsByAuthors(
                posts_pb2.ListPostsByAuthorsRequest(
                    author_ids=author_ids, page_size=request.page_size, page_token=request.page_token
                )
            )
            posts = await hydrate.posts(self._backends, page.posts)
            gone = {post.author.id for post in posts if post.author.gone}
            if not gone:
                return feed_pb2.ListHomeFeedResponse(posts=posts, next_page_token=page.next_page_token)
            # Deleted a moment ago: neither their posts nor the follows have been erased yet.
            author_ids = set(author_ids) - gone

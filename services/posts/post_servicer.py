"""PostService: posts over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import message

from chassis import errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.masks import masked
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from services.posts import erasure, feed, posts
from services.posts.media import records
from services.posts.messages import Messages, fitting


class PostServicer(posts_pb2_grpc.PostServiceServicer):
    def __init__(self, store: Store, replies: Replies, pager: Pager, messages: Messages) -> None:
        self._store = store
        self._replies = replies
        self._pager = pager
        self._messages = messages

    async def CreatePost(self, request: posts_pb2.CreatePostRequest, context: object) -> posts_pb2.CreatePostResponse:

        def create(db: Database) -> posts_pb2.CreatePostResponse:
            post, media = posts.create(
                db, caller().user_id, request.title, request.description, request.image_urls, request.media_ids
            )
            return posts_pb2.CreatePostResponse(post=self._messages.post(post, media))

        return await self._replies.write(request, posts_pb2.CreatePostResponse, create)

    async def GetPost(self, request: posts_pb2.GetPostRequest, context: object) -> posts_pb2.GetPostResponse:
        post, media = await self._store.read(posts.get_with_media, request.post_id)
        return posts_pb2.GetPostResponse(post=self._messages.post(post, media))

    async def BatchGetPosts(
        self, request: posts_pb2.BatchGetPostsRequest, context: object
    ) -> posts_pb2.BatchGetPostsResponse:
        rows, media = await self._store.read(posts.batch_with_media, request.post_ids)
        found = self._messages.posts(rows, media)
        if fitting(found) < len(found):
            text = f"the {len(found)} posts are too large for one answer: ask for fewer at once, half of them or so"
            raise errors.ResourceExhausted(Reason.REASON_ANSWER_TOO_LARGE, text)
        return posts_pb2.BatchGetPostsResponse(posts=found)

    async def ListPostsByAuthor(
        self, request: posts_pb2.ListPostsByAuthorRequest, context: object
    ) -> posts_pb2.ListPostsByAuthorResponse:
        found = await self._store.read(
            posts.by_author, request.author_id, self._pager.start(request), self._pager.size(request) + 1
        )
        page, token = await self._page(request, found)
        return posts_pb2.ListPostsByAuthorResponse(posts=page, next_page_token=token)

    async def ListPostsByAuthors(
        self, request: posts_pb2.ListPostsByAuthorsRequest, context: object
    ) -> posts_pb2.ListPostsByAuthorsResponse:
        # A token is good for other authors, too: whom somebody follows changes between two pages.
        anybody = posts_pb2.ListPostsByAuthorsRequest(page_size=request.page_size, page_token=request.page_token)
        found = await self._store.read(
            feed.by_authors, request.author_ids, self._pager.start(anybody), self._pager.size(anybody) + 1
        )
        page, token = await self._page(anybody, found)
        return posts_pb2.ListPostsByAuthorsResponse(posts=page, next_page_token=token)

    async def BatchCountPosts(
        self, request: posts_pb2.BatchCountPostsRequest, context: object
    ) -> posts_pb2.BatchCountPostsResponse:
        counts = await self._store.read(posts.counts, request.author_ids)
        return posts_pb2.BatchCountPostsResponse(
            counts=(posts_pb2.AuthorPostCount(author_id=c.author_id, post_count=c.post_count) for c in counts)
        )

    async def UpdatePost(self, request: posts_pb2.UpdatePostRequest, context: object) -> posts_pb2.UpdatePostResponse:
        wanted = request.post
        values = {
            "title": wanted.title,
            "description": wanted.description,
            "image_urls": list(wanted.image_urls),
            "media": [media.id for media in wanted.media],
        }
        changes = masked(values, request.update_mask)

        def update(db: Database) -> posts_pb2.UpdatePostResponse:
            post, media = posts.update(db, caller(), wanted.id, changes)
            return posts_pb2.UpdatePostResponse(post=self._messages.post(post, media))

        return await self._replies.write(request, posts_pb2.UpdatePostResponse, update)

    async def DeletePost(self, request: posts_pb2.DeletePostRequest, context: object) -> posts_pb2.DeletePostResponse:

        def delete(db: Database) -> posts_pb2.DeletePostResponse:
            posts.delete(db, caller(), request.post_id)
            return posts_pb2.DeletePostResponse()

        return await self._replies.write(request, posts_pb2.DeletePostResponse, delete)

    async def GetErasure(self, request: posts_pb2.GetErasureRequest, context: object) -> posts_pb2.GetErasureResponse:
        erased, left = await self._store.read_long(erasure.left_of, request.user_id)
        return posts_pb2.GetErasureResponse(erased=erased, left=left)

    async def _page(
        self, request: message.Message, found: Sequence[posts.PostRow]
    ) -> tuple[Sequence[posts_pb2.Post], str]:
        """A page of the posts that were found, as many as an answer has room for, and the token of the next."""
        rows, token = self._pager.page(request, found, lambda post: post.id)
        page = await self._with_media(rows)
        room = fitting(page)
        if room < len(page):
            page = page[:room]
            token = self._pager.token(request, page[-1].id)
        return page, token

    async def _with_media(self, found: Sequence[posts.PostRow]) -> list[posts_pb2.Post]:
        media = await self._store.read(records.of_posts, [post.id for post in found])
        return self._messages.posts(found, media)

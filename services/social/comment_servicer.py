"""CommentService: comments over gRPC."""

from __future__ import annotations

from functools import partial

from chassis import clock, errors
from chassis.call import caller
from chassis.errors import Reason
from chassis.paging import Pager
from chassis.replay import Replies
from chassis.store import Database, Store
from insta.social.v1 import comments_pb2, comments_pb2_grpc
from services.social import comments, existence


class CommentServicer(comments_pb2_grpc.CommentServiceServicer):
    def __init__(self, store: Store, replies: Replies, pager: Pager, posts: existence.Posts) -> None:
        self._store = store
        self._replies = replies
        self._pager = pager
        self._posts = posts

    async def CreateComment(
        self, request: comments_pb2.CreateCommentRequest, context: object
    ) -> comments_pb2.CreateCommentResponse:
        author_id = caller().user_id

        def create(db: Database) -> comments_pb2.CreateCommentResponse:
            comment = comments.create(db, request.post_id, author_id, request.text)
            return comments_pb2.CreateCommentResponse(comment=comment_message(comment))

        exists = partial(self._posts.require, request.post_id)
        return await self._replies.write(request, comments_pb2.CreateCommentResponse, create, ask=exists)

    async def UpdateComment(
        self, request: comments_pb2.UpdateCommentRequest, context: object
    ) -> comments_pb2.UpdateCommentResponse:
        author_id = caller().user_id

        def update(db: Database) -> comments_pb2.UpdateCommentResponse:
            comment = comments.update(db, author_id, request.comment_id, request.text)
            return comments_pb2.UpdateCommentResponse(comment=comment_message(comment))

        return await self._replies.write(request, comments_pb2.UpdateCommentResponse, update)

    async def DeleteComment(
        self, request: comments_pb2.DeleteCommentRequest, context: object
    ) -> comments_pb2.DeleteCommentResponse:
        comment = await self._store.read(comments.get, request.comment_id)
        allowed = caller().staff or caller().user_id == comment.author_id
        if not allowed and caller().user_id != await self._posts.author_id(comment.post_id):
            text = "only its author, the post's author and staff can delete a comment"
            raise errors.PermissionDenied(Reason.REASON_NOT_OWNER, text)

        def delete(db: Database) -> comments_pb2.DeleteCommentResponse:
            comments.delete(db, request.comment_id)
            return comments_pb2.DeleteCommentResponse()

        return await self._replies.write(request, comments_pb2.DeleteCommentResponse, delete)

    async def ListComments(
        self, request: comments_pb2.ListCommentsRequest, context: object
    ) -> comments_pb2.ListCommentsResponse:
        start = self._pager.start(request)
        await self._posts.require(request.post_id)
        found = await self._store.read(comments.on_post, request.post_id, start, self._pager.size(request) + 1)
        page, token = self._pager.page(request, found, lambda comment: comment.id)
        return comments_pb2.ListCommentsResponse(comments=map(comment_message, page), next_page_token=token)


def comment_message(comment: comments.CommentRow) -> comments_pb2.Comment:
    """A row as the message of the contract."""
    message = comments_pb2.Comment(
        id=comment.id, post_id=comment.post_id, author_id=comment.author_id, text=comment.text
    )
    clock.set_timestamp(message.create_time, comment.create_time)
    clock.set_timestamp(message.update_time, comment.update_time)
    return message

"""PostService: posts, and what people do with them."""

from __future__ import annotations

from gateway import hydrate, views
from gateway.backends import Backends
from insta.gateway.v1 import posts_pb2, posts_pb2_grpc
from insta.posts.v1 import media_pb2
from insta.posts.v1 import posts_pb2 as stored_posts_pb2
from insta.social.v1 import comments_pb2, likes_pb2


class PostServicer(posts_pb2_grpc.PostServiceServicer):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def CreatePost(self, request: posts_pb2.CreatePostRequest, context: object) -> posts_pb2.CreatePostResponse:
        created = await self._backends.posts.CreatePost(
            stored_posts_pb2.CreatePostRequest(
                title=request.title,
                description=request.description,
                image_urls=request.image_urls,
                media_ids=request.media_ids,
                request_id=request.request_id,
            )
        )
        authors = await self._backends.short_profiles.of([created.post.author_id])
        # Nobody has seen it yet: there is nothing to count.
        return posts_pb2.CreatePostResponse(post=views.post(created.post, authors, {}))

    async def GetPost(self, request: posts_pb2.GetPostRequest, context: object) -> posts_pb2.GetPostResponse:
        found = await self._backends.posts.GetPost(stored_posts_pb2.GetPostRequest(post_id=request.post_id))
        return posts_pb2.GetPostResponse(post=await self._seen(found.post))

    async def BatchGetPosts(
        self, request: posts_pb2.BatchGetPostsRequest, context: object
    ) -> posts_pb2.BatchGetPostsResponse:
        post_ids = list(dict.fromkeys(request.post_ids))
        found = await self._backends.posts.BatchGetPosts(stored_posts_pb2.BatchGetPostsRequest(post_ids=post_ids))
        posts = {post.id: post for post in found.posts}
        in_order = [posts[post_id] for post_id in post_ids if post_id in posts]
        return posts_pb2.BatchGetPostsResponse(posts=await hydrate.posts(self._backends, in_order))

    async def UpdatePost(self, request: posts_pb2.UpdatePostRequest, context: object) -> posts_pb2.UpdatePostResponse:
        wanted = request.post
        updated = await self._backends.posts.UpdatePost(
            stored_posts_pb2.UpdatePostRequest(
                post=stored_posts_pb2.Post(
                    id=wanted.id,
                    title=wanted.title,
                    description=wanted.description,
                    image_urls=wanted.image_urls,
                    media=(media_pb2.Media(id=media.id) for media in wanted.media),
                ),
                update_mask=request.update_mask,
                request_id=request.request_id,
            )
        )
        return posts_pb2.UpdatePostResponse(post=await self._seen(updated.post))

    async def DeletePost(self, request: posts_pb2.DeletePostRequest, context: object) -> posts_pb2.DeletePostResponse:
        await self._backends.posts.DeletePost(
            stored_posts_pb2.DeletePostRequest(post_id=request.post_id, request_id=request.request_id)
        )
        return posts_pb2.DeletePostResponse()

    async def LikePost(self, request: posts_pb2.LikePostRequest, context: object) -> posts_pb2.LikePostResponse:
        like = await self._backends.likes.LikePost(
            likes_pb2.LikePostRequest(post_id=request.post_id, request_id=request.request_id)
        )
        return posts_pb2.LikePostResponse(like_count=like.like_count)

    async def UnlikePost(self, request: posts_pb2.UnlikePostRequest, context: object) -> posts_pb2.UnlikePostResponse:
        unlike = await self._backends.likes.UnlikePost(
            likes_pb2.UnlikePostRequest(post_id=request.post_id, request_id=request.request_id)
        )
        return posts_pb2.UnlikePostResponse(like_count=unlike.like_count)

    async def ListPostLikes(
        self, request: posts_pb2.ListPostLikesRequest, context: object
    ) -> posts_pb2.ListPostLikesResponse:
        page = await self._backends.likes.ListLikes(
            likes_pb2.ListLikesRequest(
                post_id=request.post_id, page_size=request.page_size, page_token=request.page_token
            )
        )
        return posts_pb2.ListPostLikesResponse(
            profiles=await hydrate.short_profiles(self._backends, page.user_ids), next_page_token=page.next_page_token
        )

    async def CreateComment(
        self, request: posts_pb2.CreateCommentRequest, context: object
    ) -> posts_pb2.CreateCommentResponse:
        created = await self._backends.comments.CreateComment(
            comments_pb2.CreateCommentRequest(post_id=request.post_id, text=request.text, request_id=request.request_id)
        )
        (comment,) = await hydrate.comments(self._backends, [created.comment])
        return posts_pb2.CreateCommentResponse(comment=comment)

    async def UpdateComment(
        self, request: posts_pb2.UpdateCommentRequest, context: object
    ) -> posts_pb2.UpdateCommentResponse:
        updated = await self._backends.comments.UpdateComment(
            comments_pb2.UpdateCommentRequest(
                comment_id=request.comment_id, text=request.text, request_id=request.request_id
            )
        )
        (comment,) = await hydrate.comments(self._backends, [updated.comment])
        return posts_pb2.UpdateCommentResponse(comment=comment)

    async def DeleteComment(
        self, request: posts_pb2.DeleteCommentRequest, context: object
    ) -> posts_pb2.DeleteCommentResponse:
        await self._backends.comments.DeleteComment(
            comments_pb2.DeleteCommentRequest(comment_id=request.comment_id, request_id=request.request_id)
        )
        return posts_pb2.DeleteCommentResponse()

    async def ListComments(
        self, request: posts_pb2.ListCommentsRequest, context: object
    ) -> posts_pb2.ListCommentsResponse:
        page = await self._backends.comments.ListComments(
            comments_pb2.ListCommentsRequest(
                post_id=request.post_id, page_size=request.page_size, page_token=request.page_token
            )
        )
        return posts_pb2.ListCommentsResponse(
            comments=await hydrate.comments(self._backends, page.comments), next_page_token=page.next_page_token
        )

    async def _seen(self, stored: stored_posts_pb2.Post) -> posts_pb2.Post:
        (post,) = await hydrate.posts(self._backends, [stored])
        return post

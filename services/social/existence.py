"""Whether the posts and people exist that others like, comment on and follow. Other services know."""

from __future__ import annotations

from typing import Any

from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from insta.users.v1 import users_pb2, users_pb2_grpc


class Posts:
    """The posts of the posts service."""

    def __init__(self, channel: Any) -> None:
        self._posts = posts_pb2_grpc.PostServiceStub(channel)

    async def require(self, post_id: int) -> posts_pb2.Post:
        """The post. A call for one that does not exist fails with NOT_FOUND."""
        return (await self._posts.GetPost(posts_pb2.GetPostRequest(post_id=post_id))).post

    async def author_id(self, post_id: int) -> int | None:
        """Who wrote the post. None: there is no such post."""
        found = await self._posts.BatchGetPosts(posts_pb2.BatchGetPostsRequest(post_ids=[post_id]))
        return found.posts[0].author_id if found.posts else None


class Users:
    """The people of the users service."""

    def __init__(self, channel: Any) -> None:
        self._users = users_pb2_grpc.UserServiceStub(channel)

    async def require(self, user_id: int) -> users_pb2.User:
        """The person. A call for one that does not exist fails with NOT_FOUND."""
        return (await self._users.GetUser(users_pb2.GetUserRequest(user_id=user_id))).user

"""The calls of the mix in the two APIs, as a load takes them, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks import data
from benchmarks.load import Call, http, rpc
from benchmarks.mix.checker import Seen
from benchmarks.mix.plan import PAGE_SIZE, Arrival, Kind
from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2

# As long as those that are there.
_TITLE = data.TITLE.format(20_000)


class Api(Protocol):
    """How a side is called. The token of the user with the id 1 is the first of a load's tokens, and so on."""

    def call(self, arrival: Arrival) -> Call: ...

    def page(self, kind: Kind, answer: bytes) -> list[Seen]:
        """The posts on a page."""

    def created(self, answer: bytes) -> int:
        """The id of a new post."""


class Grpc:
    """The suite's API."""

    def call(self, arrival: Arrival) -> Call:
        token = arrival.caller - 1
        match arrival.kind:
            case Kind.HOME:
                home = feed_pb2.ListHomeFeedRequest(page_size=PAGE_SIZE)
                return rpc("/insta.gateway.v1.FeedService/ListHomeFeed", home, token)
            case Kind.TIMELINE:
                timeline = profiles_pb2.ListProfilePostsRequest(user_id=arrival.subject, page_size=PAGE_SIZE)
                return rpc("/insta.gateway.v1.ProfileService/ListProfilePosts", timeline, token)
            case Kind.CREATE:
                # With a name, as clients send it that want to be able to try again.
                post = posts_pb2.CreatePostRequest(title=_TITLE, description=data.DESCRIPTION, request_id=arrival.name)
                return rpc("/insta.gateway.v1.PostService/CreatePost", post, token)

    def page(self, kind: Kind, answer: bytes) -> list[Seen]:
        page: Any = feed_pb2.ListHomeFeedResponse if kind is Kind.HOME else profiles_pb2.ListProfilePostsResponse
        posts: Sequence[posts_pb2.Post] = page.FromString(answer).posts
        return [Seen(post.id, post.author.id, post.like_count, post.comment_count) for post in posts]

    def created(self, answer: bytes) -> int:
        return posts_pb2.CreatePostResponse.FromString(answer).post.id


class Rest:
    """The peer's API."""

    def call(self, arrival: Arrival) -> Call:
        token = arrival.caller - 1
        match arrival.kind:
            case Kind.HOME:
                return http(f"GET /feed?page_size={PAGE_SIZE}", token=token)
            case Kind.TIMELINE:
                return http(f"GET /users/{arrival.subject}/posts?page_size={PAGE_SIZE}", token=token)
            case Kind.CREATE:
                return http("POST /posts", {"title": _TITLE, "description": data.DESCRIPTION}, token)

    def page(self, kind: Kind, answer: bytes) -> list[Seen]:
        posts = json.loads(answer)["results"]
        return [Seen(post["id"], post["user"]["id"], post["like_count"], post["comment_count"]) for post in posts]

    def created(self, answer: bytes) -> int:
        post_id: int = json.loads(answer)["id"]
        return post_id

"""The kinds of call that are compared: how each is made over both protocols, and what its answer has to say."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from benchmarks import data
from benchmarks.data import Seed
from benchmarks.load import GRPC, HTTP, Call, Outcome, http, rpc
from insta.gateway.v1 import feed_pb2, posts_pb2, profiles_pb2

PAGE = 20
# People whose calls they are, in turn, as many who look and who write.
_PEOPLE = 64
# As many calls are made in turn.
_DIFFERENT = 1_000

_POSTS = "/insta.gateway.v1.PostService/"


@dataclass(frozen=True)
class Kind:
    """A kind of call, the same on all sides.

    Attributes:
        calls: Over each protocol. Each call to it begins where the last one ended.
        once: Whether a call is made once only: again it would change nothing, or something else.
        says: What an answer says, in the same words over both protocols.
        right: What the answer to a call has to say. Takes its number.
    """

    name: str
    calls: Mapping[str, Callable[[], Iterator[Call]]]
    says: Mapping[str, Callable[[bytes], Any]]
    right: Callable[[int], Any]
    once: bool = False

    def wrong(self, protocol: str, outcomes: Sequence[Outcome]) -> list[tuple[Any, Any]]:
        """Of the answers that were kept, those that are not as they have to be: what they say, and what they should."""
        said = [(self.says[protocol](each.message), self.right(each.call)) for each in outcomes if each.answer]
        return [(answer, right) for answer, right in said if answer != right]


class Kinds:
    """The kinds of call to a seed.

    Attributes:
        people: Whose tokens the calls take.
    """

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._random = Random(2)
        # A few users draw themselves among those whom they follow, and follow one less.
        most = max(len(followees) for followees in seed.followees.values())
        full = [user for user, followees in seed.followees.items() if len(followees) == most]
        viewers = full[: min(_PEOPLE, seed.users // 20)]
        # Nobody who looks follows them: feeds stay as they are.
        followed = set().union(*(seed.followees[viewer] for viewer in viewers))
        self._writers = [user for user in seed.followees if user not in followed][:_PEOPLE]
        self._viewers = range(len(viewers))
        self.people = [*viewers, *self._writers]

    def all(self) -> list[Kind]:
        """What changes nothing first."""
        return [
            self._get_post(),
            self._list_home_feed(),
            self._get_profile(),
            self._list_comments(),
            self._create_post(),
            self._like_post(),
        ]

    def _get_post(self) -> Kind:
        return self._read(
            "GetPost",
            self._some(range(1, self._seed.posts + 1)),
            lambda post, token: rpc(f"{_POSTS}GetPost", posts_pb2.GetPostRequest(post_id=post), token),
            lambda post, token: http(f"GET /posts/{post}", token=token),
            lambda answer: _post(posts_pb2.GetPostResponse.FromString(answer).post),
            lambda answer: _post_json(json.loads(answer)),
            self._post,
        )

    def _list_home_feed(self) -> Kind:
        request = feed_pb2.ListHomeFeedRequest(page_size=PAGE)
        return self._read(
            "ListHomeFeed",
            self._some([0]),
            lambda _, token: rpc("/insta.gateway.v1.FeedService/ListHomeFeed", request, token),
            lambda _, token: http("GET /feed", token=token),
            lambda answer: [_post(post) for post in feed_pb2.ListHomeFeedResponse.FromString(answer).posts],
            lambda answer: [_post_json(post) for post in json.loads(answer)["results"]],
            self._feed,
        )

    def _get_profile(self) -> Kind:
        method = "/insta.gateway.v1.ProfileService/GetProfile"
        return self._read(
            "GetProfile",
            self._some(range(1, self._seed.users + 1)),
            lambda user, token: rpc(method, profiles_pb2.GetProfileRequest(user_id=user), token),
            lambda user, token: http(f"GET /users/{user}", token=token),
            lambda answer: _profile(profiles_pb2.GetProfileResponse.FromString(answer).profile),
            lambda answer: _profile_json(json.loads(answer)),
            self._profile,
        )

    def _list_comments(self) -> Kind:
        return self._read(
            "ListComments",
            self._some(self._seed.discussed),
            lambda post, token: rpc(
                f"{_POSTS}ListComments", posts_pb2.ListCommentsRequest(post_id=post, page_size=PAGE), token
            ),
            lambda post, token: http(f"GET /posts/{post}/comments", token=token),
            lambda answer: [_comment(each) for each in posts_pb2.ListCommentsResponse.FromString(answer).comments],
            lambda answer: [_comment_json(each) for each in json.loads(answer)["results"]],
            self._comments,
        )

    def _create_post(self) -> Kind:
        def request(number: int) -> Any:
            return posts_pb2.CreatePostRequest(
                title=data.TITLE.format(number), description=data.DESCRIPTION, request_id=self._request_id()
            )

        return self._once(
            "CreatePost",
            lambda number, token: rpc(f"{_POSTS}CreatePost", request(number), token),
            lambda number, token: http(
                "POST /posts", {"title": data.TITLE.format(number), "description": data.DESCRIPTION}, token=token
            ),
            lambda: ((number, self._writer(number)) for number in itertools.count()),
            lambda answer: posts_pb2.CreatePostResponse.FromString(answer).post.id > self._seed.posts,
            lambda answer: json.loads(answer)["id"] > self._seed.posts,
        )

    def _like_post(self) -> Kind:
        posts = self._random.sample(range(1, self._seed.posts + 1), self._seed.posts)

        def pairs() -> Iterator[tuple[int, int]]:
            for turn in range(len(self._writers)):
                for place, post in enumerate(posts):
                    writer = self._writer(place + turn)
                    if (post, self.people[writer]) not in self._likes:
                        yield post, writer

        def request(post: int) -> Any:
            return posts_pb2.LikePostRequest(post_id=post, request_id=self._request_id())

        return self._once(
            "LikePost",
            lambda post, token: rpc(f"{_POSTS}LikePost", request(post), token),
            lambda post, token: http(f"POST /posts/{post}/like", token=token),
            pairs,
            lambda answer: posts_pb2.LikePostResponse.FromString(answer).like_count > data.LIKES,
            lambda answer: json.loads(answer)["liked"],
        )

    def _some(self, of: Sequence[int]) -> list[tuple[int, int]]:
        """What calls are about, chosen at random, and whose they are."""
        return [(self._random.choice(of), number % len(self._viewers)) for number in range(_DIFFERENT)]

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128)))

    def _writer(self, number: int) -> int:
        return len(self._viewers) + number % len(self._writers)

    def _read(
        self,
        name: str,
        asked: Sequence[tuple[int, int]],
        over_grpc: Callable[[int, int], Call],
        over_http: Callable[[int, int], Call],
        says_grpc: Callable[[bytes], Any],
        says_http: Callable[[bytes], Any],
        right: Callable[[int, int], Any],
    ) -> Kind:
        return Kind(
            name,
            {
                GRPC: lambda: (over_grpc(about, viewer) for about, viewer in asked),
                HTTP: lambda: (over_http(about, viewer) for about, viewer in asked),
            },
            {GRPC: says_grpc, HTTP: says_http},
            lambda number: right(asked[number][0], self.people[asked[number][1]]),
        )

    def _once(
        self,
        name: str,
        over_grpc: Callable[[int, int], Call],
        over_http: Callable[[int, int], Call],
        asked: Callable[[], Iterator[tuple[int, int]]],
        says_grpc: Callable[[bytes], bool],
        says_http: Callable[[bytes], bool],
    ) -> Kind:
        return Kind(
            name,
            {
                GRPC: lambda: (over_grpc(about, viewer) for about, viewer in asked()),
                HTTP: lambda: (over_http(about, viewer) for about, viewer in asked()),
            },
            {GRPC: says_grpc, HTTP: says_http},
            lambda number: True,
            once=True,
        )

    def _post(self, post: int, viewer: int) -> tuple[Any, ...]:
        author = self._seed.authors[post - 1]
        comments = data.DISCUSSION if post in self._seed.discussed else data.COMMENTS
        liked = (post, viewer) in self._likes
        return post, data.TITLE.format(post - 1), data.DESCRIPTION, author, f"u{author}", data.LIKES, comments, liked

    def _feed(self, _: int, viewer: int) -> list[tuple[Any, ...]]:
        followees = self._seed.followees[viewer]
        posts = [post for post, author in enumerate(self._seed.authors, 1) if author in followees]
        return [self._post(post, viewer) for post in sorted(posts, reverse=True)[:PAGE]]

    def _profile(self, user: int, viewer: int) -> tuple[Any, ...]:
        followers = sum(user in followees for followees in self._seed.followees.values())
        return user, f"u{user}", "", followers, len(self._seed.followees[user])

    def _comments(self, post: int, viewer: int) -> list[tuple[Any, ...]]:
        comments = [*self._seed.comments, *self._seed.discussion]
        of_post = [(number, author) for number, (about, author) in enumerate(comments, 1) if about == post]
        return [(number, data.TEXT, author, f"u{author}") for number, author in sorted(of_post, reverse=True)[:PAGE]]

    @cached_property
    def _likes(self) -> set[tuple[int, int]]:
        return set(self._seed.likes)


def _post(post: posts_pb2.Post) -> tuple[Any, ...]:
    author = post.author
    counts = (post.like_count, post.comment_count, post.viewer_liked)
    return post.id, post.title, post.description, author.id, author.username, *counts


def _post_json(post: dict[str, Any]) -> tuple[Any, ...]:
    author = post["user"]
    counts = (post["like_count"], post["comment_count"], post["liked_by_me"])
    return post["id"], post["title"], post["description"], author["id"], author["username"], *counts


def _profile(profile: profiles_pb2.Profile) -> tuple[Any, ...]:
    return profile.id, profile.username, profile.bio, profile.follower_count, profile.following_count


def _profile_json(profile: dict[str, Any]) -> tuple[Any, ...]:
    return profile["id"], profile["username"], profile["bio"], profile["followers"], profile["following"]


def _comment(comment: posts_pb2.Comment) -> tuple[Any, ...]:
    return comment.id, comment.text, comment.author.id, comment.author.username


def _comment_json(comment: dict[str, Any]) -> tuple[Any, ...]:
    return comment["id"], comment["comment_text"], comment["user"]["id"], comment["user"]["username"]

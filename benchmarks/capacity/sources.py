"""Calls of each kind of the assumed day, without end, and none made twice where that would change nothing."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from random import Random

from benchmarks import data
from benchmarks.data import Seed
from benchmarks.kinds import PAGE, Kinds
from benchmarks.load import GRPC, Call, rpc
from chassis.settings import Settings
from chassis.store import Database
from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from services.users import sessions
from suite.composition import SERVICES
from suite.databases import open_store

_POSTS, _PROFILES = "/insta.gateway.v1.PostService/", "/insta.gateway.v1.ProfileService/"
_REFRESH = "/insta.gateway.v1.AccountService/RefreshSession"
# Sessions that are begun at a time.
_SESSIONS = 500


class Sources:
    """The calls to one suite.

    Attributes:
        people: Whose tokens the calls take; after these comes one that is empty.
    """

    def __init__(self, seed: Seed, settings: Settings) -> None:
        self._seed = seed
        self._settings = settings
        self._random = Random(3)
        kinds = Kinds(seed)
        self.people = kinds.people
        self._writers = range(len(self.people) // 2, len(self.people))
        self._of: Mapping[str, Iterator[Call]] = {
            **{
                kind.name: kind.calls[GRPC]() if kind.once else itertools.cycle(kind.calls[GRPC]())
                for kind in kinds.all()
            },
            "ListProfilePosts": self._list_profile_posts(),
            "CreateComment": self._create_comment(),
            "FollowUser": self._follow_user(),
            "RefreshSession": self._refresh_session(),
        }

    @property
    def kinds(self) -> list[str]:
        """All kinds of call."""
        return list(self._of)

    def take(self, kind: str, count: int) -> list[Call]:
        """The next calls of a kind."""
        return list(itertools.islice(self._of[kind], count))

    def mixed(self, shares: Mapping[str, float], count: int) -> list[Call]:
        """The next calls of several kinds, drawn by their shares."""
        drawn = self._random.choices(list(shares), list(shares.values()), k=count)
        return [next(self._of[kind]) for kind in drawn]

    def of_one_post(self) -> list[Call]:
        """Likes of one post by all who write, and then the same taken back."""
        return [
            rpc(f"{_POSTS}{verb}", request(post_id=self._seed.posts), writer)
            for verb, request in (("LikePost", posts_pb2.LikePostRequest), ("UnlikePost", posts_pb2.UnlikePostRequest))
            for writer in self._writers
        ]

    def _list_profile_posts(self) -> Iterator[Call]:
        while True:
            request = profiles_pb2.ListProfilePostsRequest(user_id=self._user(), page_size=PAGE)
            yield rpc(f"{_PROFILES}ListProfilePosts", request, self._random.choice(self._writers))

    def _create_comment(self) -> Iterator[Call]:
        while True:
            post = self._random.randint(1, self._seed.posts)
            request = posts_pb2.CreateCommentRequest(post_id=post, text=data.TEXT, request_id=self._request_id())
            yield rpc(f"{_POSTS}CreateComment", request, self._random.choice(self._writers))

    def _follow_user(self) -> Iterator[Call]:
        followees = list(range(1, self._seed.users + 1))
        self._random.shuffle(followees)
        for turn in range(len(self._writers)):
            for place, followee in enumerate(followees):
                writer = self._writers[(place + turn) % len(self._writers)]
                follower = self.people[writer]
                if follower != followee and followee not in self._seed.followees[follower]:
                    request = profiles_pb2.FollowUserRequest(user_id=followee, request_id=self._request_id())
                    yield rpc(f"{_PROFILES}FollowUser", request, writer)

    def _refresh_session(self) -> Iterator[Call]:
        nobody = len(self.people)

        def begin(db: Database) -> list[str]:
            return [sessions.begin(db, self._user(), "benchmark", "")[1].text for _ in range(_SESSIONS)]

        while True:
            with closing(open_store(self._settings, SERVICES["users"])) as users:
                tokens = users.write_now(begin)
            for token in tokens:
                yield rpc(_REFRESH, accounts_pb2.RefreshSessionRequest(refresh_token=token), nobody)

    def _user(self) -> int:
        return self._random.randint(1, self._seed.users)

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128)))

"""Processes of a suite that are killed while clients write, each of whom remembers what was answered."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from tests import databases
from tests.people import People, Person, until
from tests.running import RunningSuite

CLIENTS = 8
ME = accounts_pb2.GetAccountRequest()


def children(suite: RunningSuite) -> dict[int, str]:
    """The processes of a suite that has several: the name of each, by its pid."""
    assert suite.process is not None
    pid = suite.process.pid
    pids = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return {pid: _name(pid) for pid in pids}


def _name(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return arguments[arguments.index("serve") + 1] if "serve" in arguments else "worker"


def process_of(suite: RunningSuite, name: str) -> int:
    """The process of a part that runs apart."""
    return next(pid for pid, its_name in children(suite).items() if its_name == name)


async def there(call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer of a call that is sent again while what it needs is away."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            # gRPC itself cancels what meets the stop of a server on its way.
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
            await asyncio.sleep(0.02)


async def kill(suite: RunningSuite, pid: int, probe: Callable[[], Awaitable[Any]]) -> float:
    """Kill a process. Returns the seconds until another is in its place and all calls of a probe are answered."""
    before = children(suite)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    async def replaced() -> bool:
        now = children(suite)
        return pid not in now and len(now) == len(before)

    await until(replaced)
    await there(probe)
    return time.monotonic() - began


class Writers:
    """Clients that write, each request under an id, and send it again until it is answered.

    Attributes:
        persons: Who they are.
        answered: How many requests were.
    """

    def __init__(self, suite: RunningSuite, people: People, seed: int) -> None:
        self.persons: list[Person] = []
        self.answered = 0
        self._suite = suite
        self._people = people
        self._random = random.Random(seed)
        self._posts: dict[int, tuple[int, str]] = {}
        self._comments: dict[int, tuple[int, int, str]] = {}
        self._likes: set[tuple[int, int]] = set()
        self._follows: set[tuple[int, int]] = set()
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count()

    async def start(self) -> None:
        """Begin to write."""
        self.persons = [await self._people.join() for _ in range(CLIENTS)]
        for person in self.persons:
            await self._post(person)
        self._tasks = [asyncio.create_task(self._write(person)) for person in self.persons]

    async def go_on(self, count: int = 20) -> None:
        """Wait until so many more requests were answered."""
        before = self.answered

        async def enough() -> bool:
            self._raise_failures()
            return self.answered >= before + count

        await until(enough, seconds=60)

    async def stop(self) -> None:
        """Wait until everything that was sent is answered."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def see_everything(self) -> None:
        """One call to each service."""
        person = self.persons[0]
        await person.accounts.GetAccount(ME)
        await person.posts.ListComments(posts_pb2.ListCommentsRequest(post_id=next(iter(self._posts))))
        await self._post(person)
        await self._like(person)

    def some_post(self) -> int:
        """One of the newest, so that several meet at it."""
        return self._random.choice(list(self._posts)[-20:])

    def check(self, likes: Iterable[tuple[int, int]] = (), follows: Iterable[tuple[int, int]] = ()) -> None:
        """What was answered is stored, each once, and nothing else is.

        Args:
            likes: Of others: who, and the post.
            follows: Of others: who, and whom.
        """
        found = databases.rows(self._suite, "posts", "SELECT id, author_id, title FROM post")
        assert sorted((post_id, *rest) for post_id, rest in self._posts.items()) == sorted(found)
        found = databases.rows(self._suite, "social", "SELECT id, author_id, post_id, text FROM comment")
        assert sorted((comment_id, *rest) for comment_id, rest in self._comments.items()) == sorted(found)
        found = databases.rows(self._suite, "social", 'SELECT user_id, post_id FROM "like"')
        assert sorted(self._likes.union(likes)) == sorted(found), self._likes.union(likes) ^ set(found)
        found = databases.rows(self._suite, "social", "SELECT follower_id, followee_id FROM follow")
        assert sorted(self._follows.union(follows)) == sorted(found), self._follows.union(follows) ^ set(found)
        assert databases.wrong_counters(self._suite) == {}

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _write(self, person: Person) -> None:
        deeds = [self._post, self._like, self._unlike, self._comment, self._follow, self._unfollow]
        while not self._stopped:
            await self._random.choice(deeds)(person)

    async def _send(self, call: Callable[[Any], Awaitable[Any]], kind: Callable[..., Any], **fields: Any) -> Any:
        request = kind(request_id=f"{os.getpid()}-{id(self)}-{next(self._ids)}", **fields)
        answer = await there(lambda: call(request))
        self.answered += 1
        return answer

    async def _post(self, person: Person) -> None:
        title = f"post {next(self._ids)}"
        answer = await self._send(person.posts.CreatePost, posts_pb2.CreatePostRequest, title=title)
        self._posts[answer.post.id] = (person.id, title)

    async def _comment(self, person: Person) -> None:
        post_id, text = self.some_post(), f"comment {next(self._ids)}"
        answer = await self._send(
            person.posts.CreateComment, posts_pb2.CreateCommentRequest, post_id=post_id, text=text
        )
        self._comments[answer.comment.id] = (person.id, post_id, text)

    async def _like(self, person: Person) -> None:
        post_id = self.some_post()
        await self._send(person.posts.LikePost, posts_pb2.LikePostRequest, post_id=post_id)
        self._likes.add((person.id, post_id))

    async def _unlike(self, person: Person) -> None:
        post_id = self.some_post()
        await self._send(person.posts.UnlikePost, posts_pb2.UnlikePostRequest, post_id=post_id)
        self._likes.discard((person.id, post_id))

    async def _follow(self, person: Person) -> None:
        other = self._random.choice([other for other in self.persons if other is not person])
        await self._send(person.profiles.FollowUser, profiles_pb2.FollowUserRequest, user_id=other.id)
        self._follows.add((person.id, other.id))

    async def _unfollow(self, person: Person) -> None:
        other = self._random.choice(self.persons)
        await self._send(person.profiles.UnfollowUser, profiles_pb2.UnfollowUserRequest, user_id=other.id)
        self._follows.discard((person.id, other.id))

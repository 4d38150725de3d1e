"""Calls of many kinds by several people: two reads for each write, and nothing is left of the writes.

`python -m tests.mixture` makes them at a steady rate, whatever comes back, or so many at a time. It reads a `Load` from
standard input as JSON, and writes a line of JSON to standard output for each `Window`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import uvloop

from insta.gateway.v1 import posts_pb2, profiles_pb2
from tests.people import People, Person

PROJECT = Path(__file__).parents[1]
# How often each kind of call comes among those of a round.
_READS = {"GetPost": 6, "GetProfile": 4, "ListComments": 3, "ListProfilePosts": 3}
_WRITES = {
    "LikePost": "UnlikePost",
    "CreateComment": "DeleteComment",
    "CreatePost": "DeletePost",
    "FollowUser": "UnfollowUser",
}
KINDS = (*_READS, *_WRITES, *_WRITES.values())
_PAGE_SIZE = 20
_TIMEOUT_SECONDS = 10.0
# Access tokens are good for 15 minutes.
_RENEWAL_SECONDS = 240.0
_CONNECTIONS = 4


class Mixture:
    """The calls of some people who have posts.

    Args:
        people: They are read, and follow each other.
        post_ids: Of posts that stay. They are read, liked and commented on.
    """

    def __init__(self, people: Sequence[Person], post_ids: Sequence[int]) -> None:
        self.people = list(people)
        self._post_ids = post_ids
        self._random = random.Random(1)
        # What was made and is still to be undone, by kind of call: by which of the people, and the id.
        self._made: dict[str, deque[tuple[int, int]]] = {kind: deque() for kind in _WRITES}

    def kinds(self) -> Iterator[str]:
        """What to call next, without end."""
        reads = [kind for kind, times in _READS.items() for _ in range(times)]
        a_round = [*reads, *itertools.chain.from_iterable(_WRITES.items())]
        while True:
            self._random.shuffle(a_round)
            yield from a_round

    async def call(self, kind: str) -> str:
        """Make a call. Where it would undo something and there is nothing, something is made. Returns what was called.

        Raises:
            grpc.aio.AioRpcError: it failed.
        """
        for make, undo in _WRITES.items():
            if kind == undo and not self._made[make]:
                kind = make
            if kind == undo:
                who, about_id = self._made[make].popleft()
                await self._write(kind, who, about_id)
                return kind
        who = self._random.randrange(len(self.people))
        if kind in _WRITES:
            self._made[kind].append((who, await self._write(kind, who, self._about(kind, who))))
        else:
            await self._read(kind, self.people[who])
        return kind

    def _about(self, kind: str, who: int) -> int:
        if kind == "FollowUser":
            return self.people[who - self._random.randrange(1, len(self.people))].id
        return self._random.choice(self._post_ids)

    async def _read(self, kind: str, person: Person) -> None:
        post_id, user_id = self._random.choice(self._post_ids), self._random.choice(self.people).id
        match kind:
            case "GetPost":
                await person.posts.GetPost(posts_pb2.GetPostRequest(post_id=post_id), timeout=_TIMEOUT_SECONDS)
            case "ListComments":
                comments = posts_pb2.ListCommentsRequest(post_id=post_id, page_size=_PAGE_SIZE)
                await person.posts.ListComments(comments, timeout=_TIMEOUT_SECONDS)
            case "GetProfile":
                profile = profiles_pb2.GetProfileRequest(user_id=user_id)
                await person.profiles.GetProfile(profile, timeout=_TIMEOUT_SECONDS)
            case "ListProfilePosts":
                posts = profiles_pb2.ListProfilePostsRequest(user_id=user_id, page_size=_PAGE_SIZE)
                await person.profiles.ListProfilePosts(posts, timeout=_TIMEOUT_SECONDS)

    async def _write(self, kind: str, who: int, about_id: int) -> int:
        """Make or undo something, each time under a request_id of its own. Returns the id with which it is undone."""
        person = self.people[who]
        fields = {"request_id": uuid.uuid4().hex}
        match kind:
            case "CreatePost":
                post = posts_pb2.CreatePostRequest(title="Second light", description="A walk", **fields)
                return int((await person.posts.CreatePost(post, timeout=_TIMEOUT_SECONDS)).post.id)
            case "CreateComment":
                comment = posts_pb2.CreateCommentRequest(post_id=about_id, text="Worth the early hour", **fields)
                return int((await person.posts.CreateComment(comment, timeout=_TIMEOUT_SECONDS)).comment.id)
            case "DeleteComment":
                request: Any = posts_pb2.DeleteCommentRequest(comment_id=about_id, **fields)
            case "FollowUser" | "UnfollowUser":
                request = getattr(profiles_pb2, f"{kind}Request")(user_id=about_id, **fields)
            case _:
                request = getattr(posts_pb2, f"{kind}Request")(post_id=about_id, **fields)
        stub = person.profiles if kind.endswith("User") else person.posts
        await getattr(stub, kind)(request, timeout=_TIMEOUT_SECONDS)
        return about_id


@dataclass(frozen=True)
class Load:
    """How often to call whom.

    Attributes:
        address: host:port of a gateway without TLS.
        names: Of the people who call.
        per_second: Calls that begin in each second, whether earlier ones have ended or not. 0: each of `at_once` begins
            when the one before it has ended.
        window_seconds: How often to tell what came of them.
        core: The core to run on. None: any.
    """

    address: str
    names: Sequence[str]
    post_ids: Sequence[int]
    seconds: float
    window_seconds: float
    per_second: float = 0
    at_once: int = 0
    core: int | None = None


class Window(NamedTuple):
    """What came of the calls that ended in some seconds.

    Attributes:
        kinds: How often each kind of call was made.
        codes: How often each status code came.
        p50, p99, longest: Of the seconds that calls took, from the moment when they were due.
    """

    seconds: float
    kinds: Mapping[str, int]
    codes: Mapping[str, int]
    p50: float
    p99: float
    longest: float

    @property
    def per_second(self) -> float:
        """The calls that ended in each second."""
        return sum(self.codes.values()) / self.seconds


async def windows(load: Load) -> AsyncIterator[Window]:
    """What comes of a load that a process of its own makes, while it does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(load)).encode())
        process.stdin.close()
        async for line in process.stdout:
            yield Window(*json.loads(line))
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass
class _Ended:
    """The calls that ended since the last window."""

    began: float = field(default_factory=time.perf_counter)
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def window(self) -> Window:
        longest = sorted(self.seconds) or [0.0]
        p50, p99 = (longest[int(len(longest) * part)] for part in (0.5, 0.99))
        return Window(time.perf_counter() - self.began, self.kinds, self.codes, p50, p99, longest[-1])


async def _make(load: Load) -> None:
    connections = [People(load.address) for _ in range(_CONNECTIONS)]

    async def log_in() -> list[Person]:
        return [await connections[number % _CONNECTIONS].log_in(name) for number, name in enumerate(load.names)]

    mixture = Mixture(await log_in(), load.post_ids)
    kinds = mixture.kinds()
    ended = _Ended()

    async def one(due: float) -> None:
        kind, code = next(kinds), grpc.StatusCode.OK
        try:
            kind = await mixture.call(kind)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        ended.kinds[kind] += 1
        ended.codes[code.name] += 1
        ended.seconds.append(time.perf_counter() - due)

    async def tell() -> None:
        nonlocal ended
        while True:
            await asyncio.sleep(load.window_seconds)
            told, ended = ended, _Ended()
            sys.stdout.write(json.dumps(told.window()) + "\n")
            sys.stdout.flush()

    async def renew() -> None:
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            mixture.people[:] = await log_in()

    beside = [asyncio.ensure_future(tell()), asyncio.ensure_future(renew())]
    if load.per_second:
        await _steadily(one, load.per_second, load.seconds)
    else:
        await _at_once(one, load.at_once, load.seconds)
    for task in beside:
        task.cancel()
    for people in connections:
        await people.channel.close()


async def _at_once(one: Callable[[float], Awaitable[None]], at_once: int, seconds: float) -> None:
    end = time.perf_counter() + seconds

    async def one_after_another() -> None:
        while (now := time.perf_counter()) < end:
            await one(now)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))


async def _steadily(one: Callable[[float], Awaitable[None]], per_second: float, seconds: float) -> None:
    under_way: set[asyncio.Future[None]] = set()
    begun = time.perf_counter()
    for number in range(int(per_second * seconds)):
        due = begun + number / per_second
        early = due - time.perf_counter()
        # Who is late makes up for it, but lets the answers in meanwhile.
        if early > 0 or number % 8 == 0:
            await asyncio.sleep(max(early, 0))
        call = asyncio.ensure_future(one(due))
        under_way.add(call)
        call.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


def main() -> None:
    load = Load(**json.load(sys.stdin))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    uvloop.run(_make(load))


if __name__ == "__main__":
    main()

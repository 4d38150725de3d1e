"""What a suite of several processes does while one that others rely on says nothing any more."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from insta.gateway.v1 import accounts_pb2
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests.people import Failure, Person, WithToken, refused_soon
from tests.running import RunningSuite, running
from tests.users.logins import part, people_at

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

OLDEST_NEWS_SECONDS = 30.0


def pid_of(suite: RunningSuite, name: str) -> int:
    """The process of a part, which is a child of the supervisor."""
    assert suite.process is not None
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == suite.process.pid and name.encode() in command:
            return int(entry.name)
    raise LookupError(f"no process of {name}")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing and closes nothing, as behind a network that swallows all."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def tried(posts: posts_pb2_grpc.PostServiceStub) -> Failure | None:
    """Change something at the posts service itself. How it failed, if it did."""
    try:
        await posts.CreatePost(posts_pb2.CreatePostRequest(title="First light"))
    except grpc.aio.AioRpcError as error:
        return Failure(error)
    return None


async def test_a_part_without_news_of_ended_sessions_changes_nothing_after_30_seconds_and_recovers(
    tmp_path: Path,
) -> None:
    with running("apart", tmp_path / "var") as suite:
        async with people_at(suite.address) as people, part(suite, "posts") as direct:
            ana = await people.join()
            thief = await people.log_in(ana.username)
            post = await ana.post()
            stored = posts_pb2_grpc.PostServiceStub(WithToken(direct, ana.token))
            assert await tried(stored) is None

            with stopped(pid_of(suite, "users")):
                begun = time.monotonic()
                while (failed := await tried(stored)) is None:
                    assert time.monotonic() - begun < OLDEST_NEWS_SECONDS + 15
                    await asyncio.sleep(0.2)
                seconds = time.monotonic() - begun
                # Of the news that it had some were a question old, which waits for 5 seconds at most.
                assert OLDEST_NEWS_SECONDS - 10 < seconds < OLDEST_NEWS_SECONDS + 2
                assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "REVOCATIONS_UNKNOWN")
                assert failed.retry_after is not None
                at_gateway = await refused_soon(lambda: ana.like(post), grpc.StatusCode.UNAVAILABLE)
                assert (at_gateway.code, at_gateway.reason) == (grpc.StatusCode.UNAVAILABLE, "REVOCATIONS_UNKNOWN")
                # Reading goes on.
                await stored.GetPost(posts_pb2.GetPostRequest(post_id=post.id))

            await _recovered(stored, ana, thief)
            await _refused(thief)


async def _recovered(stored: posts_pb2_grpc.PostServiceStub, person: Person, thief: Person) -> None:
    """All have heard the news: the service that is called itself, the gateway, and users, where a session ends."""
    async with asyncio.timeout(20):
        while True:
            if await tried(stored) is None:
                with suppress(grpc.aio.AioRpcError):
                    await person.post()
                    await person.accounts.RevokeSession(accounts_pb2.RevokeSessionRequest(session_id=thief.session_id))
                    return
            await asyncio.sleep(0.1)


async def _refused(person: Person) -> None:
    failed = await refused_soon(person.post)
    assert failed.reason == "SESSION_ENDED"

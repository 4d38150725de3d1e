"""Deletions, what is left of them, and crowds that go on meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from insta.gateway.v1 import accounts_pb2, admin_pb2, posts_pb2
from tests import databases
from tests.people import Person, until
from tests.running import PASSWORD, RunningSuite

CLIENTS = 8
# What somebody may meet who is late.
GONE = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED}


def delete_account(person: Person) -> Awaitable[Any]:
    return person.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(password=PASSWORD))


def delete_post(person: Person, post: posts_pb2.Post) -> Awaitable[Any]:
    return person.posts.DeletePost(posts_pb2.DeletePostRequest(post_id=post.id))


def erasure_of(boss: Person, user_id: int) -> Awaitable[admin_pb2.GetErasureResponse]:
    return boss.admin.GetErasure(admin_pb2.GetErasureRequest(user_id=user_id))


async def erased(boss: Person, user_id: int, seconds: float = 20) -> None:
    """Wait until the erasure of an account is complete."""

    async def complete() -> bool:
        return (await erasure_of(boss, user_id)).complete

    await until(complete, seconds=seconds)


async def nothing_left(
    suite: RunningSuite, user_ids: Iterable[int], post_ids: Iterable[int], seconds: float = 20
) -> None:
    """Wait until no database has a row that refers to one of these."""

    async def left() -> dict[str, int]:
        return databases.left_of_users(suite, user_ids) | databases.left_of_posts(suite, post_ids)

    await until(left, {}, seconds)


async def counters_are_right(suite: RunningSuite) -> None:
    """Wait until no counter differs from what it counts: they may be asked for in the middle of a change."""

    async def wrong() -> dict[str, Any]:
        return databases.wrong_counters(suite)

    await until(wrong, {})


class Crowd:
    """People who go on doing something until they are told to stop.

    Attributes:
        done: How many things they did.
        seconds: How long each took.
    """

    def __init__(self) -> None:
        self.done = 0
        self.seconds: list[float] = []
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, deeds: list[Callable[[], Awaitable[Any]]], clients: int = CLIENTS) -> None:
        """Let clients do these in turn. What they meet may be gone."""
        self._tasks += [asyncio.create_task(self._go_on(deeds[number:] + deeds[:number])) for number in range(clients)]

    async def stop(self) -> None:
        """Wait until all have finished what they are doing."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _go_on(self, deeds: list[Callable[[], Awaitable[Any]]]) -> None:
        for deed in itertools.cycle(deeds):
            if self._stopped:
                return
            began = time.perf_counter()
            try:
                await deed()
                self.done += 1
                self.seconds.append(time.perf_counter() - began)
            except grpc.aio.AioRpcError as error:
                if error.code() not in GONE:
                    raise


async def done(crowd: Crowd, count: int) -> None:
    """Wait until a crowd has done so many more things."""
    before = crowd.done

    async def enough() -> bool:
        return crowd.done >= before + count

    await until(enough)

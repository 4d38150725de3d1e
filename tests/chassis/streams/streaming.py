"""Streams for tests: of callers and of handlers, whole, endless and silent, and how they end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis import errors
from chassis.call import Call, current
from chassis.errors import Reason
from tests.chassis.streams.media import Chunk, MediaPeer
from tests.people import until

# So many chunks of 64 KB may be ahead of who takes them slowly. The buffers of a connection hold some megabytes.
MOST_AHEAD = {"local": 4, "remote": 300}
DATA = bytes(64 * 1024)
# Channels to one address would share a connection.
LONE = [("grpc.use_local_subchannel_pool", 1)]


class Numbers:
    """A caller's stream of requests: as many as wanted, or without end.

    Attributes:
        made: How many it was asked for.
        closed: Whether it knows that it is not asked for more.
    """

    def __init__(self, count: int | None = None, data: bytes = b"", failure: BaseException | None = None) -> None:
        self.made = 0
        self.closed = asyncio.Event()
        self._count = count
        self._data = data
        self._failure = failure

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            for number in itertools.count():
                if number == self._count:
                    break
                self.made += 1
                yield Chunk(number=number, data=self._data)
                if number % 16 == 0:
                    await asyncio.sleep(0)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed.set()


async def chunks(*numbers: int) -> AsyncIterator[Any]:
    """A caller's stream of requests."""
    for number in numbers:
        yield Chunk(number=number)


async def chunks_and_silence(*numbers: int) -> AsyncIterator[Any]:
    """One that never ends."""
    for number in numbers:
        yield Chunk(number=number)
    await asyncio.Event().wait()


async def endless(request: Any) -> AsyncIterator[Any]:
    """A stream of responses that never ends."""
    for number in itertools.count():
        yield Chunk(number=number)
        await asyncio.sleep(0)


async def silent(request: Any) -> AsyncIterator[Any]:
    """One that never ends, after two responses."""
    yield Chunk(number=0)
    yield Chunk(number=1)
    await asyncio.Event().wait()


async def all_of(call: Any) -> list[int]:
    """The numbers of a stream of responses."""
    return [chunk.number async for chunk in call]


def begin(peer: MediaPeer, method: str, requests: AsyncIterator[Any] | None = None, **options: Any) -> Any:
    """Begin a call that does not end by itself."""
    if method == "UploadMedia":
        return peer.media.UploadMedia(chunks_and_silence(0, 1) if requests is None else requests, **options)
    peer.servicer.download = silent
    return peer.media.DownloadMedia(Chunk(), **options)


async def outcome(call: Any) -> Any:
    """The end of a call of either kind."""
    return await (all_of(call) if hasattr(call, "__aiter__") else call)


async def nothing_is_under_way(peer: MediaPeer) -> None:
    async def in_flight() -> tuple[float | None, int]:
        return peer.in_flight()

    await until(in_flight, (0, 0))


async def ended(peer: MediaPeer, how: list[str]) -> None:
    """Wait until the handlers have ended, in these ways."""

    async def ends() -> list[str]:
        return peer.servicer.ended

    await until(ends, how)


def call_under_way() -> Call:
    call = current.get()
    assert call is not None
    return call


def not_found() -> errors.Error:
    return errors.NotFound(Reason.REASON_POST_NOT_FOUND, "there is no such post", violations=[("post_id", "is wrong")])


METHODS = pytest.mark.parametrize("method", ["UploadMedia", "DownloadMedia"])

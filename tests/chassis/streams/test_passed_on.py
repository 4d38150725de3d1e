"""Streams that a service passes on to another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from chassis.call import Call
from tests.chassis.streams.media import Chunk, MediaPeer
from tests.chassis.streams.streaming import (
    DATA,
    METHODS,
    Numbers,
    all_of,
    call_under_way,
    chunks,
    chunks_and_silence,
    ended,
    not_found,
    nothing_is_under_way,
    outcome,
    silent,
)
from tests.people import failure


async def test_a_callers_iterator_runs_as_part_of_its_own_call(front: MediaPeer, back: MediaPeer, token: Any) -> None:
    seen: list[tuple[Call, Call]] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        own = call_under_way()

        async def passed_on() -> AsyncIterator[Any]:
            async for request in requests:
                seen.append((own, call_under_way()))
                yield request

        return await back.media.UploadMedia(passed_on())

    front.servicer.upload = upload
    await front.media.UploadMedia(chunks(0, 1, 2), metadata=token)

    assert len(seen) == 3
    assert all(own is then for own, then in seen)


async def test_streams_are_passed_on_whole(front: MediaPeer, back: MediaPeer, token: Any) -> None:
    assert await front.media.UploadMedia(Numbers(100)(), metadata=token) == Chunk(number=100)
    assert back.servicer.taken == list(range(100))
    assert await all_of(front.media.DownloadMedia(Chunk(number=100), metadata=token)) == list(range(100))


@METHODS
async def test_a_stream_to_another_service_is_made_as_the_caller_in_the_same_trace_with_the_time_that_is_left(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    seen: list[Call] = []
    left: list[float] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        seen.append(call_under_way())
        left.append(call_under_way().deadline - asyncio.get_running_loop().time())
        return Chunk()

    async def download(request: Any) -> AsyncIterator[Any]:
        yield await upload(chunks())

    back.servicer.upload = upload
    back.servicer.download = download
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks(1), metadata=token, timeout=3)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token, timeout=3)
    await outcome(call)

    assert seen[0].caller.user_id == 7
    assert seen[0].trace_id == (await call.trailing_metadata())["trace-id"]
    # The wire rounds up.
    assert 2 < left[0] < 3.1


@METHODS
async def test_an_error_of_another_service_is_passed_on(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        raise not_found()

    async def download(request: Any) -> AsyncIterator[Any]:
        yield await upload(chunks())

    back.servicer.upload = upload
    back.servicer.download = download
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks_and_silence(1), metadata=token)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token)

    failed = await failure(outcome(call))

    assert (failed.code, failed.reason, failed.fields) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND", ["post_id"])


async def test_an_invalid_request_ends_the_stream_that_is_passed_on_too(
    front: MediaPeer, back: MediaPeer, token: Any
) -> None:
    failed = await failure(front.media.UploadMedia(chunks_and_silence(0, -1), metadata=token))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    await nothing_is_under_way(back)
    assert set(back.servicer.ended) <= {"cancelled"}


@METHODS
async def test_a_cancellation_reaches_the_other_services(
    front: MediaPeer, back: MediaPeer, token: Any, method: str
) -> None:
    back.servicer.download = silent
    if method == "UploadMedia":
        call = front.media.UploadMedia(chunks_and_silence(1), metadata=token)
    else:
        call = front.media.DownloadMedia(Chunk(), metadata=token)
    waiting = asyncio.ensure_future(outcome(call))
    await back.servicer.begun.acquire()

    call.cancel()

    await ended(back, ["cancelled"])
    await nothing_is_under_way(back)
    await nothing_is_under_way(front)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_cancellation_reaches_the_other_services_while_nobody_reads(
    front: MediaPeer, back: MediaPeer, token: Any
) -> None:
    back.servicer.download = lambda request: Numbers(data=DATA)()
    call = front.media.DownloadMedia(Chunk(), metadata=token)
    await anext(call)
    await back.servicer.begun.acquire()

    call.cancel()

    await ended(back, ["cancelled"])
    await nothing_is_under_way(back)
    await nothing_is_under_way(front)

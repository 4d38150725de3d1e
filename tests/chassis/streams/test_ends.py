"""Streams that are cancelled, run out of time, or go faster than who takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import server
from tests.chassis.issuer import Issuer
from tests.chassis.streams.media import Chunk, MediaPeer, MediaStub, media_running
from tests.chassis.streams.streaming import (
    DATA,
    LONE,
    METHODS,
    MOST_AHEAD,
    Numbers,
    begin,
    chunks_and_silence,
    ended,
    endless,
    not_found,
    nothing_is_under_way,
    outcome,
    silent,
)
from tests.people import failure


@METHODS
async def test_a_call_that_is_cancelled_half_way_ends_its_handler(peer: MediaPeer, token: Any, method: str) -> None:
    numbers = Numbers()
    call = begin(peer, method, numbers(), metadata=token)
    await peer.servicer.begun.acquire()
    if method == "DownloadMedia":
        await anext(call)
    assert peer.in_flight() == (1, 1)

    assert call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await outcome(call)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)
    assert peer.counted(method, "CANCELLED") == 1
    assert not call.cancel()
    if method == "UploadMedia":
        await asyncio.wait_for(numbers.closed.wait(), 5)


@METHODS
async def test_a_call_that_is_cancelled_at_once_is_not_answered(peer: MediaPeer, token: Any, method: str) -> None:
    call = begin(peer, method, metadata=token)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await outcome(call)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_is_under_way(peer)


@METHODS
async def test_who_stops_waiting_cancels_the_call(peer: MediaPeer, token: Any, method: str) -> None:
    waiting = asyncio.ensure_future(outcome(begin(peer, method, metadata=token)))
    await peer.servicer.begun.acquire()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)


async def test_who_drops_a_stream_of_responses_cancels_the_call(peer: MediaPeer, token: Any) -> None:
    peer.servicer.download = endless

    async for chunk in peer.media.DownloadMedia(Chunk(), metadata=token):
        if chunk.number == 5:
            break

    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)


async def test_a_stream_of_requests_that_was_cut_off_is_never_taken_for_a_whole_one(
    peer: MediaPeer, token: Any
) -> None:
    """gRPC ends the handler's iterator in the same way when a call is cancelled as when its stream is complete."""
    count = 40
    for _ in range(count):
        call = peer.media.UploadMedia(chunks_and_silence(0, 1, 2), metadata=token)
        await peer.servicer.begun.acquire()
        call.cancel()

    await ended(peer, ["cancelled"] * count)
    await nothing_is_under_way(peer)


@METHODS
async def test_a_deadline_half_way_ends_the_call_and_its_handler(peer: MediaPeer, token: Any, method: str) -> None:
    numbers = Numbers()
    call = begin(peer, method, numbers(), metadata=token, timeout=0.5)

    failed = await failure(outcome(call))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_is_under_way(peer)
    assert set(peer.servicer.ended) <= {"cancelled"}
    if method == "UploadMedia":
        assert numbers.closed.is_set()


async def test_a_deadline_ends_a_stream_that_nobody_reads(peer: MediaPeer, token: Any) -> None:
    peer.servicer.download = lambda request: Numbers(data=DATA)()

    call = peer.media.DownloadMedia(Chunk(), metadata=token, timeout=0.5)

    await peer.servicer.begun.acquire()
    await ended(peer, ["cancelled"])
    await nothing_is_under_way(peer)
    del call


@METHODS
async def test_a_deadline_that_has_passed_ends_the_call(peer: MediaPeer, token: Any, method: str) -> None:
    failed = await failure(outcome(begin(peer, method, metadata=token, timeout=0)))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_is_under_way(peer)
    # The wire rounds up: one over a socket may have begun.
    assert peer.servicer.begun.locked() or peer.server is not None
    assert set(peer.servicer.ended) <= {"cancelled"}


async def test_a_handler_may_answer_before_the_stream_of_requests_ends(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        return await anext(requests)

    peer.servicer.upload = upload
    for numbers in (Numbers(), Numbers(data=DATA)):
        call = peer.media.UploadMedia(numbers(), metadata=token)

        assert (await call).number == 0

        assert await call.code() is grpc.StatusCode.OK
        assert numbers.closed.is_set()
    await nothing_is_under_way(peer)


async def test_a_slow_handler_slows_down_its_caller(kind: str, peer: MediaPeer, token: Any) -> None:
    ahead = 0

    async def upload(requests: AsyncIterator[Any]) -> Any:
        nonlocal ahead
        async for request in requests:
            ahead = max(ahead, numbers.made - request.number - 1)
            if request.number < 30:
                await asyncio.sleep(0.02)
        return Chunk()

    peer.servicer.upload = upload
    numbers = Numbers(400, DATA)

    await peer.media.UploadMedia(numbers(), metadata=token, timeout=60)

    assert numbers.made == 400
    assert ahead <= MOST_AHEAD[kind]


async def test_a_slow_reader_slows_down_the_handler(kind: str, peer: MediaPeer, token: Any) -> None:
    numbers = Numbers(400, DATA)
    peer.servicer.download = lambda request: numbers()
    ahead = 0

    async for chunk in peer.media.DownloadMedia(Chunk(), metadata=token, timeout=60):
        ahead = max(ahead, numbers.made - chunk.number - 1)
        if chunk.number < 30:
            await asyncio.sleep(0.02)

    assert numbers.made == 400
    assert ahead <= MOST_AHEAD[kind]


@pytest.mark.parametrize("raised", [ZeroDivisionError("mine"), not_found(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("count", [0, 3])
async def test_what_a_callers_iterator_raises_cancels_the_call_and_is_the_callers(
    peer: MediaPeer, token: Any, raised: BaseException, count: int
) -> None:
    call = peer.media.UploadMedia(Numbers(count, failure=raised)(), metadata=token)

    with pytest.raises(type(raised)) as told:
        await call

    assert str(told.value) == str(raised)
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_is_under_way(peer)
    assert set(peer.servicer.ended) <= {"cancelled"}


@METHODS
async def test_a_client_that_names_no_deadline_gets_one_but_for_health(
    issuer: Issuer, token: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LONGEST_STREAM_SECONDS", 0.3)
    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        peer.servicer.download = silent
        media = MediaStub(channel)
        # Without requests it is one that is still to be written to.
        upload = method == "UploadMedia"
        call = media.UploadMedia(metadata=token) if upload else media.DownloadMedia(Chunk(), metadata=token)

        failed = await failure(outcome(call))

        assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        await ended(peer, ["cancelled"])
        assert not watch.done()
        watch.cancel()

"""Streams and services that stop, are away, and are started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.chassis.issuer import Issuer
from tests.chassis.streams.media import Chunk, MediaStub, media_running
from tests.chassis.streams.streaming import LONE, METHODS, Numbers, all_of, begin, chunks, ended, outcome
from tests.people import failure, refused_soon


async def test_streams_under_way_are_finished_although_the_server_stops(issuer: Issuer, token: Any) -> None:
    opened = asyncio.Event()

    async def some() -> AsyncIterator[Any]:
        yield Chunk(number=0)
        await opened.wait()
        yield Chunk(number=1)

    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        peer.servicer.download = lambda request: some()
        upload = peer.media.UploadMedia(some(), metadata=token)
        download = peer.media.DownloadMedia(Chunk(), metadata=token)
        first = await anext(download)
        for _ in range(2):
            await peer.servicer.begun.acquire()

        assert peer.server is not None
        draining = asyncio.ensure_future(peer.server.drain(20))
        peer.servicer.download = peer.servicer.numbers
        later = MediaStub(channel)
        await refused_soon(lambda: all_of(later.DownloadMedia(Chunk(), metadata=token)), grpc.StatusCode.UNAVAILABLE)
        opened.set()

        assert await upload == Chunk(number=2)
        assert [first.number, *await all_of(download)] == [0, 1]
        assert await download.code() is grpc.StatusCode.OK
        await draining


@METHODS
async def test_a_stop_waits_no_longer_than_its_grace_for_streams(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        call = begin(peer, method, metadata=token)
        await peer.servicer.begun.acquire()

        began = time.monotonic()
        assert peer.server is not None
        await peer.server.drain(0.1)

        assert time.monotonic() - began < 5
        assert (await failure(outcome(call))).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await ended(peer, ["cancelled"])


@METHODS
async def test_a_stream_waits_for_a_service_that_is_started_again(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.media.UploadMedia(chunks(1), metadata=token)
        await peer.stop()
        if method == "UploadMedia":
            call = peer.media.UploadMedia(chunks(0, 1, 2), metadata=token)
        else:
            call = peer.media.DownloadMedia(Chunk(number=3), metadata=token)
        waiting = asyncio.ensure_future(outcome(call))
        assert await asyncio.wait([waiting], timeout=0.3) == (set(), {waiting})

        async with media_running("remote", issuer, listen=peer.address):
            assert await waiting == (Chunk(number=3) if method == "UploadMedia" else [0, 1, 2])
            assert await call.code() is grpc.StatusCode.OK
            assert "trace-id" in await call.trailing_metadata()


@METHODS
async def test_a_stream_that_waits_for_a_service_can_be_cancelled(issuer: Issuer, token: Any, method: str) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.stop()
        call = begin(peer, method, metadata=token)

        call.cancel()

        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await outcome(call)


async def test_streams_to_a_service_that_is_away_are_unavailable(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer) as peer:
        await peer.stop()
        numbers = Numbers()
        upload = asyncio.ensure_future(failure(peer.media.UploadMedia(numbers(), metadata=token)))
        download = asyncio.ensure_future(failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))))

        assert (await upload).code is grpc.StatusCode.UNAVAILABLE
        assert (await download).code is grpc.StatusCode.UNAVAILABLE

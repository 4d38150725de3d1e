"""Streams arrive whole, are checked, and fail alike: in one process and over a socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from chassis import errors
from tests.chassis.issuer import Issuer
from tests.chassis.streams.media import CONTRACT, Chunk, MediaPeer, media_running
from tests.chassis.streams.streaming import (
    LONE,
    METHODS,
    Numbers,
    all_of,
    begin,
    call_under_way,
    chunks,
    chunks_and_silence,
    not_found,
    nothing_is_under_way,
    outcome,
)
from tests.people import failure


async def test_a_stream_of_requests_arrives_whole_and_in_order(peer: MediaPeer, token: Any) -> None:
    numbers = Numbers(1000)
    call = peer.media.UploadMedia(numbers(), metadata=token)

    assert await call == Chunk(number=1000)

    assert peer.servicer.taken == list(range(1000))
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert len((await call.trailing_metadata())["trace-id"]) == 32
    assert await call == Chunk(number=1000)
    assert numbers.closed.is_set()
    assert not call.cancel()
    await nothing_is_under_way(peer)
    assert peer.counted("UploadMedia", "OK") == 1


async def test_a_stream_of_responses_arrives_whole_and_in_order(peer: MediaPeer, token: Any) -> None:
    call = peer.media.DownloadMedia(Chunk(number=1000), metadata=token)

    assert await all_of(call) == list(range(1000))

    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert len((await call.trailing_metadata())["trace-id"]) == 32
    assert await all_of(call) == []
    assert not call.cancel()
    await nothing_is_under_way(peer)
    assert peer.counted("DownloadMedia", "OK") == 1


async def test_a_stream_may_be_empty(peer: MediaPeer, token: Any) -> None:
    assert await peer.media.UploadMedia(chunks(), metadata=token) == Chunk(number=0)
    assert await all_of(peer.media.DownloadMedia(Chunk(), metadata=token)) == []


async def test_the_handler_knows_the_caller_and_the_method(peer: MediaPeer, token: Any) -> None:
    seen: list[tuple[int, str]] = []

    async def upload(requests: AsyncIterator[Any]) -> Any:
        seen.append((call_under_way().caller.user_id, call_under_way().method))
        return await peer.servicer.count(requests)

    async def download(request: Any) -> AsyncIterator[Any]:
        yield Chunk()
        seen.append((call_under_way().caller.user_id, call_under_way().method))

    peer.servicer.upload = upload
    peer.servicer.download = download
    await peer.media.UploadMedia(chunks(1), metadata=token)
    await all_of(peer.media.DownloadMedia(Chunk(), metadata=token))

    assert seen == [(7, f"/{CONTRACT}/UploadMedia"), (7, f"/{CONTRACT}/DownloadMedia")]


async def test_an_invalid_request_within_a_stream_ends_it(peer: MediaPeer, token: Any) -> None:
    failed = await failure(peer.media.UploadMedia(chunks_and_silence(0, 1, -1, 3), metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert failed.fields == ["number"]
    assert len(failed.trace_id) == 32
    assert peer.servicer.taken == [0, 1]
    await nothing_is_under_way(peer)
    assert peer.counted("UploadMedia", "INVALID_ARGUMENT") == 1


async def test_a_handler_that_goes_on_after_an_invalid_request_gets_no_other_and_answers_nothing(
    peer: MediaPeer, token: Any
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        for _ in range(5):
            try:
                peer.servicer.taken.append((await anext(requests)).number)
            except errors.InvalidArgument:
                continue
        return Chunk()

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks(0, -1, 2, 3, 4), metadata=token))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    assert peer.servicer.taken == [0]


async def test_a_handler_that_gave_up_waiting_for_a_request_does_not_take_the_stream_for_complete(
    peer: MediaPeer, token: Any
) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        await anext(requests)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(requests)
        return await peer.servicer.count(requests)

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks_and_silence(0), metadata=token))

    assert failed.code is grpc.StatusCode.INTERNAL
    await nothing_is_under_way(peer)


async def test_an_invalid_request_for_a_stream_does_not_reach_the_handler(peer: MediaPeer, token: Any) -> None:
    failed = await failure(all_of(peer.media.DownloadMedia(Chunk(number=-1), metadata=token)))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["number"])
    assert peer.servicer.ended == []


async def test_bytes_that_are_no_message_end_a_stream(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, LONE) as channel:
        upload = channel.stream_unary(f"/{CONTRACT}/UploadMedia")
        sent = iter([Chunk(number=1).SerializeToString(), b"\xff"])
        failed = await failure(upload(sent, metadata=token, timeout=10))
        download = channel.unary_stream(f"/{CONTRACT}/DownloadMedia")
        refused = await failure(all_of(download(b"\xff", metadata=token, timeout=10)))

    for each in (failed, refused):
        assert (each.code, each.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    assert peer.servicer.taken == [1]


async def test_an_error_half_way_of_a_stream_of_requests_arrives_as_it_was_raised(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        await anext(requests)
        await anext(requests)
        raise not_found()

    peer.servicer.upload = upload
    numbers = Numbers()
    call = peer.media.UploadMedia(numbers(), metadata=token)

    failed = await failure(call)

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")
    assert failed.fields == ["post_id"]
    assert (await call.code(), await call.details()) == (failed.code, failed.text)
    assert (await call.trailing_metadata())["trace-id"] == failed.trace_id
    assert numbers.closed.is_set()
    await nothing_is_under_way(peer)


async def test_an_error_half_way_of_a_stream_of_responses_arrives_after_those_before_it(
    peer: MediaPeer, token: Any
) -> None:
    async def download(request: Any) -> AsyncIterator[Any]:
        for number in range(5):
            yield Chunk(number=number)
        raise not_found()

    peer.servicer.download = download
    call = peer.media.DownloadMedia(Chunk(), metadata=token)
    arrived = [(await anext(call)).number for _ in range(5)]

    failed = await failure(anext(call))

    assert arrived == [0, 1, 2, 3, 4]
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "POST_NOT_FOUND")
    assert failed.fields == ["post_id"]
    assert (await call.code(), await call.details()) == (failed.code, failed.text)
    assert (await call.trailing_metadata())["trace-id"] == failed.trace_id
    assert (await failure(anext(call))).code is failed.code
    await nothing_is_under_way(peer)


async def test_a_defect_is_internal_and_keeps_its_text_to_itself(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        raise ZeroDivisionError("secret")

    async def download(request: Any) -> AsyncIterator[Any]:
        yield Chunk()
        yield "secret"

    peer.servicer.upload = upload
    peer.servicer.download = download

    for failed in (
        await failure(peer.media.UploadMedia(chunks(1), metadata=token)),
        await failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))),
    ):
        assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in failed.text


async def test_an_answer_to_a_stream_that_is_not_the_methods_is_internal(peer: MediaPeer, token: Any) -> None:
    async def upload(requests: AsyncIterator[Any]) -> Any:
        return "secret"

    peer.servicer.upload = upload

    failed = await failure(peer.media.UploadMedia(chunks(1), metadata=token))

    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in failed.text


@METHODS
@pytest.mark.parametrize(
    ("metadata", "reason"), [([], "TOKEN_MISSING"), ([("authorization", "Bearer nonsense")], "TOKEN_INVALID")]
)
async def test_who_proves_nothing_does_not_reach_the_handler(
    peer: MediaPeer, method: str, metadata: Any, reason: str
) -> None:
    failed = await failure(outcome(begin(peer, method, metadata=metadata)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert len(failed.trace_id) == 32
    assert peer.servicer.begun.locked()


async def test_methods_for_staff_are_for_staff(peer: MediaPeer, issuer: Issuer, token: Any) -> None:
    staff = [("authorization", issuer.authorization(8, "staff"))]

    for failed in (
        await failure(peer.media.ImportMedia(chunks(1), metadata=token)),
        await failure(all_of(peer.media.ExportMedia(Chunk(number=1), metadata=token))),
    ):
        assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")
    assert peer.servicer.begun.locked()
    assert await peer.media.ImportMedia(chunks(1), metadata=staff) == Chunk(number=1)
    assert await all_of(peer.media.ExportMedia(Chunk(number=1), metadata=staff)) == [0]

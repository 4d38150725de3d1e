"""Which streams are let in."""

from __future__ import annotations

from typing import Any

import grpc

from chassis.limits import MutationLimit
from tests.chassis.issuer import Issuer
from tests.chassis.streams.media import Chunk, media_running
from tests.chassis.streams.streaming import DATA, METHODS, Numbers, all_of, begin, chunks, nothing_is_under_way, outcome
from tests.people import failure


@METHODS
async def test_more_streams_than_are_admitted_are_refused(kind: str, issuer: Issuer, token: Any, method: str) -> None:
    async with media_running(kind, issuer, max_calls=1) as peer:
        under_way = begin(peer, method, metadata=token)
        await peer.servicer.begun.acquire()

        for other in ("UploadMedia", "DownloadMedia"):
            refused = await failure(outcome(begin(peer, other, metadata=token)))
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refused.retry_after

        under_way.cancel()
        await nothing_is_under_way(peer)
        assert await peer.media.UploadMedia(chunks(1), metadata=token) == Chunk(number=1)


async def test_downloads_take_a_share_of_the_places(issuer: Issuer, token: Any) -> None:
    async with media_running("remote", issuer, max_calls=8) as peer:
        under_way = begin(peer, "DownloadMedia", metadata=token)
        await peer.servicer.begun.acquire()

        refused = await failure(outcome(begin(peer, "DownloadMedia", metadata=token)))

        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert await peer.media.UploadMedia(chunks(1), metadata=token) == Chunk(number=1)
        under_way.cancel()
        await nothing_is_under_way(peer)


async def test_streams_are_refused_before_they_begin_while_calls_wait_too_long(issuer: Issuer, token: Any) -> None:
    # However short calls wait: it is too long.
    async with media_running("remote", issuer, longest_wait=-1) as peer:
        numbers = Numbers(data=DATA)
        for refused in (
            await failure(peer.media.UploadMedia(numbers(), metadata=token)),
            await failure(all_of(peer.media.DownloadMedia(Chunk(), metadata=token))),
        ):
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert len(refused.trace_id) == 32
        assert peer.servicer.begun.locked()


async def test_streams_that_change_something_count_for_how_much_a_caller_may_change(
    kind: str, issuer: Issuer, token: Any
) -> None:
    async with media_running(kind, issuer, limit=MutationLimit(2)) as peer:
        for _ in range(2):
            await peer.media.UploadMedia(chunks(1), metadata=token)
            await all_of(peer.media.DownloadMedia(Chunk(number=1), metadata=token))
        refused = await failure(peer.media.UploadMedia(chunks(1), metadata=token))

        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert await all_of(peer.media.DownloadMedia(Chunk(number=1), metadata=token)) == [0]

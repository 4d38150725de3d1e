"""Calls that come faster than they can be answered: some are refused before they begin, until the others are done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests.chassis.issuer import Issuer
from tests.chassis.peers import running
from tests.people import Failure, failure

REQUEST = posts_pb2.GetPostRequest(post_id=5)
GET_POST = "/insta.posts.v1.PostService/GetPost"
LONE = [("grpc.use_local_subchannel_pool", 1)]
LONGEST_WAIT = 0.1


async def busy(request: Any) -> posts_pb2.GetPostResponse:
    """Keeps the processor for a while, and never waits: a call begins and ends in one turn of the event loop."""
    end = time.perf_counter() + 0.005
    while time.perf_counter() < end:
        pass
    return posts_pb2.GetPostResponse()


async def test_calls_are_refused_while_those_before_them_wait_too_long_and_let_in_again_afterwards(
    issuer: Issuer, token: Any
) -> None:
    async with running("remote", issuer, max_calls=1000, longest_wait=LONGEST_WAIT) as peer:
        peer.servicer.script = busy

        async def outcome() -> str:
            try:
                await peer.posts.GetPost(REQUEST, metadata=token, timeout=60)
            except grpc.aio.AioRpcError as error:
                return Failure(error).reason
            return "OK"

        # 200 of them are the work of a second.
        outcomes: Counter[str] = Counter(await asyncio.gather(*(outcome() for _ in range(400))))
        # Where others use the processor, one may have to wait for too long now and then.
        in_a_row = 0
        async with asyncio.timeout(30):
            while in_a_row < 20:
                in_a_row = in_a_row + 1 if await outcome() == "OK" else 0

    assert set(outcomes) == {"OK", "OVERLOADED"}
    assert outcomes["OVERLOADED"] > 100


async def test_a_refusal_tells_all_and_waits_for_no_message_and_health_is_answered(issuer: Issuer, token: Any) -> None:
    # However short calls wait: it is too long.
    async with (
        running("remote", issuer, longest_wait=-1) as peer,
        grpc.aio.insecure_channel(peer.address, options=LONE) as channel,
    ):
        refused = await failure(peer.posts.GetPost(REQUEST, metadata=token))
        # A call whose message never comes.
        silent = channel.stream_unary(GET_POST)(metadata=[("traceparent", f"00-{'5' * 32}-{'6' * 16}-01")], timeout=60)
        unheard = await failure(silent)
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        labels = {"method": GET_POST[1:], "code": "RESOURCE_EXHAUSTED"}
        counted = peer.metrics.registry.get_sample_value("insta_calls_total", labels)

    for failed in (refused, unheard):
        assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert failed.retry_after == 0.5
    assert len(refused.trace_id) == 32
    assert unheard.trace_id == "5" * 32
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert counted == 2
    assert peer.servicer.requests == []


async def test_where_calls_wait_too_long_over_one_connection_those_over_others_are_refused_too(
    issuer: Issuer, token: Any
) -> None:
    """Several servers listen on the port, each with connections of its own; what waits is the processor of all."""
    async with AsyncExitStack() as open_:
        peer = await open_.enter_async_context(running("remote", issuer, max_calls=1000, longest_wait=LONGEST_WAIT))
        peer.servicer.script = busy
        others = [await open_.enter_async_context(grpc.aio.insecure_channel(peer.address, LONE)) for _ in range(8)]

        async def refused(stub: Any) -> bool:
            try:
                await stub.GetPost(REQUEST, metadata=token, timeout=60)
            except grpc.aio.AioRpcError as error:
                reasons.add(Failure(error).reason)
                return True
            return False

        async def call_again_and_again() -> None:
            while True:
                await refused(peer.posts)

        reasons: set[str] = set()
        flood = asyncio.gather(*(call_again_and_again() for _ in range(400)))
        left = [posts_pb2_grpc.PostServiceStub(channel) for channel in others]
        try:
            async with asyncio.timeout(30):
                while left:
                    left = [stub for stub in left if not await refused(stub)]
        finally:
            flood.cancel()
            await asyncio.wait([flood])

    assert reasons == {"OVERLOADED"}

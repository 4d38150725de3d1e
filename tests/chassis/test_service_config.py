"""The service config for clients, as gRPC itself acts on it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool

from chassis import errors, service_config
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests.chassis.issuer import Issuer
from tests.chassis.peers import CONTRACTS, running
from tests.people import failure

GET = posts_pb2.GetPostRequest(post_id=5)
CREATE = posts_pb2.CreatePostRequest(title="First light")


def options() -> list[tuple[str, Any]]:
    """Of a channel with the service config."""
    pool = descriptor_pool.Default()
    config = service_config.of_clients([pool.FindServiceByName(name) for name in CONTRACTS])
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[posts_pb2_grpc.PostServiceStub]:
    async with grpc.aio.insecure_channel(address, options=options()) as channel:
        yield posts_pb2_grpc.PostServiceStub(channel)


class Unwell:
    """A script that answers after so many failures.

    Attributes:
        calls: How often it was called.
    """

    def __init__(self, failures: int, response: Any) -> None:
        self.calls = 0
        self._failures = failures
        self._response = response

    async def __call__(self, request: Any) -> Any:
        self.calls += 1
        if self.calls <= self._failures:
            raise errors.unavailable()
        return self._response


async def test_an_idempotent_call_is_tried_again_while_unavailable(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer, client_of(peer.address) as client:
        unwell = peer.servicer.script = Unwell(3, posts_pb2.GetPostResponse())

        assert await client.GetPost(GET, metadata=token, timeout=60) == posts_pb2.GetPostResponse()
        assert unwell.calls == 4


async def test_a_call_that_is_not_idempotent_is_sent_once(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer, client_of(peer.address) as client:
        unwell = peer.servicer.script = Unwell(4, posts_pb2.CreatePostResponse())

        failed = await failure(client.CreatePost(CREATE, metadata=token, timeout=60))

        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert unwell.calls == 1


@pytest.mark.parametrize("method", ["GetPost", "CreatePost"])
async def test_every_call_waits_for_a_connection(method: str, issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        address = peer.address
    async with client_of(address) as client:
        request, response = {
            "GetPost": (GET, posts_pb2.GetPostResponse()),
            "CreatePost": (CREATE, posts_pb2.CreatePostResponse()),
        }[method]
        call = getattr(client, method)(request, metadata=token, timeout=60)
        ended = asyncio.ensure_future(call.code())
        assert await asyncio.wait([ended], timeout=0.3) == (set(), {ended})

        async with running("remote", issuer, listen=address) as peer:
            peer.servicer.script = Unwell(0, response)
            assert await call == response


async def test_a_client_without_an_event_loop_waits_for_a_connection_as_well(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer) as peer:
        address = peer.address
    answered: list[posts_pb2.GetPostResponse] = []

    def call() -> None:
        with grpc.insecure_channel(address, options=options()) as channel:
            stub = posts_pb2_grpc.PostServiceStub(channel)
            answered.append(stub.GetPost(GET, metadata=token, timeout=60))

    caller = threading.Thread(target=call)
    caller.start()
    await asyncio.to_thread(caller.join, 0.3)
    assert caller.is_alive()
    async with running("remote", issuer, listen=address):
        await asyncio.to_thread(caller.join)

    assert [response.post.id for response in answered] == [5]

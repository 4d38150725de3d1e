"""Small services that answer as a test tells them, in this process or behind a port."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from chassis.admission import Admission
from chassis.limits import MutationLimit
from chassis.local import LocalChannel
from chassis.metrics import Metrics
from chassis.remote import RemoteChannel
from chassis.server import Server, endpoints_of
from chassis.tracing import Tracer
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from insta.users.v1 import auth_pb2, auth_pb2_grpc
from tests.chassis.issuer import Issuer

CONTRACTS = ("insta.posts.v1.PostService", "insta.users.v1.AuthService")
MAX_CALLS = 100
MOST_WAITING = 25


async def _answer(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
    return posts_pb2.GetPostResponse(post=posts_pb2.Post(id=request.post_id, title="First light"))


class Posts(posts_pb2_grpc.PostServiceServicer):
    """Methods for users.

    Attributes:
        script: Answers `GetPost` and `CreatePost`.
        requests: What reached them.
    """

    def __init__(self) -> None:
        self.script: Callable[[Any], Awaitable[Any]] = _answer
        self.requests: list[Any] = []

    async def GetPost(self, request: posts_pb2.GetPostRequest, context: object) -> posts_pb2.GetPostResponse:
        self.requests.append(request)
        return await self.script(request)

    async def CreatePost(self, request: posts_pb2.CreatePostRequest, context: object) -> posts_pb2.CreatePostResponse:
        self.requests.append(request)
        return await self.script(request)


class Auth(auth_pb2_grpc.AuthServiceServicer):
    """A method for everybody."""

    async def Login(self, request: auth_pb2.LoginRequest, context: object) -> auth_pb2.LoginResponse:
        return auth_pb2.LoginResponse(access_token=request.login)


@dataclass
class Way:
    """A way to servicers.

    Attributes:
        channel: To them, as other services have one.
        metrics: What they count.
        admission: Of their calls.
        server: None in this process.
        address: host:port of the server.
        draining: Set by a server that is about to stop.
    """

    channel: Any
    metrics: Metrics
    admission: Admission
    server: Server | None = None
    address: str = ""
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self) -> None:
        """Stop the server, and wait until those who call have noticed: before, a call may still go where nobody is."""
        assert self.server is not None
        await self.server.drain(0)
        async with asyncio.timeout(20):
            while True:
                if self.channel._channel.get_state() is not grpc.ChannelConnectivity.READY:
                    return
                await asyncio.sleep(0.01)


@dataclass(kw_only=True)
class Peer(Way):
    """A service and the way to it.

    Attributes:
        servicer: What is called.
    """

    servicer: Posts

    @property
    def posts(self) -> posts_pb2_grpc.PostServiceStub:
        return posts_pb2_grpc.PostServiceStub(self.channel)

    @property
    def auth(self) -> auth_pb2_grpc.AuthServiceStub:
        return auth_pb2_grpc.AuthServiceStub(self.channel)


@asynccontextmanager
async def reached(
    kind: str,
    servicers: Mapping[str, object],
    issuer: Issuer,
    max_calls: int = MAX_CALLS,
    longest_wait: float = math.inf,
    listen: str = "127.0.0.1:0",
    limit: MutationLimit | None = None,
    tracer: Tracer | None = None,
    connection_age: float = math.inf,
) -> AsyncIterator[Way]:
    """Servicers that run in this process ("local"), or on a server of their own ("remote")."""
    verifier = issuer.verifier()
    metrics = Metrics()
    admission = Admission(max_calls)
    endpoints = endpoints_of(servicers, verifier, metrics, admission, limit, tracer=tracer)
    if kind == "local":
        yield Way(LocalChannel(endpoints), metrics, admission)
        return
    draining = asyncio.Event()
    server = Server(
        endpoints,
        verifier,
        metrics,
        admission=admission,
        connection_age=connection_age,
        longest_wait=longest_wait,
        draining=draining,
    )
    address = f"{listen.rpartition(':')[0]}:{await server.start(listen)}"
    pool = descriptor_pool.Default()
    contracts = [pool.FindServiceByName(name) for name in servicers]
    channel = RemoteChannel(address, contracts, most_waiting=MOST_WAITING)
    try:
        yield Way(channel, metrics, admission, server, address, draining)
    finally:
        await channel.close()
        await server.drain(0)


@asynccontextmanager
async def running(
    kind: str,
    issuer: Issuer,
    max_calls: int = MAX_CALLS,
    longest_wait: float = math.inf,
    listen: str = "127.0.0.1:0",
    tracer: Tracer | None = None,
    connection_age: float = math.inf,
) -> AsyncIterator[Peer]:
    """A service, in one of the two ways."""
    servicer = Posts()
    servicers = dict(zip(CONTRACTS, (servicer, Auth()), strict=True))
    async with reached(kind, servicers, issuer, max_calls, longest_wait, listen, None, tracer, connection_age) as way:
        yield Peer(**vars(way), servicer=servicer)

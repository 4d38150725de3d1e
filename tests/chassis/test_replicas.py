"""Several servers under one name: which of them are called, and what calls notice when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pool

from chassis.remote import RemoteChannel
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests import names
from tests.chassis.issuer import Issuer
from tests.chassis.peers import CONTRACTS, MOST_WAITING, Peer, running

GET = posts_pb2.GetPostRequest(post_id=5)
CREATE = posts_pb2.CreatePostRequest(title="First light")
LONE = [("grpc.use_local_subchannel_pool", 1)]
AGE_SECONDS = 0.3


@asynccontextmanager
async def channel_to(target: str) -> AsyncIterator[Any]:
    """A channel as parts have it, to all that a gRPC name leads to."""
    pool = descriptor_pool.Default()
    channel = RemoteChannel(target, [pool.FindServiceByName(name) for name in CONTRACTS], most_waiting=MOST_WAITING)
    yield channel
    await channel.close()


def together(peers: Iterable[Peer]) -> str:
    """The gRPC name of several servers."""
    return f"ipv4:{','.join(peer.address for peer in peers)}"


async def created(request: posts_pb2.CreatePostRequest) -> posts_pb2.CreatePostResponse:
    return posts_pb2.CreatePostResponse()


async def test_replicas_share_the_calls_until_one_of_them_is_about_to_stop(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        one, another = [await stack.enter_async_context(running("remote", issuer)) for _ in range(2)]
        channel = await stack.enter_async_context(channel_to(together((one, another))))
        posts = posts_pb2_grpc.PostServiceStub(channel)
        while not one.servicer.requests or not another.servicer.requests:
            await posts.GetPost(GET, metadata=token)

        # It says NOT_SERVING, and answers all the same.
        one.draining.set()
        async with asyncio.timeout(20):
            while True:
                before = len(one.servicer.requests)
                for _ in range(10):
                    await posts.GetPost(GET, metadata=token)
                if len(one.servicer.requests) == before:
                    return


async def test_a_client_that_may_not_watch_calls_all_the_same(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(running("remote", issuer, max_calls=1))
        first = posts_pb2_grpc.PostServiceStub(peer.channel)
        await first.GetPost(GET, metadata=token)
        # The first channel has the only Watch that there may be.
        second = posts_pb2_grpc.PostServiceStub(await stack.enter_async_context(channel_to(peer.address)))

        assert (await second.GetPost(GET, metadata=token)).post.id == 5


async def test_no_call_notices_that_connections_are_replaced(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(running("remote", issuer, connection_age=AGE_SECONDS))
        peer.servicer.script = created
        # Of a client that knows nothing of all this.
        plain = await stack.enter_async_context(grpc.aio.insecure_channel(peer.address, options=LONE))
        replaced = 0

        async def count() -> None:
            nonlocal replaced
            while replaced < 3:
                await plain.wait_for_state_change(grpc.ChannelConnectivity.READY)
                replaced += 1
                while plain.get_state() is not grpc.ChannelConnectivity.READY:
                    await plain.wait_for_state_change(plain.get_state())

        async def call(posts: posts_pb2_grpc.PostServiceStub) -> None:
            while not counting.done():
                await posts.CreatePost(CREATE, metadata=token, timeout=20)

        await plain.channel_ready()
        counting = asyncio.ensure_future(count())
        stubs = [posts_pb2_grpc.PostServiceStub(channel) for channel in (plain, peer.channel)]
        await asyncio.gather(*(call(stub) for stub in stubs * 4), asyncio.wait_for(counting, 20))


async def test_a_call_outlives_the_age_of_its_connection(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(running("remote", issuer, connection_age=AGE_SECONDS))
        plain = await stack.enter_async_context(grpc.aio.insecure_channel(peer.address, options=LONE))
        opened = asyncio.Event()

        async def wait(request: posts_pb2.CreatePostRequest) -> posts_pb2.CreatePostResponse:
            await opened.wait()
            return posts_pb2.CreatePostResponse()

        peer.servicer.script = wait
        await plain.channel_ready()
        under_way = posts_pb2_grpc.PostServiceStub(plain).CreatePost(CREATE, metadata=token, timeout=20)
        for _ in range(2):
            await plain.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await plain.channel_ready()
        opened.set()

        assert await under_way == posts_pb2.CreatePostResponse()


async def test_a_server_goes_on_measuring_when_its_connection_to_itself_is_old(issuer: Issuer, token: Any) -> None:
    async with running("remote", issuer, connection_age=AGE_SECONDS) as peer:
        assert peer.server is not None
        for acceptor in peer.server._acceptors:
            assert acceptor._to_itself is not None
            if acceptor._to_itself.get_state() is grpc.ChannelConnectivity.READY:
                await acceptor._to_itself.wait_for_state_change(grpc.ChannelConnectivity.READY)

        passed = [await acceptor.pass_queue(20) for acceptor in peer.server._acceptors]

        assert passed == [grpc.StatusCode.UNIMPLEMENTED] * len(passed)


async def test_a_replica_that_is_new_is_called_once_a_connection_is_old(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        known = stack.enter_context(names.served())
        one = await stack.enter_async_context(running("remote", issuer, connection_age=AGE_SECONDS))
        port = int(one.address.rpartition(":")[2])
        known.known["posts"] = ["127.0.0.1"]
        channel = await stack.enter_async_context(channel_to(known.target("posts", port)))
        posts = posts_pb2_grpc.PostServiceStub(channel)
        await posts.GetPost(GET, metadata=token)

        another = await stack.enter_async_context(running("remote", issuer, listen=f"127.0.0.2:{port}"))
        known.known["posts"] = ["127.0.0.1", "127.0.0.2"]
        async with asyncio.timeout(20):
            while not another.servicer.requests:
                await posts.GetPost(GET, metadata=token)


async def test_no_call_notices_that_a_replica_is_stopped_in_order(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        one, another = [await stack.enter_async_context(running("remote", issuer)) for _ in range(2)]
        one.servicer.script = another.servicer.script = created
        channel = await stack.enter_async_context(channel_to(together((one, another))))
        posts = posts_pb2_grpc.PostServiceStub(channel)
        stopped = asyncio.Event()

        async def call() -> None:
            while not stopped.is_set():
                # It is not sent again.
                await posts.CreatePost(CREATE, metadata=token)

        async with asyncio.TaskGroup() as callers:
            for _ in range(8):
                callers.create_task(call())
            while not one.servicer.requests or not another.servicer.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert one.server is not None
            await one.server.drain(10)
            stopped.set()


async def test_all_calls_that_a_replica_leaves_without_an_answer_are_made_again(issuer: Issuer, token: Any) -> None:
    async with AsyncExitStack() as stack:
        one, another = [await stack.enter_async_context(running("remote", issuer, max_calls=400)) for _ in range(2)]
        channel = await stack.enter_async_context(channel_to(together((one, another))))
        posts = posts_pb2_grpc.PostServiceStub(channel)
        while not one.servicer.requests or not another.servicer.requests:
            await posts.GetPost(GET, metadata=token)
        held = 0

        async def hold(request: posts_pb2.GetPostRequest) -> posts_pb2.GetPostResponse:
            nonlocal held
            held += 1
            await asyncio.Event().wait()
            raise AssertionError

        one.servicer.script = hold
        calls = [asyncio.ensure_future(posts.GetPost(GET, metadata=token, timeout=20)) for _ in range(300)]
        async with asyncio.timeout(20):
            while held < 150:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert one.server is not None
        await one.server.drain(0)

        assert {answer.post.id for answer in await asyncio.gather(*calls)} == {5}

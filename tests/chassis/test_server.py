"""The server: what it refuses to serve and to answer, what every answer carries, and how it stops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from chassis import errors
from chassis.admission import Admission
from chassis.metrics import Metrics
from chassis.server import Server, endpoints_of, hold_port, is_loopback
from insta.posts.v1 import posts_pb2, posts_pb2_grpc
from tests.chassis.issuer import Issuer
from tests.chassis.peers import CONTRACTS, Peer, running
from tests.people import failure, refused_soon

REQUEST = posts_pb2.GetPostRequest(post_id=5)
GET_POST = "/insta.posts.v1.PostService/GetPost"
# Channels to one address would share a connection.
LONE = [("grpc.use_local_subchannel_pool", 1)]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest_asyncio.fixture
async def peer(issuer: Issuer) -> AsyncIterator[Peer]:
    """A server that admits two calls at once."""
    async with running("remote", issuer, max_calls=2) as started:
        yield started


@pytest_asyncio.fixture
async def channel(peer: Peer) -> AsyncIterator[grpc.aio.Channel]:
    """A client's own channel."""
    async with grpc.aio.insecure_channel(peer.address, options=LONE) as opened:
        yield opened


@pytest.fixture
def health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def lone_server(issuer: Issuer, shares_port: bool) -> Server:
    """A server without methods of its own."""
    draining = asyncio.Event()
    return Server({}, issuer.verifier(), Metrics(), admission=Admission(1), draining=draining, shares_port=shares_port)


class Gate:
    """A script that answers when it is opened.

    Attributes:
        waiting: One for each call that came.
    """

    def __init__(self) -> None:
        self.waiting = asyncio.Semaphore(0)
        self.opened = asyncio.Event()

    async def __call__(self, request: Any) -> Any:
        self.waiting.release()
        await self.opened.wait()
        return posts_pb2.GetPostResponse()


async def at_once(request: Any) -> Any:
    """A script that waits for nothing."""
    return posts_pb2.GetPostResponse()


def test_a_method_that_declares_no_access_is_not_served() -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/v1/open.proto", package="tests.v1", dependency=["google/protobuf/empty.proto"], syntax="proto3"
    )
    assert empty_pb2.Empty.DESCRIPTOR.file.name == file.dependency[0]
    empty = ".google.protobuf.Empty"
    file.service.add(name="OpenService").method.add(name="Enter", input_type=empty, output_type=empty)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

    class OpenServicer:
        async def Enter(self, request: empty_pb2.Empty, context: object) -> empty_pb2.Empty:
            return request

    with pytest.raises(ValueError, match=r"tests\.v1\.OpenService\.Enter"):
        endpoints_of({"tests.v1.OpenService": OpenServicer()}, Issuer().verifier(), Metrics(), None)


@pytest.mark.parametrize("service", ["", *CONTRACTS])
async def test_health_tells_of_the_server_and_of_each_service(health: Any, service: str) -> None:
    assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
    assert (await health.List(health_pb2.HealthListRequest())).statuses[service].status == SERVING


@pytest.mark.parametrize("service", ["insta.v1.Nothing", "x" * 20_000], ids=["short", "long"])
async def test_health_of_an_unknown_service_is_not_found(health: Any, service: str) -> None:
    failed = await failure(health.Check(health_pb2.HealthCheckRequest(service=service)))

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND")


async def test_a_watch_tells_of_the_stop_and_ends(issuer: Issuer) -> None:
    services = ("", CONTRACTS[0], "x")
    async with running("remote", issuer) as peer, grpc.aio.insecure_channel(peer.address, options=LONE) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = {service: health.Watch(health_pb2.HealthCheckRequest(service=service)) for service in services}
        first = {service: (await watch.read()).status for service, watch in watches.items()}
        assert first == {"": SERVING, CONTRACTS[0]: SERVING, "x": SERVICE_UNKNOWN}

        began = time.monotonic()
        assert peer.server is not None
        draining = asyncio.ensure_future(peer.server.drain(10))
        last = {service: await watch.read() for service, watch in watches.items()}
        ends = [await watch.code() for watch in watches.values() if await watch.read() is grpc.aio.EOF]
        await draining

    assert last.pop("x") is grpc.aio.EOF
    assert [response.status for response in last.values()] == [NOT_SERVING] * 2
    assert ends == [grpc.StatusCode.OK] * 3
    assert time.monotonic() - began < 1


async def test_a_watch_that_comes_while_the_server_stops_is_refused(peer: Peer, health: Any) -> None:
    # One that was answered and ended would be begun anew at once, again and again, by clients of gRPC.
    peer.draining.set()

    refused = await failure(health.Watch(health_pb2.HealthCheckRequest()).read())

    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


async def test_a_call_under_way_is_answered_although_the_server_stops(
    peer: Peer, channel: grpc.aio.Channel, health: Any, token: Any
) -> None:
    gate = peer.servicer.script = Gate()
    under_way = peer.posts.GetPost(REQUEST, metadata=token)
    await gate.waiting.acquire()
    watch = health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    assert peer.server is not None
    draining = asyncio.ensure_future(peer.server.drain(10))
    assert (await watch.read()).status == NOT_SERVING
    peer.servicer.script = at_once
    later = posts_pb2_grpc.PostServiceStub(channel)
    await refused_soon(lambda: later.GetPost(REQUEST, metadata=token), grpc.StatusCode.UNAVAILABLE)
    gate.opened.set()

    assert await under_way == posts_pb2.GetPostResponse()
    await draining


async def test_calls_that_wait_for_their_turn_are_answered_although_the_server_stops(
    issuer: Issuer, token: Any
) -> None:
    async with running("remote", issuer) as peer:
        gate = peer.servicer.script = Gate()
        calls = [peer.posts.GetPost(REQUEST, metadata=token) for _ in range(50)]
        gate.opened.set()
        await gate.waiting.acquire()
        # The server is busy meanwhile: the others come in, and none of them begins.
        time.sleep(0.3)  # noqa: ASYNC251
        assert peer.server is not None
        await peer.server.drain(10)

        assert [await call.code() for call in calls] == [grpc.StatusCode.OK] * 50


async def test_a_stop_waits_no_longer_than_its_grace(peer: Peer, token: Any) -> None:
    gate = peer.servicer.script = Gate()
    under_way = peer.posts.CreatePost(posts_pb2.CreatePostRequest(title="x"), metadata=token)
    await gate.waiting.acquire()
    assert peer.server is not None

    began = time.monotonic()
    await peer.server.drain(0.1)

    assert time.monotonic() - began < 1
    assert (await failure(under_way)).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_more_calls_than_are_admitted_are_refused_at_once(peer: Peer, health: Any, token: Any) -> None:
    gate = peer.servicer.script = Gate()
    admitted = [peer.posts.GetPost(REQUEST, metadata=token) for _ in range(2)]
    for _ in admitted:
        await gate.waiting.acquire()

    refused = await failure(peer.posts.GetPost(REQUEST, metadata=token))

    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refused.retry_after
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
    gate.opened.set()
    assert [await call for call in admitted] == [posts_pb2.GetPostResponse()] * 2


async def test_streams_that_stay_open_leave_room_for_calls(
    peer: Peer, channel: grpc.aio.Channel, health: Any, token: Any
) -> None:
    # The channel of the peer has a Watch, too, once it is connected.
    assert (await peer.posts.GetPost(REQUEST, metadata=token)).post.id
    watch = health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    idle = [reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo() for _ in range(2)]
    for stream in idle:
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await stream.read()

    # Its own connection holds most of the streams that it may.
    async with grpc.aio.insecure_channel(peer.address, options=LONE) as other:
        others_health = health_pb2_grpc.HealthStub(other)
        unwatched = await failure(others_health.Watch(health_pb2.HealthCheckRequest()).read())
        reflection = reflection_pb2_grpc.ServerReflectionStub(other)
        refused = await failure(reflection.ServerReflectionInfo().read())
        assert (await others_health.Check(health_pb2.HealthCheckRequest())).status == SERVING

    # To a client that looks after the health of a server, any other code says that it is not well.
    assert (unwatched.code, unwatched.reason) == (grpc.StatusCode.UNIMPLEMENTED, "TOO_MANY_WATCHES")
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert (await peer.posts.GetPost(REQUEST, metadata=token)).post.id
    for opened in (watch, *idle):
        opened.cancel()


async def test_an_idle_reflection_stream_does_not_hold_up_a_stop(peer: Peer, channel: grpc.aio.Channel) -> None:
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await stream.read()

    began = time.monotonic()
    assert peer.server is not None
    await peer.server.drain(10)

    assert time.monotonic() - began < 1
    assert await stream.code() == grpc.StatusCode.OK


async def test_calls_that_failed_or_were_cancelled_make_room(peer: Peer, token: Any) -> None:
    for _ in range(3):
        await failure(peer.posts.GetPost(posts_pb2.GetPostRequest(post_id=-1), metadata=token))
        await failure(peer.posts.GetPost(REQUEST))
    gate = peer.servicer.script = Gate()
    for _ in range(3):
        call = peer.posts.GetPost(REQUEST, metadata=token)
        await gate.waiting.acquire()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    gate.opened.set()

    assert await peer.posts.GetPost(REQUEST, metadata=token) == posts_pb2.GetPostResponse()


async def test_calls_are_counted_by_the_way_they_end(peer: Peer, token: Any) -> None:
    await peer.posts.GetPost(REQUEST, metadata=token)
    await peer.posts.GetPost(REQUEST, metadata=token)
    await failure(peer.posts.GetPost(posts_pb2.GetPostRequest(post_id=-1), metadata=token))
    await failure(peer.posts.GetPost(REQUEST))
    gate = peer.servicer.script = Gate()
    call = peer.posts.GetPost(REQUEST, metadata=token)
    await gate.waiting.acquire()
    assert _in_flight(peer) == 1
    call.cancel()
    async with asyncio.timeout(5):
        while _in_flight(peer):  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)

    counted = {code: _counted(peer, code) for code in ("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "CANCELLED")}
    assert counted == {"OK": 2, "INVALID_ARGUMENT": 1, "UNAUTHENTICATED": 1, "CANCELLED": 1}


@pytest.mark.parametrize("metadata", ["good", "none"])
async def test_the_trace_of_the_client_is_kept(
    peer: Peer, channel: grpc.aio.Channel, token: Any, metadata: str
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = [("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")]

    trailers = await _trailers(channel, [*parent, *token] if metadata == "good" else parent)

    assert trailers["trace-id"] == trace_id


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
async def test_a_call_without_a_valid_trace_begins_one(
    peer: Peer, channel: grpc.aio.Channel, token: Any, traceparent: str | None
) -> None:
    """W3C Trace Context, 3.2.2: an id of zeros is invalid, and so is the version ff."""
    sent = [("traceparent", traceparent)] if traceparent is not None else []

    one, two = [(await _trailers(channel, [*sent, *token]))["trace-id"] for _ in range(2)]

    assert one != two
    for trace_id in (one, two):
        assert len(trace_id) == 32
        assert int(trace_id, 16)
        assert trace_id not in (traceparent or "")


async def test_bytes_that_are_no_message_are_refused_without_an_exceptions_text(
    channel: grpc.aio.Channel, token: Any
) -> None:
    for nonsense in (b"\x0a\xff", b"\xff" * 100, b"\x08"):
        failed = await failure(channel.unary_unary(GET_POST)(nonsense, metadata=token, timeout=10))

        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
        assert "insta.posts.v1.GetPostRequest" in failed.text


async def test_methods_and_messages_that_cannot_be_are_refused(channel: grpc.aio.Channel, token: Any) -> None:
    unknown = await failure(channel.unary_unary("/insta.posts.v1.PostService/Nothing")(b"", metadata=token))
    huge = await failure(channel.unary_unary(GET_POST)(b"\x00" * (4 * 1024 * 1024 + 1), metadata=token))

    assert unknown.code is grpc.StatusCode.UNIMPLEMENTED
    assert huge.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("count", [1, 20, 100, 900])
async def test_violations_are_told_as_far_as_trailers_can_carry_them(peer: Peer, token: Any, count: int) -> None:
    refused = await _refused(peer, posts_pb2.CreatePostRequest(title=" ", image_urls=["no address"] * count), token)
    *told, last = _bad_request(refused).field_violations

    total = 1 + count + (count > 10)
    if count > 20:
        assert len(told) >= 50
        assert last.description == f"and {total - len(told)} more violations"
    else:
        assert len(told) + 1 == total
    assert _size_of_trailers(refused) < 8192


async def test_a_list_that_is_far_too_long_is_refused_as_a_whole(peer: Peer, token: Any) -> None:
    request = posts_pb2.CreatePostRequest(title="First light", image_urls=["no address"] * 100_000)

    refused = await _refused(peer, request, token)

    assert [violation.field for violation in _bad_request(refused).field_violations] == ["image_urls"]
    assert _size_of_trailers(refused) < 8192


async def test_channelz_is_for_staff(channel: grpc.aio.Channel, issuer: Issuer) -> None:
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    request = channelz_pb2.GetServersRequest()

    stranger = await failure(channelz.GetServers(request))
    user = await failure(channelz.GetServers(request, metadata=[("authorization", issuer.authorization(7))]))
    staff = await channelz.GetServers(request, metadata=[("authorization", issuer.authorization(7, "staff"))])

    assert (stranger.code, stranger.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert (user.code, user.reason) == (grpc.StatusCode.PERMISSION_DENIED, "STAFF_ONLY")
    assert len(staff.server) >= 1


async def test_channelz_says_that_it_knows_nothing_of_an_id(channel: grpc.aio.Channel, issuer: Issuer) -> None:
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    staff = [("authorization", issuer.authorization(7, "staff"))]

    for call in (
        channelz.GetServer(channelz_pb2.GetServerRequest(server_id=2**40), metadata=staff),
        channelz.GetSocket(channelz_pb2.GetSocketRequest(socket_id=2**40), metadata=staff),
        channelz.GetChannel(channelz_pb2.GetChannelRequest(channel_id=2**40), metadata=staff),
    ):
        failed = await failure(call)
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "CHANNEL_NOT_FOUND")


@pytest.mark.parametrize("shares_port", [False, True])
async def test_a_port_that_is_taken_is_refused(issuer: Issuer, shares_port: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=address if shares_port else "in use"):
            await lone_server(issuer, shares_port).start(address)


async def test_servers_of_one_suite_share_the_port_that_it_holds() -> None:
    with hold_port("127.0.0.1:0") as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
        for _ in range(2):
            async with (
                listening(shares_port=True, address=address),
                listening(shares_port=True, address=address),
                grpc.aio.insecure_channel(address, options=LONE) as channel,
            ):
                health = health_pb2_grpc.HealthStub(channel)
                assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING


@pytest.mark.parametrize("shares_port", [False, True])
async def test_a_port_that_somebody_listens_on_cannot_be_held(shares_port: bool) -> None:
    async with listening(shares_port=shares_port) as address:
        with pytest.raises(OSError, match="in use"):
            hold_port(address)


def test_a_port_that_is_held_cannot_be_held_again() -> None:
    with hold_port("127.0.0.1:0") as held, pytest.raises(OSError, match="in use"):
        hold_port(f"127.0.0.1:{held.getsockname()[1]}")


def test_a_port_can_be_held_again_soon_after_its_server_stopped() -> None:
    """Connections that ended keep a port for a minute from who does not ask for it in the right way."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        port = listener.getsockname()[1]
        # Who closes first is the one whose port waits.
        accepted.close()
        assert client.recv(1) == b""

    hold_port(f"127.0.0.1:{port}").close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", True),
        ("127.1.2.3:0", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("192.168.0.1:50051", False),
        ("example.com:50051", False),
        ("localhost.example.com:50051", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@asynccontextmanager
async def listening(*, shares_port: bool, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """A server without services of its own. Its address."""
    server = lone_server(Issuer(), shares_port)
    port = await server.start(address)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.drain(0)


async def _trailers(channel: grpc.aio.Channel, metadata: Any) -> Any:
    call = channel.unary_unary(GET_POST)(REQUEST.SerializeToString(), metadata=metadata, timeout=10)
    await call.code()
    return await call.trailing_metadata()


def _in_flight(peer: Peer) -> float | None:
    return peer.metrics.registry.get_sample_value("insta_calls_in_flight", {"service": CONTRACTS[0]})


def _counted(peer: Peer, code: str) -> float | None:
    labels = {"method": GET_POST.removeprefix("/"), "code": code}
    return peer.metrics.registry.get_sample_value("insta_calls_total", labels)


async def _refused(peer: Peer, request: posts_pb2.CreatePostRequest, token: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await peer.posts.CreatePost(request, metadata=token)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return refused.value


def _bad_request(refused: grpc.aio.AioRpcError) -> error_details_pb2.BadRequest:
    status = status_pb2.Status.FromString(refused.trailing_metadata()[errors.DETAILS_KEY])
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    return bad_request


def _size_of_trailers(refused: grpc.aio.AioRpcError) -> int:
    """As HTTP/2 counts it, with the message that is sent beside them."""
    return sum(len(key) + len(value) + 32 for key, value in refused.trailing_metadata()) + len(refused.details() or "")

"""A channel to a service in another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor, descriptor_pb2, message

from chassis import service_config, streams, tls
from chassis.call import (
    AUTHORIZATION_KEY,
    CLIENT_ADDRESS_KEY,
    CLIENT_AGENT_KEY,
    TRACEPARENT_KEY,
    TRACESTATE_KEY,
    current,
    new_trace_id,
    unrecorded,
)

if TYPE_CHECKING:
    from chassis.tracing import OutgoingSpan

DEFAULT_TIMEOUT_SECONDS = 10.0
# A part that is started again is there within this time; of one that is away for longer calls are to hear at once.
PATIENCE_SECONDS = 3.0
# Above all that a part answers: how much a client can be sent is for who answers it to mind, not a reason for parts to
# fail on each other.
_MOST_BYTES = 16 * 1024 * 1024


class RemoteChannel:
    """What a generated stub needs of a `grpc.aio.Channel`, for methods of which not both sides stream.

    A call ends with the call under way, or after `DEFAULT_TIMEOUT_SECONDS`. It passes on that call's token and trace,
    and its origin where it may change something. Where there is no connection it waits for one, until the service has
    been away for `PATIENCE_SECONDS` or `most_waiting` calls wait. What it returns has all that a call on a
    `LocalChannel` has.

    Args:
        address: host:port, or a gRPC name to resolve: all replicas of the service that it has share the calls.
        services: What is called there.
        peer: What this service proves itself with, and knows others by. None: nothing is encrypted.
        name: Of the service that is called: the certificate there must be for it, whatever the address.
        most_waiting: How many calls wait at most, not to take all places of a server.
    """

    def __init__(
        self,
        address: str,
        services: Sequence[descriptor.ServiceDescriptor],
        peer: tls.Peer | None = None,
        name: str = "",
        most_waiting: int = 250,
    ) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config.between_parts(services)),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", _MOST_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # How long it may take to connect, handshake included.
            ("grpc.min_reconnect_backoff_ms", 2000),
            # A part that died is there again within a second or two: who waits longer than that adds to it.
            ("grpc.max_reconnect_backoff_ms", 500),
            # A name is asked for again where a connection ends, and no sooner than this: by default 30 s, in which all
            # replicas that are known may have been replaced.
            ("grpc.dns_min_time_between_resolutions_ms", 2000),
            # Else all channels of a process to one address share a connection, also those of two suites.
            ("grpc.use_local_subchannel_pool", 1),
            # What an environment names as its proxy is for what is outside.
            ("grpc.enable_http_proxy", 0),
        ]
        if peer is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            options.append(("grpc.ssl_target_name_override", name))
            self._channel = grpc.aio.secure_channel(address, peer.channel_credentials(), options=options)
        self._connection = _Connection(self._channel, most_waiting)
        self._changing = {
            f"/{service.full_name}/{method.name}"
            for service in services
            for method in service.methods
            if method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
        }

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _UnaryUnary:
        inner = self._channel.unary_unary(method, *args, **kwargs)
        return _UnaryUnary(method, inner, self._connection, method in self._changing)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _StreamUnary:
        inner = self._channel.stream_unary(method, *args, **kwargs)
        return _StreamUnary(method, inner, self._connection, method in self._changing)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _UnaryStream:
        inner = self._channel.unary_stream(method, *args, **kwargs)
        return _UnaryStream(method, inner, self._connection, method in self._changing)

    async def close(self, grace: float | None = None) -> None:
        self._connection.give_up()
        await self._channel.close(grace)


class _Connection:
    """Whether a channel is connected, and since when it is not."""

    def __init__(self, channel: grpc.aio.Channel, most_waiting: int) -> None:
        self._channel = channel
        self._most_waiting = most_waiting
        self._given_up = False
        self._coming: asyncio.Task[None] | None = None
        self._missed_since = 0.0
        self._waiting = 0

    def is_there(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def wait(self, seconds: float) -> None:
        """Wait until it is there, for so long at most, and no longer than until it was missed for a while.

        If too many wait already, for nothing.
        """
        if self._given_up:
            return
        now = asyncio.get_running_loop().time()
        if self._coming is None or self._coming.done():
            self._coming = asyncio.create_task(self._channel.channel_ready())
            self._missed_since = now
        patience = self._missed_since + PATIENCE_SECONDS - now
        if patience <= 0 or self._waiting >= self._most_waiting:
            return
        self._waiting += 1
        try:
            await asyncio.wait([self._coming], timeout=min(seconds, patience))
        finally:
            self._waiting -= 1

    def give_up(self) -> None:
        """The channel is closed."""
        self._given_up = True
        if self._coming is not None:
            self._coming.cancel()


class _Multicallable:
    def __init__(self, method: str, inner: Any, connection: _Connection, tells_origin: bool) -> None:
        self._method = method
        self._inner = inner
        self._connection = connection
        self._tells_origin = tells_origin

    def _outgoing(
        self, timeout: float | None, metadata: Sequence[tuple[str, str]] | None
    ) -> tuple[float, list[tuple[str, str]], OutgoingSpan | None]:
        """The seconds that a call has, what is sent along with it, and what is recorded of it."""
        timeout = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        parent = current.get()
        sent = list(metadata or ())
        if parent is not None:
            timeout = min(timeout, max(parent.deadline - asyncio.get_running_loop().time(), 0))
            if parent.authorization and all(key != AUTHORIZATION_KEY for key, _ in sent):
                sent.append((AUTHORIZATION_KEY, parent.authorization))
            if self._tells_origin:
                sent.append((CLIENT_ADDRESS_KEY, parent.origin.address))
                sent.append((CLIENT_AGENT_KEY, parent.origin.user_agent))
        span = None
        if parent is None:
            sent.append((TRACEPARENT_KEY, unrecorded(new_trace_id())))
        elif parent.span is None:
            sent.append((TRACEPARENT_KEY, parent.traceparent or unrecorded(parent.trace_id)))
        else:
            span = parent.span.calling(self._method)
            sent.append((TRACEPARENT_KEY, span.traceparent))
            if span.tracestate:
                sent.append((TRACESTATE_KEY, span.tracestate))
        return timeout, sent, span


class _UnaryUnary(_Multicallable):
    def __call__(
        self,
        request: message.Message,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **options: Any,
    ) -> grpc.aio.UnaryUnaryCall[Any, Any] | _WaitingCall:
        timeout, sent, span = self._outgoing(timeout, metadata)

        def begin(seconds: float) -> grpc.aio.UnaryUnaryCall[Any, Any]:
            call: grpc.aio.UnaryUnaryCall[Any, Any] = self._inner(request, timeout=seconds, metadata=sent, **options)
            return call if span is None else span.until_end_of(call)

        return begin(timeout) if self._connection.is_there() else _WaitingCall(self._connection, begin, timeout)


class _StreamUnary(_Multicallable):
    def __call__(
        self,
        requests: AsyncIterator[message.Message],
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **options: Any,
    ) -> RemoteRequestStream:
        timeout, sent, span = self._outgoing(timeout, metadata)

        def begin(seconds: float) -> Any:
            call = self._inner(timeout=seconds, metadata=sent, **options)
            return call if span is None else span.until_end_of(call)

        return RemoteRequestStream(self._connection, begin, timeout, aiter(requests))


class _UnaryStream(_Multicallable):
    def __call__(
        self,
        request: message.Message,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        **options: Any,
    ) -> RemoteResponseStream:
        timeout, sent, span = self._outgoing(timeout, metadata)

        def begin(seconds: float) -> Any:
            call = self._inner(request, timeout=seconds, metadata=sent, **options)
            return call if span is None else span.until_end_of(call)

        return RemoteResponseStream(self._connection, begin, timeout)


class _WaitingCall:
    """A call that begins when there is a connection, or none is waited for any longer; await it for its response."""

    def __init__(self, connection: _Connection, begin: Callable[[float], Any], timeout: float) -> None:
        self._beginning = asyncio.create_task(_begun(connection, begin, timeout))

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._beginning.__await__()
        return (yield from call.__await__())

    def cancel(self) -> bool:
        return self._beginning.result().cancel() if self._has_begun() else self._beginning.cancel()

    async def code(self) -> grpc.StatusCode:
        await asyncio.wait([self._beginning])
        return await self._beginning.result().code() if self._has_begun() else grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        await asyncio.wait([self._beginning])
        return await self._beginning.result().details() if self._has_begun() else ""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await asyncio.wait([self._beginning])
        return await self._beginning.result().trailing_metadata() if self._has_begun() else grpc.aio.Metadata()

    def _has_begun(self) -> bool:
        beginning = self._beginning
        return beginning.done() and not beginning.cancelled() and beginning.exception() is None


class RemoteResponseStream(_WaitingCall):
    """A call with a stream of responses; iterate over it. Who no longer has it has cancelled it."""

    def __del__(self) -> None:
        self.cancel()

    def __aiter__(self) -> RemoteResponseStream:
        return self

    async def __anext__(self) -> Any:
        call = await self._beginning
        response = await call.read()
        if response is grpc.aio.EOF:
            raise StopAsyncIteration
        return response


class RemoteRequestStream:
    """A call with a stream of requests; await it for its response.

    gRPC sends what an iterator yields by itself, but hides what that raises, and goes on waiting for it when the call
    has ended.
    """

    def __init__(
        self,
        connection: _Connection,
        begin: Callable[[float], Any],
        timeout: float,
        requests: AsyncIterator[message.Message],
    ) -> None:
        self._failure: BaseException | None = None
        self._call: Any = None
        self._ending = asyncio.create_task(self._answer(connection, begin, timeout, requests))
        self._ending.add_done_callback(_seen)

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from self._ending.__await__())

    def cancel(self) -> bool:
        return self._ending.cancel()

    async def code(self) -> grpc.StatusCode:
        await asyncio.wait([self._ending])
        return await self._call.code() if self._call is not None else grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        await asyncio.wait([self._ending])
        return await self._call.details() if self._call is not None else ""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await asyncio.wait([self._ending])
        return await self._call.trailing_metadata() if self._call is not None else grpc.aio.Metadata()

    async def _answer(
        self,
        connection: _Connection,
        begin: Callable[[float], Any],
        seconds: float,
        requests: AsyncIterator[message.Message],
    ) -> Any:
        try:
            self._call = await _begun(connection, begin, seconds)
            sending = asyncio.create_task(self._send(requests))
            # At once: a request that can no longer be sent would put a failure of gRPC's own in place of the status.
            self._call.add_done_callback(lambda _: sending.cancel())
            try:
                return await self._call
            except asyncio.CancelledError:
                if self._failure is None or streams.being_cancelled():
                    raise
                raise self._failure from None
            finally:
                await asyncio.wait([sending])
        finally:
            await streams.close(requests)

    async def _send(self, requests: AsyncIterator[message.Message]) -> None:
        try:
            async for request in requests:
                await self._call.write(request)
            await self._call.done_writing()
        except (Exception, asyncio.CancelledError) as failure:
            # A call that has ended tells by itself how.
            if not self._call.done():
                self._failure = failure
                self._call.cancel()


async def _begun(connection: _Connection, begin: Callable[[float], Any], seconds: float) -> Any:
    if connection.is_there():
        return begin(seconds)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    await connection.wait(seconds)
    return begin(max(end - loop.time(), 0))


def _seen(task: asyncio.Task[Any]) -> None:
    """Callers may drop their calls: that one failed is then nobody's business."""
    if not task.cancelled():
        task.exception()

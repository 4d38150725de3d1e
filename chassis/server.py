"""A gRPC server over endpoints: health, reflection and channelz beside the services, and a stop that loses no call."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool

from chassis import acceptor, channelz, errors, health, origins, reflection, tls
from chassis.acceptor import Acceptor, Handlers, Waiting
from chassis.access import Access
from chassis.admission import Admission, overloaded
from chassis.call import (
    AUTHORIZATION_KEY,
    NOWHERE,
    TRACE_KEY,
    TRACEPARENT_KEY,
    Call,
    trace_of,
)
from chassis.endpoint import Endpoint
from chassis.identity import Verifier
from chassis.limits import MutationLimit
from chassis.metrics import Metrics
from chassis.origins import Network, OriginOf
from chassis.replay import Replies

if TYPE_CHECKING:
    from chassis.tracing import Tracer

# A call that names no deadline gets this one; one that streams takes as long as its client does.
DEFAULT_DEADLINE_SECONDS = 30.0
LONGEST_STREAM_SECONDS = 200.0
# gRPC's own limit counts health checks and streams too and answers without details: it only stands behind `Admission`.
# It is that of an acceptor: one connection, which may have half as many calls, is not to fill it.
_BACKSTOP_FACTOR = 4
# Streams of reflection and health stay open: they are not to take the places of calls.
_MAX_STREAMS = 256
# One comes with each connection of a client that looks after the health of who it calls.
_MAX_WATCHES = 1024
# In this time those who watch have heard that a server stops, and call others.
_NEWS_SECONDS = 0.1
# A connection that is old enough takes no more calls. Those that it has, streams among them, end in this time.
_CONNECTION_GRACE_SECONDS = LONGEST_STREAM_SECONDS + 40
_MAX_WAITING = 10_000
# Of the calls that are let in at once, one of so many may be answered by a stream.
_DOWNLOADS_SHARE = 8
# More of them save less and less, and each looks how long its calls wait, which is a call as well.
_ACCEPTORS = 4
# The name of a socket has 107 characters at most.
_LONGEST_FOLDER = 100
_OPTIONS = [
    # Go clients may ping this often; without it they are sent away with ENHANCE_YOUR_CALM.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.enable_channelz", 1),
    ("grpc.so_reuseport", 1),
]


def endpoints_of(
    servicers: Mapping[str, object],
    verifier: Verifier,
    metrics: Metrics,
    admission: Admission | None,
    limit: MutationLimit | None = None,
    replies: Replies | None = None,
    callers: Mapping[str, frozenset[str]] | None = None,
    tracer: Tracer | None = None,
) -> dict[str, Endpoint]:
    """The endpoints of servicers, by path.

    Args:
        servicers: By the full name of their service.
        callers: Names of the services that may call, by the full name of the called one. Those that are not in it may
            be called by any.

    Raises:
        ValueError: a method declares no access.
    """
    pool = descriptor_pool.Default()
    endpoints = (
        Endpoint(
            method,
            getattr(servicer, method.name),
            verifier,
            metrics,
            admission,
            limit,
            replies,
            callers=(callers or {}).get(name),
            tracer=tracer,
        )
        for name, servicer in servicers.items()
        for method in pool.FindServiceByName(name).methods
    )
    return {endpoint.path: endpoint for endpoint in endpoints}


class NoSocketFolder(Exception):
    """There is no folder for a socket. Says why, and what to set."""


class Server:
    """Serves endpoints on one address.

    Args:
        endpoints: By path; those of health, reflection and channelz are added.
        admission: Of the calls to the endpoints.
        connection_age: Seconds, or a tenth more or less, after which a connection takes no more calls: its client makes
            another, and where it has the choice among replicas it meets those that are new. Infinite: never.
        longest_wait: Seconds. While calls wait longer than that before they begin, no more are let in.
        draining: Set when the server is about to stop.
        internal: Whether only other services call, which tell where their own calls came from. What anybody else tells
            is not looked at.
        trusted_proxies: Where proxies are, which are believed when they tell that.
        reflects: Whether reflection is served.
        shares_port: Whether other processes may listen on the same port; the system then spreads connections over them.
        certificate: What it proves itself with. A peer's: only services may call, each with a certificate of the same
            authority. None: nothing is encrypted.

    Raises:
        ValueError: others may call than services, and a method is for services only.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        verifier: Verifier,
        metrics: Metrics,
        *,
        admission: Admission,
        connection_age: float = math.inf,
        longest_wait: float = math.inf,
        draining: asyncio.Event,
        internal: bool = False,
        trusted_proxies: Sequence[Network] = (),
        reflects: bool = True,
        shares_port: bool = False,
        certificate: tls.Certificate | tls.Peer | None = None,
    ) -> None:
        for endpoint in endpoints.values():
            if endpoint.access == Access.ACCESS_SERVICE and not internal:
                raise ValueError(f"{endpoint.path} is for services: it cannot be on a server that everybody may call")
        self._credentials = None if certificate is None else certificate.server_credentials()
        services = sorted({path.split("/")[1] for path in endpoints})
        self._draining = draining
        infrastructure: dict[str, object] = {
            health.NAME: health.HealthServicer(services, self._draining),
            channelz.NAME: channelz.ChannelzServicer(),
        }
        if reflects:
            reflection.register_v1()
            listed = [*services, *infrastructure, reflection.V1, reflection.V1ALPHA]
            descriptors = reflection.Descriptors(listed)
            for version in (reflection.V1, reflection.V1ALPHA):
                infrastructure[version] = reflection.ReflectionServicer(descriptors, version, self._draining)
        own = endpoints_of(infrastructure, verifier, metrics, admission=None)
        most_calls = int(admission.limit) * _BACKSTOP_FACTOR
        # What a client may be slow to read is not to take the places of all other calls, nor all memory.
        downloads = Admission(max(admission.limit // _DOWNLOADS_SHARE, 1), admission)
        for endpoint in endpoints.values():
            if endpoint.streams_responses and endpoint.admission is admission:
                endpoint.admission = downloads
        streams = Admission(min(_MAX_STREAMS, admission.limit))
        self._watches = watches = Admission(min(_MAX_WATCHES, admission.limit), refusal=health.unwatched)
        for endpoint in own.values():
            if endpoint.streams_responses:
                endpoint.admission = watches if endpoint.path.split("/")[1] == health.NAME else streams
                endpoint.stays_open = True
        options = [
            *_OPTIONS,
            # And the Watch that comes with a connection.
            ("grpc.max_concurrent_streams", most_calls // 2 + 1),
            # Of more than that gRPC cancels some at random: who waits too long is to be told so before.
            ("grpc.server.max_pending_requests", _MAX_WAITING),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_WAITING),
        ]
        if connection_age < math.inf:
            options += [
                ("grpc.max_connection_age_ms", int(connection_age * 1000)),
                ("grpc.max_connection_age_grace_ms", int(_CONNECTION_GRACE_SECONDS * 1000)),
            ]
        origin_of = origins.told if internal else origins.seen(trusted_proxies)
        callers = tls.Callers() if isinstance(certificate, tls.Peer) else None
        handlers = _handlers([*endpoints.values(), *own.values()], origin_of, callers, {admission, downloads})
        waiting = Waiting(longest_wait)
        self._acceptors = [Acceptor(handlers, options, most_calls, waiting) for _ in range(_ACCEPTORS)]
        self._shares_port = shares_port
        self._until_stopped = ExitStack()

    async def start(self, address: str) -> int:
        """Listen on host:port and serve. Returns the port, which the system chose if it was 0.

        Raises:
            NoSocketFolder: there is none for the server's connection to itself.
            OSError: the port is taken, or the address is not of this machine.
        """
        with ExitStack() as started:
            folder = started.enter_context(_socket_folder())
            port = await self._start(address, folder)
            self._until_stopped = started.pop_all()
        return port

    async def _start(self, address: str, folder: str) -> int:
        """As `start`, with a folder for the sockets of the acceptors."""
        with ExitStack() as until_started:
            if not self._shares_port:
                # The acceptors share it, and would join whoever shares it already. From now on other programs of the
                # same user could join them: nothing tells.
                held = until_started.enter_context(hold_port(address))
                address = f"{address.rpartition(':')[0]}:{held.getsockname()[1]}"
            for each in self._acceptors:
                try:
                    port = each.listen(address, self._credentials)
                except RuntimeError:
                    raise OSError(f"cannot listen on {address}") from None
                address = f"{address.rpartition(':')[0]}:{port}"
            try:
                for number, each in enumerate(self._acceptors):
                    await each.start(f"{folder}/{number}")
            except BaseException:
                await self.drain(0)
                raise
        return port

    async def drain(self, grace: float) -> None:
        """Stop: health says NOT_SERVING, streams end, calls that came before have `grace` seconds to end.

        Later ones are UNAVAILABLE. Those that meet the stop itself, on their way, are CANCELLED by gRPC.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        self._draining.set()
        if self._watches.under_way:
            await asyncio.sleep(min(_NEWS_SECONDS, grace))
        # What waits is answered first, and then what has come meanwhile refused, in a way that clients try again: gRPC
        # would cancel it.
        await asyncio.gather(*(each.pass_queue(max(end - loop.time(), 0)) for each in self._acceptors))
        for each in self._acceptors:
            each.stopping = True
        await asyncio.gather(*(each.pass_queue(max(end - loop.time(), 0)) for each in self._acceptors))
        await asyncio.gather(*(each.stop(max(end - loop.time(), 0)) for each in self._acceptors))
        self._until_stopped.close()


def _socket_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of this user's own: nobody else reaches what listens there."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="insta-")
    except OSError as failure:
        raise NoSocketFolder(f"no folder takes temporary files: {failure.strerror}. Set TMPDIR to one.") from None
    if len(folder.name) > _LONGEST_FOLDER:
        folder.cleanup()
        raise NoSocketFolder(
            f"{folder.name} is too long a name for the place of a socket. Set TMPDIR to another folder."
        )
    return folder


def is_loopback(address: str) -> bool:
    """Whether host:port can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hold_port(address: str) -> socket.socket:
    """Bind host:port without listening: proof that it is free, and nobody else's until the socket is closed.

    Servers with `shares_port` can listen on it meanwhile.

    Raises:
        OSError: it is taken, or the address is not of this machine.
    """
    family, host, port = _parted(address)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEPORT, or the port of another suite with workers would look free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        chosen = probe.getsockname()[1]
    held = join_port(f"{host}:{chosen}")
    # Else the port would look free to the next probe for as long as no server listens.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return held


def join_port(address: str) -> socket.socket:
    """Bind host:port without listening, where others may be who share it.

    Raises:
        OSError: somebody has it who does not, or the address is not of this machine.
    """
    family, host, port = _parted(address)
    joined = socket.socket(family, socket.SOCK_STREAM)
    try:
        joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        joined.bind((host, port))
    except BaseException:
        joined.close()
        raise
    return joined


def _parted(address: str) -> tuple[socket.AddressFamily, str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.AF_INET6 if ":" in host else socket.AF_INET, host, int(port)


def _handlers(
    endpoints: Sequence[Endpoint], origin_of: OriginOf, callers: tls.Callers | None, admissions: Set[Admission]
) -> Handlers:
    admitted = [endpoint for endpoint in endpoints if endpoint.admission in admissions]
    too_many = overloaded("more calls come in than this server can answer")
    return Handlers(
        usual={endpoint.path: _handler(endpoint, origin_of, callers) for endpoint in endpoints},
        overloaded={endpoint.path: _refusal(endpoint, too_many) for endpoint in admitted},
        stopping={endpoint.path: _refusal(endpoint, errors.unavailable()) for endpoint in admitted},
    )


def _refusal(endpoint: Endpoint, why: errors.Error) -> grpc.RpcMethodHandler[Any, Any]:
    """Refuses calls of a method before they begin."""
    told = why.status().SerializeToString()

    async def refuse(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        endpoint.count_refused(why.code)
        trace_id, _ = _trace(acceptor.metadata.get())
        trailers = ((TRACE_KEY, trace_id), (errors.DETAILS_KEY, told))
        await context.abort(why.code, why.text, trailers)

    # Whatever kind the method is: a stream that is not read is the only one that gRPC does not read first.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _handler(endpoint: Endpoint, origin_of: OriginOf, callers: tls.Callers | None) -> grpc.RpcMethodHandler[Any, Any]:
    # Without deserializer and serializer: gRPC's own answer to bytes that are no message is UNKNOWN with the exception.
    if endpoint.streams_responses:
        stream = _stream(endpoint, origin_of, callers)
        if endpoint.streams_requests:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_stream_rpc_method_handler(stream)
    if endpoint.streams_requests:
        return grpc.stream_unary_rpc_method_handler(_stream_unary(endpoint, origin_of, callers))
    return grpc.unary_unary_rpc_method_handler(_unary(endpoint, origin_of, callers))


def _unary(endpoint: Endpoint, origin_of: OriginOf, callers: tls.Callers | None) -> Any:
    async def answer(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        call, unlimited = _incoming(endpoint, context, origin_of, callers)
        try:
            if unlimited:
                async with asyncio.timeout_at(call.deadline):
                    response = await endpoint.answer(request, call)
            else:
                response = await endpoint.answer(request, call)
        except errors.Error as error:
            await _abort(error, context)
        except TimeoutError:
            await _abort(errors.deadline_exceeded(), context)
        return response.SerializeToString()

    return answer


def _stream_unary(endpoint: Endpoint, origin_of: OriginOf, callers: tls.Callers | None) -> Any:
    async def answer(_: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        call, unlimited = _incoming(endpoint, context, origin_of, callers)
        try:
            async with asyncio.timeout_at(call.deadline if unlimited else None):
                response = await endpoint.answer_stream(_Received(context), call)
        except errors.Error as error:
            await _abort(error, context)
        except TimeoutError:
            await _abort(errors.deadline_exceeded(), context)
        return response.SerializeToString()

    return answer


class _Received(AsyncIterator[bytes]):
    """The requests of a stream as they come. It ends only if its client has ended it."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    async def __anext__(self) -> bytes:
        request: Any = await self._context.read()
        if request is not grpc.aio.EOF:
            return bytes(request)
        # It looks like this, too, when the client has cancelled the call or is gone: what came of a stream would be
        # taken for all of it. Then nothing can be sent any more.
        sending = asyncio.ensure_future(self._context.send_initial_metadata(()))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            # Who does not wait any more may answer: while this is under way gRPC could send nothing else, nor says so.
            await asyncio.wait([sending])
            raise
        except grpc.aio.InternalError:
            # The news is on its way here, and cancels the task.
            await asyncio.get_running_loop().create_future()
        raise StopAsyncIteration


def _stream(endpoint: Endpoint, origin_of: OriginOf, callers: tls.Callers | None) -> Any:
    # Not a generator: gRPC would not close it when the call is cancelled while a response is sent.
    async def answer(request: AsyncIterator[bytes] | bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        call, _ = _incoming(endpoint, context, origin_of, callers)
        now = asyncio.get_running_loop().time()
        # Who does not read is not waited for, whatever their deadline; where it is nearer gRPC itself ends the call.
        end = None if endpoint.stays_open else min(call.deadline, now + LONGEST_STREAM_SECONDS)
        try:
            async with (
                asyncio.timeout_at(end),
                aclosing(endpoint.stream(request, call)) as responses,
            ):
                async for response in responses:
                    await context.write(response.SerializeToString())
        except errors.Error as error:
            await _abort(error, context)
        except TimeoutError:
            await _abort(errors.deadline_exceeded(), context)

    return answer


def _incoming(
    endpoint: Endpoint, context: grpc.aio.ServicerContext[Any, Any], origin_of: OriginOf, callers: tls.Callers | None
) -> tuple[Call, bool]:
    """The call as the suite sees it, and whether its client named no deadline: gRPC itself ends those that have one."""
    metadata = acceptor.metadata.get()
    authorizations = [str(value) for key, value in metadata if key == AUTHORIZATION_KEY]
    remaining = context.time_remaining()
    streams = endpoint.streams_requests or endpoint.streams_responses
    default = LONGEST_STREAM_SECONDS if streams else DEFAULT_DEADLINE_SECONDS
    seconds = default if remaining is None else remaining
    deadline = asyncio.get_running_loop().time() + seconds
    origin = origin_of(context.peer(), metadata) if endpoint.changes else NOWHERE
    trace_id, traceparent = _trace(metadata)
    # Several are joined, as HTTP has it (RFC 9110, 5.3), and are no token: who reads another of them than this server
    # would take somebody else for the caller.
    call = Call(endpoint.path, ", ".join(authorizations), deadline, trace_id, origin, traceparent)
    if endpoint.tracer is not None:
        endpoint.tracer.receive(call, metadata)
    if callers is not None:
        call.peers = callers.names(context)
    context.set_trailing_metadata(((TRACE_KEY, call.trace_id),))
    return call, remaining is None


def _trace(metadata: acceptor.Metadata) -> tuple[str, str]:
    for key, value in metadata:
        if key == TRACEPARENT_KEY:
            return trace_of(str(value))
    return trace_of("")


async def _abort(error: errors.Error, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    trailers = (*context.trailing_metadata(), (errors.DETAILS_KEY, error.status().SerializeToString()))
    await context.abort(error.code, error.text, trailers)

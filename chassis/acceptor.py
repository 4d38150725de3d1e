"""One of the gRPC servers that listen on a port together, and how long calls wait there before they begin.

A gRPC server in Python takes one call at a time: the event loop asks for it, and two threads of gRPC wake up, one after
the other, before it is there. Of several servers each turn of the loop takes a call each.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grpc

from chassis import logs

_SECONDS_BETWEEN_MEASURES = 0.05
_MEASURE_TIMEOUT_SECONDS = 5.0
_SECONDS_AFTER_FAILURE = 10.0
_NEVER = 2**31 - 1

Metadata = tuple[tuple[str, str | bytes], ...]

# Of the call that begins. Read once: asking the context for it builds the tuple anew.
metadata: contextvars.ContextVar[Metadata] = contextvars.ContextVar("metadata", default=())

log = logs.get(__name__)


class Handlers(NamedTuple):
    """What calls are answered by, by their paths.

    Attributes:
        usual: All methods.
        overloaded: Those that are refused while calls wait for too long.
        stopping: Those that are refused when the server is about to stop.
    """

    usual: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    overloaded: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    stopping: Mapping[str, grpc.RpcMethodHandler[Any, Any]]


class Waiting:
    """How long calls wait before they begin, at all acceptors of a port.

    Where they wait too long at one of them, all refuse theirs: what the others let in would hold up its refusals.

    Args:
        longest: Seconds. While calls wait longer than that no more are let in: a burst of more work than this is cut.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._probes: list[Probe] = []
        self._good_until = math.inf

    def probe(self) -> Probe:
        """For one more acceptor."""
        self._probes.append(Probe(self._look))
        self._look()
        return self._probes[-1]

    def is_too_long(self) -> bool:
        """Whether calls wait for too long anywhere."""
        return time.monotonic() > self._good_until

    def _look(self) -> None:
        """Sum up what the probes say: calls, which are many more, look at one number."""
        waited = any(probe.waited > self._longest for probe in self._probes)
        first = min(probe.sent_at for probe in self._probes)
        self._good_until = -math.inf if waited else first + self._longest


class Probe:
    """A call of an acceptor to itself, again and again.

    Args:
        changed: Called whenever it was sent, began or failed.

    Attributes:
        method: Which it calls. Nobody else knows its name.
        waited: Seconds from when it was sent last to when it began.
        sent_at: When it was sent; infinite once it has begun.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.method = f"/insta.Probe/{secrets.token_hex(16)}"
        self.waited = 0.0
        self.sent_at = math.inf
        self._changed = changed

    def send(self) -> None:
        self.sent_at = time.monotonic()
        self._changed()

    def begins(self) -> None:
        self._end(time.monotonic() - self.sent_at)

    def fails(self, waited: float) -> None:
        """It will not begin. From now on it counts as one that waited so many seconds."""
        self._end(waited)

    def _end(self, waited: float) -> None:
        self.waited, self.sent_at = waited, math.inf
        self._changed()


class Acceptor(grpc.GenericRpcHandler):
    """Takes calls from a port, of which others take theirs, too.

    Calls that have not begun wait for the processor: they are in a queue within gRPC, which gives one of them to each
    turn of a busy event loop, and nothing tells how many they are. So an acceptor calls itself, through the same
    queue, and looks how long it takes until that call begins.

    Args:
        handlers: All under one generic handler: each more that is registered would cost every call.
        options: Of its gRPC server.
        most_calls: More than so many at once are refused by gRPC itself, which counts streams too and gives no details.
        waiting: What all acceptors of the port have found.

    Attributes:
        stopping: Whether calls are refused because the server is about to stop.
    """

    def __init__(self, handlers: Handlers, options: list[tuple[str, Any]], most_calls: int, waiting: Waiting) -> None:
        self.stopping = False
        self._handlers = handlers
        self._waiting = waiting
        self._probe = waiting.probe()
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most_calls)
        self._server.add_generic_rpc_handlers((self,))
        self._to_itself: grpc.aio.Channel | None = None
        self._measuring: asyncio.Task[None] | None = None
        # How many calls came in, refused ones too.
        self._begun = 0

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Take calls from host:port, too. Returns the port, which the system chose if it was 0.

        Raises:
            RuntimeError: it is taken, or the address is not of this machine.
        """
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self, socket: str) -> None:
        """Serve.

        Args:
            socket: The path of a Unix socket for its calls of itself, whose connection has an age as any other.
        """
        own = f"unix:{socket}"
        self._server.add_insecure_port(own)
        await self._server.start()
        self._to_itself = grpc.aio.insecure_channel(own, [("grpc.client_idle_timeout_ms", _NEVER)])
        await self._to_itself.channel_ready()
        self._measuring = asyncio.create_task(self._measure())

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._handlers.usual.get(details.method)
        if handler is None:
            if details.method == self._probe.method:
                self._probe.begins()
            return None
        self._begun += 1
        if self.stopping:
            handler = self._handlers.stopping.get(details.method, handler)
        elif self._waiting.is_too_long():
            handler = self._handlers.overloaded.get(details.method, handler)
        metadata.set(details.invocation_metadata)
        return handler

    async def pass_queue(self, seconds: float) -> grpc.StatusCode | None:
        """Wait until all calls that came before have begun, for so long at most.

        UNIMPLEMENTED: they have. Another code: they may not have. None: it does not serve.
        """
        if self._to_itself is None:
            return None
        probe: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._to_itself.unary_unary(self._probe.method)
        return await probe(b"", timeout=seconds).code()

    async def stop(self, grace: float) -> None:
        """Wait so long for the calls under way, and end."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait([self._measuring])
        if self._to_itself is not None:
            await self._to_itself.close()
            self._to_itself = None
        await self._server.stop(grace)

    async def _measure(self) -> None:
        """Look again and again how long calls wait, until cancelled."""
        begun = 0
        while True:
            # Who is not called does not call itself.
            if self._begun != begun or self._waiting.is_too_long():
                begun = self._begun
                await self._measure_once()
            await asyncio.sleep(_SECONDS_BETWEEN_MEASURES)

    async def _measure_once(self) -> None:
        self._probe.send()
        code = None
        try:
            code = await self.pass_queue(_MEASURE_TIMEOUT_SECONDS)
        finally:
            if code is not grpc.StatusCode.UNIMPLEMENTED:
                # The queue is too long. To have lost the connection is no reason to refuse anybody.
                self._probe.fails(0.0 if code in (None, grpc.StatusCode.UNAVAILABLE) else math.inf)
        if code is grpc.StatusCode.UNAVAILABLE:
            log.warning("how long calls wait cannot be measured")
            await asyncio.sleep(_SECONDS_AFTER_FAILURE)

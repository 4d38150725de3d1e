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
from collections.abc import Mapping
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


class Acceptor(grpc.GenericRpcHandler):
    """Takes calls from a port, of which others take theirs, too.

    Calls that have not begun wait for the processor: they are in a queue within gRPC, which gives one of them to each
    turn of a busy event loop, and nothing tells how many they are. So an acceptor calls itself, through the same
    queue, and looks how long it takes until that call begins.

    Args:
        handlers: All under one generic handler: each more that is registered would cost every call.
        options: Of its gRPC server.
        most_calls: More than so many at once are refused by gRPC itself, which counts streams too and gives no details.
        longest_wait: Seconds. While calls wait longer than that before they begin, no more are let in: a burst of more
            work than this is cut.

    Attributes:
        stopping: Whether calls are refused because the server is about to stop.
    """

    def __init__(
        self, handlers: Handlers, options: list[tuple[str, Any]], most_calls: int, longest_wait: float
    ) -> None:
        self.stopping = False
        self._handlers = handlers
        self._longest_wait = longest_wait
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=most_calls)
        self._server.add_generic_rpc_handlers((self,))
        # Nobody else knows its name.
        self._probe = f"/insta.Probe/{secrets.token_hex(16)}"
        self._to_itself: grpc.aio.Channel | None = None
        self._measuring: asyncio.Task[None] | None = None
        # How many calls came in, refused ones too.
        self._begun = 0
        self._waited = 0.0
        self._probed_at = math.inf

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
            socket: The path of a Unix socket for its calls of itself. Once connected, they need it no more.
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
            if details.method == self._probe:
                self._probe_begins()
            return None
        self._begun += 1
        if self.stopping:
            handler = self._handlers.stopping.get(details.method, handler)
        elif self._is_overloaded():
            handler = self._handlers.overloaded.get(details.method, handler)
        metadata.set(details.invocation_metadata)
        return handler

    async def drain(self, seconds: float) -> None:
        """Answer what is in the queue, as far as it can be within this time, and refuse what has come meanwhile.

        gRPC would cancel it, busy servers' most calls; a refusal is one that clients try again.
        """
        if self._measuring is None:
            return
        self._measuring.cancel()
        await asyncio.wait([self._measuring])
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await self._pass_queue(seconds)
        self.stopping = True
        await self._pass_queue(max(end - loop.time(), 0))
        assert self._to_itself is not None
        await self._to_itself.close()
        self._measuring = None

    async def stop(self, grace: float) -> None:
        """Wait so long for the calls under way, and end."""
        await self._server.stop(grace)

    def _is_overloaded(self) -> bool:
        """Whether calls wait for too long before they begin."""
        return self._waited > self._longest_wait or time.monotonic() - self._probed_at > self._longest_wait

    def _probe_begins(self) -> None:
        self._waited = time.monotonic() - self._probed_at
        self._probed_at = math.inf

    async def _measure(self) -> None:
        """Look again and again how long calls wait, until cancelled."""
        begun = 0
        while True:
            # Who is not called does not call itself.
            if self._begun != begun or self._waited > self._longest_wait:
                begun = self._begun
                await self._measure_once()
            await asyncio.sleep(_SECONDS_BETWEEN_MEASURES)

    async def _measure_once(self) -> None:
        self._probed_at = time.monotonic()
        code = None
        try:
            code = await self._pass_queue(_MEASURE_TIMEOUT_SECONDS)
        finally:
            if code is not grpc.StatusCode.UNIMPLEMENTED:
                # It never began: the queue is too long. To have lost the connection is no reason to refuse anybody.
                self._waited = 0.0 if code in (None, grpc.StatusCode.UNAVAILABLE) else math.inf
                self._probed_at = math.inf
        if code is grpc.StatusCode.UNAVAILABLE:
            log.warning("how long calls wait cannot be measured")
            await asyncio.sleep(_SECONDS_AFTER_FAILURE)

    async def _pass_queue(self, seconds: float) -> grpc.StatusCode:
        """Wait until all calls that came before have begun, for so long at most.

        UNIMPLEMENTED: they have. Any other code: they may not have.
        """
        assert self._to_itself is not None
        probe: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._to_itself.unary_unary(self._probe)
        return await probe(b"", timeout=seconds).code()

"""Which calls are let in. Refusing the rest at once keeps the accepted ones fast."""

from __future__ import annotations

import asyncio
import math
import secrets
import time

import grpc

from chassis import errors, logs
from chassis.errors import Reason

_SECONDS_BETWEEN_MEASURES = 0.025
_MEASURE_TIMEOUT_SECONDS = 5.0
_SECONDS_AFTER_FAILURE = 10.0

log = logs.get(__name__)


class Admission:
    """Lets calls in, over all methods that share this.

    Two things are looked at. The calls under way cost memory, also while they wait for something. And those that have
    not begun wait for the processor: they are in a queue within gRPC, which gives one of them to each turn of a busy
    event loop, and nothing tells how many they are. So the server calls itself, through the same queue, and looks how
    long it takes until that call begins.

    Args:
        limit: How many calls may be under way at once.
        longest_wait: Seconds. While calls wait longer than that before they begin, no more are let in: a burst of more
            work than this is cut.

    Attributes:
        begun: How many calls came in, refused ones too.
        probe: The method that the server calls. Nobody else knows its name.
    """

    def __init__(self, limit: float, longest_wait: float = math.inf) -> None:
        self.limit = limit
        self._longest_wait = longest_wait
        self.under_way = 0
        self.probe = f"/insta.Probe/{secrets.token_hex(16)}"
        self.begun = 0
        self._waited = 0.0
        self._probed_at = math.inf

    def enter(self) -> None:
        """Let one more call in, which must leave again.

        Raises:
            ResourceExhausted: there are too many already.
        """
        if self.under_way >= self.limit:
            raise overloaded(f"{self.limit} calls are under way, which is all that this server admits")
        self.under_way += 1

    def leave(self) -> None:
        self.under_way -= 1

    def is_overloaded(self) -> bool:
        """Whether calls wait for too long before they begin."""
        return self._waited > self._longest_wait or time.monotonic() - self._probed_at > self._longest_wait

    def probe_begins(self) -> None:
        """The server's call of itself has reached the head of the queue."""
        self._waited = time.monotonic() - self._probed_at
        self._probed_at = math.inf

    async def measure(self, channel: grpc.aio.Channel) -> None:
        """Look again and again how long calls wait, until cancelled.

        Args:
            channel: To the server itself.
        """
        begun = 0
        while True:
            # A server that nobody calls does not call itself.
            if self.begun != begun or self._waited > self._longest_wait:
                begun = self.begun
                await self._measure_once(channel)
            await asyncio.sleep(_SECONDS_BETWEEN_MEASURES)

    async def _measure_once(self, channel: grpc.aio.Channel) -> None:
        self._probed_at = time.monotonic()
        code = None
        try:
            code = await self.pass_queue(channel, _MEASURE_TIMEOUT_SECONDS)
        finally:
            if code is not grpc.StatusCode.UNIMPLEMENTED:
                # It never began: the queue is too long. To have lost the connection is no reason to refuse anybody.
                self._waited = 0.0 if code in (None, grpc.StatusCode.UNAVAILABLE) else math.inf
                self._probed_at = math.inf
        if code is grpc.StatusCode.UNAVAILABLE:
            log.warning("how long calls wait cannot be measured")
            await asyncio.sleep(_SECONDS_AFTER_FAILURE)

    async def pass_queue(self, channel: grpc.aio.Channel, seconds: float) -> grpc.StatusCode:
        """Wait until all calls that came before have begun. Answers UNIMPLEMENTED, or another code if they have not.

        Args:
            channel: To the server itself.
            seconds: To wait at most.
        """
        probe: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self.probe)
        return await probe(b"", timeout=seconds).code()


def overloaded(why: str) -> errors.ResourceExhausted:
    """The answer to a call that is not let in."""
    return errors.ResourceExhausted(Reason.REASON_OVERLOADED, f"{why}; try again", retry_after=0.5)

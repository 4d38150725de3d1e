"""Calls at a steady rate, whatever comes back, or so many at a time, from a process of their own.

It is `python -m benchmarks.load`. Reads a `Load` from standard input, writes a line when it begins to count and one
when its time is over, and then, once all calls have ended, a list of `Outcome`. Messages travel as bytes: reading the
answers would cost the generator more than the server spends on some of them.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import grpc
import uvloop
from google.protobuf import message

from benchmarks.http1 import Connections

GRPC, HTTP = "grpc", "http"
_BEGUN, _OVER = "begun", "over"


class Call(NamedTuple):
    """What to call.

    Attributes:
        method: The full name of a gRPC method, /insta.gateway.v1.PostService/GetPost for instance; over HTTP verb and
            path, "GET /posts/7".
        body: The message, or what is posted, in base64.
        token: Which of the load's tokens to send.
    """

    method: str
    body: str = ""
    token: int = 0

    @property
    def message(self) -> bytes:
        """The body as it is sent."""
        return base64.b64decode(self.body)


@dataclass(frozen=True)
class Load:
    """What to call, and how often.

    Attributes:
        address: host:port of a server without TLS.
        calls: Made in turn, from the first again when all are made.
        tokens: What authorises them, each with the word before it: "Bearer ...". Empty ones are not sent.
        seconds: How long calls begin.
        per_second: Calls that begin in each second, whether earlier ones have ended or not. 0: each of `at_once` begins
            when the one before it has ended.
        moments: In place of a rate, the second at which each of the calls is due. Each is made once then.
        warm_up: As many seconds of the same go before; the outcomes of then are due before 0.
        once: End early rather than make a call twice.
        keep: Of each so many answers one is kept. 0: none.
        channels: Connections. Over HTTP, where one carries a call at a time, there are as many as it takes.
        timeout: Seconds that a client waits for its answer.
        core: The core to run on. None: any.
    """

    address: str
    calls: Sequence[Call]
    tokens: Sequence[str]
    seconds: float
    per_second: float = 0
    at_once: int = 0
    moments: Sequence[float] = ()
    protocol: str = GRPC
    warm_up: float = 0
    once: bool = False
    keep: int = 0
    channels: int = 4
    timeout: float = 10
    core: int | None = None


class Outcome(NamedTuple):
    """How a call went.

    Attributes:
        due: The second after the start at which it was to begin.
        seconds: From that moment to its end, also if it could not begin at once.
        code: The name of its status code; over HTTP OK for all that say so, and else the number.
        call: Which of the calls it was.
        answer: In base64, if it was kept.
    """

    due: float
    seconds: float
    code: str
    call: int
    answer: str = ""

    @property
    def message(self) -> bytes:
        """The answer as it came."""
        return base64.b64decode(self.answer)


def raw(method: str, body: bytes, token: int = 0) -> Call:
    """A call with these bytes."""
    return Call(method, base64.b64encode(body).decode(), token)


def rpc(method: str, request: message.Message, token: int = 0) -> Call:
    """A call over gRPC."""
    return raw(method, request.SerializeToString(), token)


def http(method: str, value: object = None, token: int = 0) -> Call:
    """A call over HTTP, which posts a value as JSON. None: nothing."""
    return raw(method, b"" if value is None else json.dumps(value).encode(), token)


def _nothing() -> None:
    pass


class Running:
    """A load that is under way."""

    def __init__(self, load: Load) -> None:
        command = [sys.executable, "-m", "benchmarks.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Of the process that makes the load."""
        return self._process.pid

    def outcomes(self, begun: Callable[[], None] = _nothing, over: Callable[[], None] = _nothing) -> list[Outcome]:
        """Wait until all calls have ended.

        Args:
            begun: Called when the first call that counts is due.
            over: Called when no more calls begin.
        """
        with self._process:
            assert self._process.stdout is not None
            for mark, heard in ((_BEGUN, begun), (_OVER, over)):
                if self._process.stdout.readline().strip() == mark:
                    heard()
            answer = self._process.stdout.read()
        if self._process.returncode:
            raise RuntimeError(f"the load ended with {self._process.returncode}; why may be above")
        return [Outcome(*outcome) for outcome in json.loads(answer)]


# Makes a call and answers its code and what came back. Takes its number.
_Make = Callable[[int], Awaitable[tuple[str, bytes]]]


async def _run(load: Load) -> list[Outcome]:
    outcomes: list[Outcome] = []
    numbers = iter(range(len(load.calls))) if load.once else itertools.cycle(range(len(load.calls)))
    async with (_over_http if load.protocol == HTTP else _over_grpc)(load) as make:
        begin = time.perf_counter() + load.warm_up

        async def note(number: int, due: float) -> None:
            code, answer = await make(number)
            seconds = time.perf_counter() - begin - due
            kept = load.keep and len(outcomes) % load.keep == 0
            outcomes.append(Outcome(due, seconds, code, number, base64.b64encode(answer).decode() if kept else ""))

        async def one_after_another() -> None:
            while (now := time.perf_counter() - begin) < load.seconds and (number := next(numbers, None)) is not None:
                await note(number, now)

        async def whatever_comes_back() -> None:
            under_way = []
            for nth, (due, number) in enumerate(zip(_moments(load), numbers, strict=False)):
                # The clock of the loop knows milliseconds only.
                early = begin + due - time.perf_counter()
                # Who is late makes up for it, but lets the answers in meanwhile.
                if early > 0 or nth % 8 == 0:
                    await asyncio.sleep(max(early, 0))
                under_way.append(asyncio.ensure_future(note(number, due)))
            await asyncio.gather(*under_way)

        marks = [_Mark(_BEGUN, load.warm_up), _Mark(_OVER, load.warm_up + load.seconds)]
        if load.per_second or load.moments:
            await whatever_comes_back()
        else:
            await asyncio.gather(*(one_after_another() for _ in range(load.at_once)))
        # Calls may have run out before.
        for mark in marks:
            mark.tell()
    return outcomes


def _moments(load: Load) -> Iterable[float]:
    """When calls are due, in seconds after the start."""
    if load.moments:
        return load.moments
    first, last = int(-load.warm_up * load.per_second), int(load.seconds * load.per_second)
    return (nth / load.per_second for nth in range(first, last))


class _Mark:
    """A line that is written after some seconds, or when it is told to before."""

    def __init__(self, text: str, seconds: float) -> None:
        self._text = text
        self._told = False
        asyncio.get_running_loop().call_later(seconds, self.tell)

    def tell(self) -> None:
        if not self._told:
            sys.stdout.write(f"{self._text}\n")
            sys.stdout.flush()
        self._told = True


@asynccontextmanager
async def _over_grpc(load: Load) -> AsyncIterator[_Make]:
    # Each a connection of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(load.address, options) for _ in range(load.channels)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    stubs: dict[str, Iterator[Any]] = {
        method: itertools.cycle([channel.unary_unary(method) for channel in channels])
        for method in {each.method for each in load.calls}
    }
    metadata = [(("authorization", token),) if token else () for token in load.tokens]
    ready = [(stubs[each.method], each.message, metadata[each.token]) for each in load.calls]

    async def make(number: int) -> tuple[str, bytes]:
        stub, body, sent = ready[number]
        try:
            return "OK", await next(stub)(body, metadata=sent, timeout=load.timeout)
        except grpc.aio.AioRpcError as error:
            return error.code().name, b""

    yield make
    await asyncio.gather(*(channel.close() for channel in channels))


@asynccontextmanager
async def _over_http(load: Load) -> AsyncIterator[_Make]:
    connections = Connections(load.address, load.timeout)
    ready = [connections.request(each.method, each.message, load.tokens[each.token]) for each in load.calls]
    # One of them each: what opens a connection is no part of a call.
    await connections.open(load.at_once)

    async def make(number: int) -> tuple[str, bytes]:
        return await connections.make(ready[number])

    yield make
    connections.close()


def main() -> None:
    given = json.load(sys.stdin)
    load = Load(**{**given, "calls": [Call(*each) for each in given["calls"]]})
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    outcomes = json.dumps(uvloop.run(_run(load)))
    # Not by sys.stdout: where PYTHONUNBUFFERED is set it writes what a pipe has room for, and forgets the rest.
    with open(sys.stdout.fileno(), "w", closefd=False) as whole:
        whole.write(outcomes)


if __name__ == "__main__":
    main()

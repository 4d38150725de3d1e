"""Calls at a steady rate, whatever comes back, or so many at a time, from a process of their own.

It is `python -m benchmarks.load`.
Reads a `Load` from standard input and writes a list of `Outcome` to standard output, both as JSON. Messages
travel as bytes: reading the answers would cost the generator more than the server spends on some of them.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import grpc
import uvloop
from google.protobuf import message

_CHANNELS = 4


@dataclass(frozen=True)
class Load:
    """What to call, and how often.

    Attributes:
        address: host:port of a gateway without TLS.
        token: An access token.
        method: Full name of a method, /insta.gateway.v1.PostService/ListComments for instance.
        requests: Messages in base64, sent in turn.
        per_second: Calls that begin in each second, whether earlier ones have ended or not. 0: each of `at_once` begins
            when the one before it has ended.
        timeout: Seconds that a client waits for its answer.
        core: The core to run on. None: any.
    """

    address: str
    token: str
    method: str
    requests: Sequence[str]
    seconds: float
    per_second: float = 0
    at_once: int = 0
    timeout: float = 10
    core: int | None = None


class Outcome(NamedTuple):
    """How a call went.

    Attributes:
        due: The second after the start at which it was to begin.
        seconds: From that moment to its end, also if it could not begin at once.
        code: The name of its status code.
    """

    due: float
    seconds: float
    code: str


def encoded(request: message.Message) -> str:
    """A request as `Load` takes it."""
    return base64.b64encode(request.SerializeToString()).decode()


class Running:
    """A load that is under way."""

    def __init__(self, load: Load) -> None:
        command = [sys.executable, "-m", "benchmarks.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()

    def outcomes(self) -> list[Outcome]:
        """Wait until all calls have ended."""
        with self._process:
            assert self._process.stdout is not None
            return [Outcome(*outcome) for outcome in json.load(self._process.stdout)]


async def _make(load: Load) -> list[Outcome]:
    # Each a connection of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(load.address, options) for _ in range(_CHANNELS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    calls = itertools.cycle([channel.unary_unary(load.method) for channel in channels])
    requests = itertools.cycle([base64.b64decode(request) for request in load.requests])
    metadata = (("authorization", f"Bearer {load.token}"),)

    async def outcome(due: float) -> Outcome:
        code = grpc.StatusCode.OK
        try:
            await next(calls)(next(requests), metadata=metadata, timeout=load.timeout)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        return Outcome(due, time.perf_counter() - begun - due, code.name)

    outcomes: list[Outcome] = []

    async def one_after_another() -> None:
        while (now := time.perf_counter() - begun) < load.seconds:
            outcomes.append(await outcome(now))

    async def whatever_comes_back() -> None:
        under_way = []
        for number in range(int(load.per_second * load.seconds)):
            due = number / load.per_second
            # The clock of the loop knows milliseconds only.
            early = begun + due - time.perf_counter()
            # Who is late makes up for it, but lets the answers in meanwhile.
            if early > 0 or number % 8 == 0:
                await asyncio.sleep(max(early, 0))
            under_way.append(asyncio.ensure_future(outcome(due)))
        outcomes.extend(await asyncio.gather(*under_way))

    begun = time.perf_counter()
    if load.per_second:
        await whatever_comes_back()
    else:
        await asyncio.gather(*(one_after_another() for _ in range(load.at_once)))
    await asyncio.gather(*(channel.close() for channel in channels))
    return outcomes


def main() -> None:
    load = Load(**json.load(sys.stdin))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    json.dump(uvloop.run(_make(load)), sys.stdout)


if __name__ == "__main__":
    main()

"""More calls than a suite can answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.load import Load, Outcome, Running, rpc
from benchmarks.processes import cpu_seconds
from insta.gateway.v1 import posts_pb2
from tests.people import People, Person, failure
from tests.running import RunningSuite

METHOD = "/insta.gateway.v1.PostService/ListComments"
_COMMENTS = 100
_AT_ONCE = 32
# What the first and the last calls of a load meet is not what the others do.
_EDGE_SECONDS = 0.5


@dataclass(frozen=True)
class Phase:
    """What came of a load.

    Attributes:
        accepted, refused: Of the calls in each second that were due in the middle of it.
        p99: Of the seconds that accepted calls took.
        codes: How often each status code came.
        health_seconds: How long each of the health checks took that were made meanwhile.
        cpu_seconds: Of the server, for the whole load.
    """

    accepted: float
    refused: float
    p99: float
    codes: Counter[str]
    health_seconds: Sequence[float]
    cpu_seconds: float


class Overload:
    """Lists of 100 comments, as many of them as one likes.

    Args:
        core: Where the load is made. None: anywhere.
    """

    def __init__(self, suite: RunningSuite, people: People, core: int | None = None) -> None:
        assert suite.process is not None
        self._suite = suite
        self._people = people
        self._core = core
        self._pid = suite.process.pid
        self._reader: Person
        self._request: posts_pb2.ListCommentsRequest

    async def prepare(self) -> None:
        """Write the comments."""
        writers = [await self._people.join() for _ in range(10)]
        self._reader = writers[0]
        post = await self._reader.post()
        for number in range(_COMMENTS):
            await writers[number % len(writers)].comment(post, f"comment {number}: a sentence of a usual length")
        self._request = posts_pb2.ListCommentsRequest(post_id=post.id, page_size=_COMMENTS)

    async def peak(self, seconds: float) -> Phase:
        """Keep the suite busy, with no more calls than it answers."""
        return await self._run(seconds, at_once=_AT_ONCE)

    async def run(self, per_second: float, seconds: float) -> Phase:
        """Make so many calls in each second."""
        return await self._run(seconds, per_second=per_second)

    async def refusal(self, load: asyncio.Future[Phase]) -> tuple[str, float | None] | None:
        """The reason with which calls are refused during a load, and after how many seconds one may try again.

        None: they are all answered.
        """
        while not load.done():
            try:
                failed = await failure(self._reader.posts.ListComments(self._request))
            except AssertionError:
                # That one was let in.
                continue
            assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            return failed.reason, failed.retry_after
        return None

    async def _run(self, seconds: float, *, per_second: float = 0, at_once: int = 0) -> Phase:
        load = Load(
            self._suite.address,
            [rpc(METHOD, self._request)],
            [f"Bearer {self._reader.token}"],
            seconds,
            per_second,
            at_once,
            core=self._core,
        )
        began = cpu_seconds(self._pid)
        running = Running(load)
        ended = asyncio.ensure_future(asyncio.to_thread(running.outcomes))
        health = await self._check_health(ended)
        return _phase(await ended, seconds, health, cpu_seconds(self._pid) - began)

    async def _check_health(self, ended: asyncio.Future[list[Outcome]]) -> list[float]:
        stub = health_pb2_grpc.HealthStub(self._people.channel)
        seconds = []
        while not ended.done():
            began = time.perf_counter()
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            seconds.append(time.perf_counter() - began)
            await asyncio.wait([ended], timeout=0.1)
        return seconds


def _phase(outcomes: Sequence[Outcome], seconds: float, health: Sequence[float], cpu: float) -> Phase:
    middle = [outcome for outcome in outcomes if _EDGE_SECONDS <= outcome.due < seconds - _EDGE_SECONDS]
    accepted = sorted(outcome.seconds for outcome in middle if outcome.code == "OK")
    length = seconds - 2 * _EDGE_SECONDS
    return Phase(
        accepted=len(accepted) / length,
        refused=(len(middle) - len(accepted)) / length,
        p99=accepted[int(len(accepted) * 0.99)],
        codes=Counter(outcome.code for outcome in outcomes),
        health_seconds=health,
        cpu_seconds=cpu,
    )

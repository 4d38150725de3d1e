"""Rolling restarts of a suite apart, and clients with the service config of the suite, who are not to notice them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import grpc
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from insta.gateway.v1 import accounts_pb2, posts_pb2, profiles_pb2
from suite.client_config import client_config
from tests.certificates import channel_to, credentials_of
from tests.people import People, Person, until
from tests.running import RunningSuite, insta
from tests.suite.killing import Writers, children, process_of

PARTS = ("users", "posts", "social", "gateway")
CLIENTS = 6
# Between the calls of a client: there is load, and room for the parts to start.
_PAUSE_SECONDS = 0.01
# A client of a part that cannot start would wait for as long.
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Restart:
    """How a part was restarted.

    Attributes:
        drained: Seconds from the signal to the end of its process.
        away: Seconds from then until it was serving again.
    """

    part: str
    exit_code: int
    drained: float
    away: float


async def restart(suite: RunningSuite, part: str) -> Restart:
    """Stop a part in order, and wait until its next process is serving."""
    pid = process_of(suite, part)
    told = _exit_codes(suite, part)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)

    async def ended() -> bool:
        return pid not in children(suite)

    await until(ended, seconds=60)
    drained = time.monotonic()
    await _serving(suite, part)
    served = time.monotonic()
    (exit_code,) = _exit_codes(suite, part)[len(told) :]
    return Restart(part, exit_code, drained - began, served - drained)


async def _serving(suite: RunningSuite, part: str) -> None:
    """Wait until a part says so of itself."""
    address = suite.addresses[part]
    host, _, port = address.rpartition(":")

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    await until(listens, seconds=60)
    credentials = None if part == "gateway" else credentials_of(suite.certificates("gateway"))
    async with channel_to(part, address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def _exit_codes(suite: RunningSuite, part: str) -> list[int]:
    """Of the processes of a part that have ended, as the supervisor tells; it must not take them for crashes."""
    assert suite.log is not None
    told = suite.log.read_text()
    assert "process died" not in told
    lines = [json.loads(line) for line in told.splitlines() if "exit_code" in line]
    return [line["exit_code"] for line in lines if line["process"] == part]


class Clients:
    """Clients with the service config of `insta client-config`, which call idempotent methods all the time.

    Attributes:
        calls: How many were answered.
        errors: How often each method failed, and how.
        longest: Seconds that a call took.
        likes, follows: What they did.
    """

    def __init__(self, suite: RunningSuite, people: People, writers: Writers) -> None:
        self.calls = 0
        self.errors: Counter[tuple[str, str, str]] = Counter()
        self.longest = 0.0
        self.likes: set[tuple[int, int]] = set()
        self.follows: set[tuple[int, int]] = set()
        self._address = suite.address
        self._people = people
        self._writers = writers
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def start(self) -> None:
        """Begin to call."""
        printed = CliRunner().invoke(client_config)
        options = [
            ("grpc.service_config", printed.output),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 2000),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        for number in range(CLIENTS):
            person = await self._people.join()
            self._channels.append(grpc.aio.insecure_channel(self._address, options=options))
            client = Person(self._channels[-1], person.id, person.username, person.token)
            self._tasks.append(asyncio.create_task(self._call(client, random.Random(number))))

    async def stop(self) -> None:
        """Wait until everything that was sent is answered."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        for channel in self._channels:
            await channel.close()

    async def _call(self, client: Person, chance: random.Random) -> None:
        for name in itertools.cycle(("GetPost", "ListComments", "GetProfile", "GetAccount", "LikePost", "FollowUser")):
            if self._stopped:
                return
            began = time.monotonic()
            try:
                await self._method(name, client, chance)
            except grpc.aio.AioRpcError as error:
                self.errors[name, error.code().name, error.details() or ""] += 1
            else:
                self.calls += 1
            self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _method(self, name: str, client: Person, chance: random.Random) -> Any:
        post_id, other = self._writers.some_post(), chance.choice(self._writers.persons)
        match name:
            case "GetPost":
                return client.posts.GetPost(posts_pb2.GetPostRequest(post_id=post_id), timeout=_TIMEOUT_SECONDS)
            case "ListComments":
                request = posts_pb2.ListCommentsRequest(post_id=post_id)
                return client.posts.ListComments(request, timeout=_TIMEOUT_SECONDS)
            case "GetProfile":
                request = profiles_pb2.GetProfileRequest(user_id=other.id)
                return client.profiles.GetProfile(request, timeout=_TIMEOUT_SECONDS)
            case "LikePost":
                self.likes.add((client.id, post_id))
                return client.posts.LikePost(posts_pb2.LikePostRequest(post_id=post_id), timeout=_TIMEOUT_SECONDS)
            case "FollowUser":
                self.follows.add((client.id, other.id))
                request = profiles_pb2.FollowUserRequest(user_id=other.id)
                return client.profiles.FollowUser(request, timeout=_TIMEOUT_SECONDS)
            case _:
                return client.accounts.GetAccount(accounts_pb2.GetAccountRequest(), timeout=_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Rolled:
    """What came of some rolling restarts."""

    restarts: list[Restart]
    clients: Clients
    writers: Writers


async def roll(suite: RunningSuite, times: int, writes_between: int) -> Rolled:
    """Restart all parts one after the other, so many times, under load; check that nobody notices and nothing is lost.

    Args:
        writes_between: Answered from one restart to the next.
    """
    people = People(suite.address)
    writers = Writers(suite, people, seed=4)
    await writers.start()
    clients = Clients(suite, people, writers)
    await clients.start()
    restarts = []
    for part in PARTS * times:
        await writers.go_on(writes_between)
        restarts.append(await restart(suite, part))
    await writers.go_on(writes_between)
    await clients.stop()
    await writers.stop()
    await people.channel.close()
    # Whether a like that failed is there, nobody can tell: these come first.
    assert clients.errors == {}
    audited = insta("audit", environment=suite.environment)
    assert audited.returncode == 0, audited.stdout
    writers.check(clients.likes, clients.follows)
    return Rolled(restarts, clients, writers)

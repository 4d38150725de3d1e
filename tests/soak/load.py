"""Calls at a steady rate, whatever comes back, from a process of their own: `python -m tests.soak.load`.

Reads a `Load` from standard input and writes a list of `Outcome` to standard output, both as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import grpc
import uvloop

from insta.gateway.v1 import accounts_pb2, posts_pb2
from tests.people import Failure, People, Person
from tests.running import PASSWORD


@dataclass(frozen=True)
class Load:
    """What to call, and how often.

    Attributes:
        address: host:port of the gateway.
        names: Of those who log in. Empty: posts are read.
        token: Of who reads posts.
        post_id: Of the post to read.
    """

    address: str
    per_second: float
    seconds: float
    names: Sequence[str] = ()
    token: str = ""
    post_id: int = 0


class Outcome(NamedTuple):
    """How a call went.

    Attributes:
        seconds: From the moment when it was due, also if it could not be made at once.
        code: The name of its status code.
        reason: Why it was refused.
        retry_after: The seconds to wait that the refusal names.
    """

    seconds: float
    code: str
    reason: str
    retry_after: float | None


class Running:
    """Load that is under way."""

    def __init__(self, load: Load) -> None:
        command = [sys.executable, "-m", "tests.soak.load"]
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
    people = People(load.address)
    await people.channel.channel_ready()
    reader = Person(people.channel, token=load.token)

    def call(number: int) -> Any:
        if load.names:
            name = load.names[number % len(load.names)]
            return people.stranger.accounts.Login(accounts_pb2.LoginRequest(login=name, password=PASSWORD), timeout=60)
        return reader.posts.GetPost(posts_pb2.GetPostRequest(post_id=load.post_id), timeout=60)

    async def outcome(number: int, due: float) -> Outcome:
        code, reason, retry_after = grpc.StatusCode.OK, "", None
        try:
            await call(number)
        except grpc.aio.AioRpcError as error:
            failed = Failure(error)
            code, reason, retry_after = failed.code, failed.reason, failed.retry_after
        return Outcome(time.perf_counter() - due, code.name, reason, retry_after)

    # The clock of the loop knows milliseconds only.
    begun = time.perf_counter()
    calls = []
    for number in range(int(load.per_second * load.seconds)):
        due = begun + number / load.per_second
        await asyncio.sleep(due - time.perf_counter())
        calls.append(asyncio.ensure_future(outcome(number, due)))
    outcomes = await asyncio.gather(*calls)
    await people.channel.close()
    return outcomes


if __name__ == "__main__":
    json.dump(uvloop.run(_make(Load(**json.load(sys.stdin)))), sys.stdout)

"""Two of each part on one PostgreSQL server, found by their names, and mutual TLS between them."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from suite import authority
from tests import names, postgres_server
from tests.certificates import channel_to, credentials_of
from tests.people import People, until
from tests.running import (
    DATABASES,
    ON_POSTGRESQL,
    RunningSuite,
    database_urls,
    ensure_superuser,
    environment,
    insta_here,
)
from tests.soak.revocation import Verifier
from tests.suite.killing import Writers
from tests.suite.rolling import PARTS, Clients

# Replicas of a part have a port in common.
HOSTS = ("127.0.0.1", "127.0.0.2")
# Much shorter than anybody would have it, so that connections come to their age while replicas are killed.
CONNECTION_AGE_SECONDS = 3
_START_SECONDS = 60.0
_READY = re.compile(r"^\w+ +gRPC on (\S+), metrics on (\S+)$", re.MULTILINE)
# Without what they ask each other whether there is a call or not.
_CALLS = re.compile(r'^insta_calls_total\{code="OK",method="insta[^"]*/(?!ReadEvents)\w+"\} (\S+)$', re.MULTILINE)


@dataclass
class Replica:
    """One process of a part.

    Attributes:
        address: host:port.
        metrics: The URL, once it is ready.
    """

    part: str
    address: str
    environment: Mapping[str, str]
    log: Path
    metrics: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None:
            return
        command = [sys.executable, "-m", "suite", "serve", self.part]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=log)
        self.metrics = ""

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        assert self.process is not None
        assert self.process.stdout is not None
        said, end = "", time.monotonic() + _START_SECONDS
        while not (ready := _READY.search(said)):
            readable, _, _ = select.select([self.process.stdout], [], [], max(end - time.monotonic(), 0))
            chunk = os.read(self.process.stdout.fileno(), 65536).decode() if readable else ""
            if not chunk:
                raise AssertionError(f"{self.part} did not start:\n{said}\n{self.log.read_text()}")
            said += chunk
        self.metrics = ready[2]

    def end(self, how: signal.Signals) -> int:
        """End it with a signal. Its exit code."""
        process, self.process = self.process, None
        assert process is not None
        with process:
            process.send_signal(how)
            try:
                return process.wait(_START_SECONDS)
            finally:
                process.kill()

    def answered(self) -> float:
        """How many calls it has answered."""
        with urllib.request.urlopen(self.metrics, timeout=20) as page:
            return sum(map(float, _CALLS.findall(page.read().decode())))


@dataclass
class Replicas:
    """What runs.

    Attributes:
        suite: As tests know one that runs; the address is a name of both gateways.
        all: Every process that there is to be.
    """

    suite: RunningSuite
    all: list[Replica] = field(default_factory=list)

    def start(self) -> None:
        """Start those that do not run, and wait until all are ready."""
        missing = [replica for replica in self.all if replica.process is None]
        for replica in missing:
            replica.start()
        for replica in missing:
            replica.wait_until_ready()

    def verifiers(self) -> dict[str, Verifier]:
        """All processes: each verifies tokens."""
        credentials = credentials_of(self.suite.certificates("gateway"))
        return {
            f"{each.part} on {each.address}": Verifier(
                each.part, channel_to(each.part, each.address, None if each.part == "gateway" else credentials)
            )
            for each in self.all
        }


@contextmanager
def running(data: Path) -> Iterator[Replicas]:
    """Start all, and kill them at the end."""
    with ExitStack() as stack:
        known = stack.enter_context(names.served())
        if ON_POSTGRESQL:
            urls = database_urls(data)
        else:
            server = stack.enter_context(postgres_server.running())
            urls = {f"INSTA_{name.upper()}_DATABASE_URL": server.database(name) for name in DATABASES}
        known.known.update(dict.fromkeys(PARTS, HOSTS))
        targets = {part: known.target(part, _free_port()) for part in PARTS}
        found = {f"INSTA_{part.upper()}_ADDRESS": targets[part] for part in PARTS if part != "gateway"}
        given = environment(
            data, **urls, **found, INSTA_CONNECTION_AGE_SECONDS=str(CONNECTION_AGE_SECONDS), INSTA_LOG_LEVEL="info"
        )
        data.mkdir(parents=True, exist_ok=True)
        authority.issue(data / "tls", PARTS)
        ensure_superuser(given)
        replicas = Replicas(RunningSuite("replicas", targets["gateway"], "", "", {}, given, None, None))
        for part in PARTS:
            port = targets[part].rpartition(":")[2]
            for host in HOSTS:
                own = {**given, "INSTA_LISTEN": f"{host}:{port}", "INSTA_PEER_TLS": str(data / "tls" / part)}
                replicas.all.append(Replica(part, f"{host}:{port}", own, data / f"{part}-{host}.log"))
        try:
            replicas.start()
            yield replicas
        finally:
            for replica in replicas.all:
                if replica.process is not None:
                    replica.end(signal.SIGKILL)


def _free_port() -> int:
    """A port on which nothing listens, at any of the hosts."""
    while True:
        with ExitStack() as held:
            sockets = [held.enter_context(closing(socket.socket())) for _ in HOSTS]
            sockets[0].bind((HOSTS[0], 0))
            port: int = sockets[0].getsockname()[1]
            with suppress(OSError):
                for other, host in zip(sockets[1:], HOSTS[1:], strict=True):
                    other.bind((host, port))
                return port


class Load:
    """Clients of all kinds: with the service config of the suite, and those who send again by themselves.

    Attributes:
        clients: Who call idempotent methods.
        writers: Who send whatever was not answered again under the same id.
    """

    def __init__(self, replicas: Replicas, people: People) -> None:
        self.writers = Writers(replicas.suite, people, seed=5)
        self.clients = Clients(replicas.suite, people, self.writers)
        self._suite = replicas.suite

    async def start(self) -> None:
        """Begin to call."""
        await self.writers.start()
        await self.clients.start()

    async def go_on(self, count: int) -> None:
        """Wait until so many more requests of writers were answered."""
        await self.writers.go_on(count)

    async def stop(self) -> None:
        """Wait for all answers. No idempotent call may have failed; what was answered is there, once."""
        await self.clients.stop()
        await self.writers.stop()
        assert self.clients.errors == {}
        audited = insta_here("audit", environment=self._suite.environment)
        assert audited.returncode == 0, audited.stdout + audited.stderr
        self.writers.check(self.clients.likes, self.clients.follows)


async def is_called(replica: Replica) -> float:
    """Wait until a replica has answered a call. The seconds that it took."""
    began = time.monotonic()

    async def called() -> bool:
        return await asyncio.to_thread(replica.answered) > 0

    await until(called, seconds=60)
    return time.monotonic() - began

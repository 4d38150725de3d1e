"""The servers that are compared, each a context manager: started on one core, stopped at the end.

A suite has the settings of its users, but for free ports, a folder of data, and no limit on how much one account
changes.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import load, processes
from chassis.settings import DatabaseAddress, Settings, database_variable

SERVER_CORE, LOAD_CORE = 0, 1
# Of two cores or more the load has its own; on one there is nothing to measure.
BUILD = Path("build/benchmarks")

_TOGETHER, _WORKERS, _APART = ("up",), ("up", "--workers", "2"), ("apart",)
_SUITE_READY = re.compile(r"^gateway +gRPC on (\S+),.*Stop with Ctrl-C\.", re.MULTILINE | re.DOTALL)
_ECHO_READY = re.compile(r"^(\S+)\n")
_GUNICORN_READY = re.compile(r"Listening at: http://(\S+) .*Booting worker", re.DOTALL)
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOOPBACK = "127.0.0.1:0"
# Where the peer's database is, if it is on a PostgreSQL server.
DATABASE_URL = "DATABASE_URL"
NO_DATABASES: Mapping[str, DatabaseAddress] = MappingProxyType({})
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Side:
    """A server that answers calls.

    Attributes:
        name: As tables say it.
        protocol: What it speaks, as `Load` has it.
        settings: Of a suite.
        log: What its processes wrote to standard error.
        core: On which all of them run. None: any.
        database: The process of the database server that it uses, which started all others. None: it needs none.
    """

    name: str
    address: str
    process: subprocess.Popen[str]
    protocol: str = load.GRPC
    settings: Settings | None = None
    log: Path | None = None
    core: int | None = None
    database: int | None = None

    def cpu_seconds(self) -> float:
        """What all its processes have used of the processor."""
        return sum(processes.cpu_seconds(pid) for pid in processes.tree(self.process.pid))

    def database_seconds(self) -> float:
        """What all processes of its database server have used of the processor."""
        if self.database is None:
            return 0.0
        return sum(processes.living_seconds(self.database).values()) + processes.ended_seconds(self.database)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave its core to another side: one that idles still takes a few hundredths of it.

        It goes on, on the core of the load. One that was stopped for long would have to find out again which sessions
        have ended, and until then refuse changes.
        """
        self._move(LOAD_CORE)
        try:
            yield
        finally:
            self._move(self.core)

    def _move(self, core: int | None) -> None:
        if self.core is not None and core is not None:
            for pid in processes.tree(self.process.pid):
                processes.pin(pid, core)

    def rss_bytes(self) -> int:
        """How much of all its processes is in memory."""
        return sum(processes.rss_bytes(pid) for pid in processes.tree(self.process.pid))


@contextmanager
def echo(size: int, core: int | None = SERVER_CORE) -> Iterator[Side]:
    """A server that answers every call with so many bytes."""
    with _started([sys.executable, "-m", "benchmarks.echo", str(size)], os.environ, core, _ECHO_READY) as (there, at):
        yield Side("bare echo", at, there, core=core)


def together(
    data: Path,
    core: int | None = SERVER_CORE,
    module: Sequence[str] = ("suite",),
    databases: Mapping[str, DatabaseAddress] = NO_DATABASES,
    environment: Mapping[str, str] = NOTHING,
) -> AbstractContextManager[Side]:
    """A suite in one process, on a folder of data.

    Args:
        module: What to run as the `insta` command, and arguments that come before its own.
        databases: Those that are on a PostgreSQL server, by the name of the service.
        environment: Further variables.
    """
    return _suite("together", [*module, *_TOGETHER], suite_settings(data, databases), core, environment)


def workers(data: Path, core: int | None = SERVER_CORE) -> AbstractContextManager[Side]:
    """A suite of two workers."""
    return _suite("two workers", ["suite", *_WORKERS], suite_settings(data), core)


def apart(data: Path, core: int | None = SERVER_CORE) -> AbstractContextManager[Side]:
    """A suite of four processes, with mutual TLS between them."""
    return _suite("apart", ["suite", *_APART], suite_settings(data), core)


def suite_settings(data: Path, databases: Mapping[str, DatabaseAddress] = NO_DATABASES) -> Settings:
    """The settings of a suite, as far as they say where its databases are."""
    addresses: dict[str, Any] = {f"{name}_database_url": address for name, address in databases.items()}
    return Settings(data=data, **addresses)


@contextmanager
def drf(data: Path, gunicorn: Path, core: int | None = SERVER_CORE, database: str = "") -> Iterator[Side]:
    """The Django REST framework server.

    Args:
        data: A folder that `peer.prepare` filled, with the code in it.
        gunicorn: The program.
        database: The address of its database on a PostgreSQL server. Empty: it is a file in the folder.
    """
    command = [str(gunicorn), "-w", "1", "-k", "gthread", "--threads", "4", "--keep-alive", "30", "-b", _LOOPBACK]
    # It is no hung worker that stands still while others are measured: gunicorn would replace it.
    command += ["--timeout", "600", "--no-control-socket", "--chdir", str(data), "site_wsgi:application"]
    environment = {**os.environ, DATABASE_URL: database}
    with _started(command, environment, core, _GUNICORN_READY, stderr=subprocess.STDOUT) as (there, at):
        yield Side("DRF", at, there, load.HTTP, core=core)


@contextmanager
def _suite(
    name: str,
    command: Sequence[str],
    settings: Settings,
    core: int | None,
    environment: Mapping[str, str] = NOTHING,
) -> Iterator[Side]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("INSTA_", "PROMETHEUS_"))},
        "INSTA_DATA": str(settings.data),
        **{database_variable(name): address.url for name, address in settings.database_addresses.items()},
        "INSTA_LISTEN": _LOOPBACK,
        "INSTA_METRICS_LISTEN": _LOOPBACK,
        "INSTA_MEDIA_LISTEN": _LOOPBACK,
        "INSTA_USERS_ADDRESS": _LOOPBACK,
        "INSTA_POSTS_ADDRESS": _LOOPBACK,
        "INSTA_SOCIAL_ADDRESS": _LOOPBACK,
        "INSTA_MUTATIONS_PER_MINUTE": "0",
        **environment,
    }
    log = settings.data / "suite.log"
    command = (sys.executable, "-m", *command)
    with (
        log.open("a") as errors,
        _started(command, environment, core, _SUITE_READY, stderr=errors.fileno()) as (there, at),
    ):
        yield Side(name, at, there, settings=settings, log=log, core=core)


@contextmanager
def _started(
    command: Sequence[str],
    environment: Mapping[str, str],
    core: int | None,
    ready: re.Pattern[str],
    stderr: int | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and the address that it named when it was ready."""
    with on_core(core):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process, _announced(process, ready)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What this thread starts stays on a core, with all its threads and what it starts in turn: they inherit it.

    To say so between fork and exec would let gRPC's handlers of a fork run there, which may end the process.
    """
    before = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, before)


def _announced(process: subprocess.Popen[str], ready: re.Pattern[str]) -> str:
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + _START_SECONDS
    while not (found := ready.search(said)):
        readable, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(process.stdout.fileno(), 65536).decode() if readable else ""
        if not chunk:
            raise RuntimeError(f"a server did not start; it said:\n{said}")
        said += chunk
    return found[1]

"""The calls of `calls`, of the suite and of the Django REST framework with their databases on one PostgreSQL server.

All that answers a call shares one core, as it does where the database is a file: the application, and the database
server. So nothing that a call costs is done elsewhere, and the sum of both is what decides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import calls, data, peer, sides
from benchmarks.calls import DRF, TOGETHER
from benchmarks.data import Seed
from benchmarks.options import Options
from benchmarks.report import Goal, Part, Verdict, judged
from benchmarks.sides import BUILD, SERVER_CORE, Side
from chassis.settings import DatabaseAddress
from tests import postgres_server
from tests.collector import collecting
from tests.postgres_server import Server

NAME, TITLE = "postgresql", "Calls at saturation on PostgreSQL, one core for both servers"
# Of all calls so many are traced on a side of its own.
_TRACE_RATIO = 0.01
_TRACED = "1 % traced"
_TRACING_GOAL = Goal("GetPost, 1 % of calls traced: CPU a call", "none traced", 1.1, at_most=True)
# What a small server of its own would be given; the data of both sides fit into memory.
SETTINGS = {"shared_buffers": "512MB", "autovacuum_naptime": "1min", "deadlock_timeout": "1s"}


def run(options: Options, console: Console) -> Part:
    """Measure all calls on both sides."""
    seed = Seed()
    programs = peer.install()
    with on_server(options) as (server, there):
        console.print("filling the databases ...", style="dim")
        databases = fill(server, there, seed)
        url = server.database(DRF.lower())
        peer.prepare_on_server(there / DRF, programs, seed, url)
        settle(server)
        return _Table(options, console, seed, there, server, databases, url, programs / "gunicorn").part()


def run_briefly(options: Options, console: Console, seed: Seed, folder: Path, server: Server) -> Part:
    """Compare all calls of the suite and measure some: what needs no network, and no minutes."""
    databases = fill(server, folder, seed)
    return _Table(options, console, seed, folder, server, databases, only=("GetPost", "LikePost")).part()


@contextmanager
def on_server(options: Options) -> Iterator[tuple[Server, Path]]:
    """A PostgreSQL server that loses nothing, on the core of the servers, and a folder for the rest of the data."""
    BUILD.mkdir(parents=True, exist_ok=True)
    # Not where a system keeps what is temporary, which may be memory: what is written has to be synced to a disk.
    with ExitStack() as context:
        there = Path(context.enter_context(tempfile.TemporaryDirectory(prefix="postgresql-", dir=BUILD)))
        with sides.on_core(SERVER_CORE if options.pinned else None):
            server = context.enter_context(postgres_server.running(durable=True, folder=BUILD, settings=SETTINGS))
        yield server, there


def fill(server: Server, folder: Path, seed: data.Rows) -> Mapping[str, DatabaseAddress]:
    """Make the databases of the suite together, which has a folder of that name. Where they are."""
    (folder / TOGETHER).mkdir()
    databases = {name: DatabaseAddress(server.database(name)) for name in ("users", "posts", "social")}
    data.fill(sides.suite_settings(folder / TOGETHER, databases), seed)
    return databases


def settle(server: Server) -> None:
    """Have everything on the disk, and known to the planner, as it is on a server that runs for a while."""
    server.run("VACUUM ANALYZE", each_database=True)
    server.run("CHECKPOINT")
    os.sync()


@contextmanager
def together(
    server: Server,
    folder: Path,
    databases: Mapping[str, DatabaseAddress],
    core: int | None,
    environment: Mapping[str, str] = sides.NOTHING,
) -> Iterator[Side]:
    """The suite in one process, on the databases that `fill` made."""
    with sides.together(folder / TOGETHER, core, databases=databases, environment=environment) as side:
        yield replace(side, database=server.pid)


class _Table(calls.Table):
    """The table of both sides; of the suite alone where there is no address of the peer's database."""

    name, title = NAME, TITLE
    warm_up = {_TRACED: 5.0}  # noqa: RUF012 (it is never changed)
    goals = {  # noqa: RUF012 (it is never changed)
        ("GetPost", TOGETHER, DRF): Goal("GetPost composed", "DRF", 2.5, 5),
    }

    def __init__(
        self,
        options: Options,
        console: Console,
        seed: Seed,
        folder: Path,
        server: Server,
        databases: Mapping[str, DatabaseAddress],
        peer_url: str = "",
        gunicorn: Path = Path(),
        only: Sequence[str] = (),
    ) -> None:
        names = (TOGETHER, _TRACED, DRF) if peer_url else (TOGETHER,)
        super().__init__(options, console, seed, folder, names, gunicorn, only)
        self._server = server
        self._databases = databases
        self._peer_url = peer_url

    def _start(self, running: ExitStack) -> None:
        suite = together(self._server, self._folder, self._databases, self._core)
        self._running[TOGETHER] = running.enter_context(suite)
        if self._peer_url:
            side = running.enter_context(sides.drf(self._folder / DRF, self._gunicorn, self._core, self._peer_url))
            self._running[DRF] = replace(side, database=self._server.pid)

    @contextmanager
    def _started(self, name: str) -> Iterator[Side]:
        """A replica of the suite, on the same databases, while it is measured."""
        with collecting() as collector:
            environment = {"INSTA_TRACE_RATIO": str(_TRACE_RATIO), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            with together(self._server, self._folder, self._databases, self._core, environment) as side:
                yield replace(side, name=name)

    def _verdicts(self) -> list[Verdict]:
        verdicts = super()._verdicts()
        if pairs := self._pairs("GetPost", _TRACED, TOGETHER):
            # Of the suite alone: two of them ask the server for events then.
            ratios = [traced.cpu_seconds / plain.cpu_seconds for traced, plain in pairs]
            verdicts.append(judged(_TRACING_GOAL, ratios, self._doubt("GetPost", _TRACED, TOGETHER)))
        return verdicts

    def _tokens(self, side: Side) -> list[str]:
        return super()._tokens(side) if side.settings else peer.tokens_on_server(self._peer_url, self._kinds.people)

"""The capacity model as a part of the benchmarks.

What each call costs is measured, the model says how many calls of a mix that makes, and the mix is measured as well.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console

from benchmarks import data, media, postgresql, sides
from benchmarks.capacity import model, server, tables
from benchmarks.capacity.day import DAY
from benchmarks.capacity.model import Cost, Costs
from benchmarks.capacity.sources import Sources
from benchmarks.data import Seed
from benchmarks.load import Call, Load
from benchmarks.measuring import BUSY, Measured, measure, observe
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Verdict, judged
from benchmarks.sides import LOAD_CORE, SERVER_CORE, Side
from insta.gateway.v1 import accounts_pb2, accounts_pb2_grpc, media_pb2_grpc
from tests.postgres_server import Server

NAME, TITLE = "capacity", "The capacity model against what is measured"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
# How far the model may be off, in percent.
MOST_OFF = 20.0

_AT_ONCE, _LONG_AT_ONCE = 32, 16
_LONG = ("ListHomeFeed",)
_MOST_PER_SECOND = 3_000
_CHANNELS = 8
# One after the other: each takes long.
_LOGINS, _UPLOADS = 5, 3
_ACCOUNT = accounts_pb2.RegisterRequest(
    username="ana", email="ana@example.com", password="correct-horse-battery", first_name="Ana", last_name="Lima"
)
_LOGIN = accounts_pb2.LoginRequest(login=_ACCOUNT.username, password=_ACCOUNT.password)


@dataclass
class Round:
    """What one round found of a suite.

    Attributes:
        alone: Each kind of call at saturation.
        even: All kinds in equal shares, at saturation.
        saturated: The mix at saturation.
        steady: The mix at `model.UTILISATION` of the rate that the model says.
        costs: Of a suite on PostgreSQL, what each kind of call took of the server.
        idle: Of the same, what a second of a suite takes that nobody calls.
        hot: Calls a second that change one and the same row.
    """

    alone: dict[str, Measured] = field(default_factory=dict)
    costs: dict[str, server.Tally] = field(default_factory=dict)
    even: Measured | None = None
    saturated: Measured | None = None
    steady: Measured | None = None
    idle: Mapping[str, float] = field(default_factory=dict)
    hot: float = 0.0

    @property
    def predicted(self) -> float:
        """Calls of the mix of the day a second, as the model says."""
        return 1 / (model.per_call(model.mix(DAY, self.alone), self._seconds) * self.mixing)

    @property
    def mixing(self) -> float:
        """How many times as much a call takes between calls of other kinds as it takes among its own."""
        if self.even is None:
            return 1.0
        alone = statistics.mean(self._seconds.values())
        return (self.even.cpu_seconds + self.even.database_seconds) / alone

    @property
    def _seconds(self) -> dict[str, float]:
        return {kind: found.cpu_seconds + found.database_seconds for kind, found in self.alone.items()}


@dataclass(frozen=True)
class Single:
    """What calls take that are measured one after the other: a login, and an upload."""

    costs: Mapping[str, Cost]
    photo_bytes: float
    image_bytes: float


def run(options: Options, console: Console) -> Part:
    """Measure a suite on files, and one on a PostgreSQL server."""
    seed = Seed()
    console.print("filling the databases ...", style="dim")
    with postgresql.on_server(options) as (there, folder):
        return measured(options, console, seed, folder, there)


def measured(options: Options, console: Console, seed: Seed, folder: Path, there: Server) -> Part:
    """Measure, in a folder that is empty and on a server without databases."""
    core = SERVER_CORE if options.pinned else None
    databases = postgresql.fill(there, folder, seed)
    files = folder / SQLITE
    files.mkdir()
    data.fill(sides.suite_settings(files), seed)
    postgresql.settle(there)
    with ExitStack() as running:
        on_files = _Suite(running.enter_context(sides.together(files, core)), seed, options, console, SQLITE)
        side = running.enter_context(postgresql.together(there, folder, databases, core))
        on_server = _Suite(side, seed, options, console, POSTGRESQL, there)
        rounds: dict[str, list[Round]] = {SQLITE: [], POSTGRESQL: []}
        for number in range(options.rounds):
            for suite, other in ((on_files, on_server), (on_server, on_files)):
                with other.side.aside():
                    rounds[suite.name].append(suite.round(number))
        single = asyncio.run(on_server.single())
        costs = _costs(rounds[POSTGRESQL], single, on_server.wire_bytes(), on_server.side.rss_bytes())
    return summed_up(rounds, costs, single.photo_bytes)


class _Suite:
    """A suite that is measured."""

    def __init__(
        self, side: Side, seed: Seed, options: Options, console: Console, name: str, there: Server | None = None
    ) -> None:
        assert side.settings is not None
        self.name = name
        self.side = side
        self._settings = side.settings
        self._sources = Sources(seed, side.settings)
        self._options = options
        self._console = console
        self._server = there

    def round(self, number: int) -> Round:
        """Measure everything once."""
        found = Round()
        for kind in self._sources.kinds:
            calls = self._sources.take(kind, self._most())
            before = server.tally(self._server) if self._server else None
            found.alone[kind], answered = self._measure(calls, _LONG_AT_ONCE if kind in _LONG else _AT_ONCE)
            if self._server and before:
                found.costs[kind] = (server.tally(self._server) - before).per(answered)
            self._tell(number, kind, found.alone[kind])
        evenly = dict.fromkeys(self._sources.kinds, 1.0)
        found.even, _ = self._measure(self._sources.mixed(evenly, self._most()), _AT_ONCE)
        self._tell(number, "all kinds evenly", found.even, f", {found.mixing:.2f} of alone")
        shares = model.mix(DAY, self._sources.kinds)
        found.saturated, _ = self._measure(self._sources.mixed(shares, self._most()), _AT_ONCE)
        self._tell(number, "the mix", found.saturated, f", {found.predicted:,.0f}/s by the model")
        rate = found.predicted * model.UTILISATION
        calls = self._sources.mixed(shares, int(rate * (self._options.seconds + self._options.warm_up)) + 1)
        found.steady, _ = self._measure(calls, 0, rate)
        self._tell(number, "the mix, steady", found.steady, f", {model.UTILISATION:.0%} by the model")
        if self._server:
            found.idle = self._idle(self._server)
            hot, _ = self._measure(self._sources.of_one_post(), _AT_ONCE, once=False)
            found.hot = hot.per_second
            self._tell(number, "one post", hot)
        return found

    async def single(self) -> Single:
        """Measure what takes long."""
        assert self._server is not None
        photo = media.photo(media.PHOTO, seed=1)
        kept = self._settings.media_folder
        assert kept is not None
        costs = {}
        (token,) = data.bearers(self._settings, self._sources.people[:1])
        async with grpc.aio.insecure_channel(self.side.address) as channel:
            accounts, images = accounts_pb2_grpc.AccountServiceStub(channel), media_pb2_grpc.MediaServiceStub(channel)
            await accounts.Register(_ACCOUNT, timeout=20)
            # The first takes what the next ones do not.
            await media.upload(images, photo, token)

            async def log_in() -> None:
                await accounts.Login(_LOGIN, timeout=20)

            async def upload() -> None:
                await media.upload(images, photo, token)

            stored = _size(kept)
            for kind, what, times in (("Login", log_in, _LOGINS), ("UploadMedia", upload, _UPLOADS)):
                cpu, before = self.side.cpu_seconds(), server.tally(self._server)
                for _ in range(times):
                    await what()
                application = (self.side.cpu_seconds() - cpu) / times
                costs[kind] = _cost(kind, application, (server.tally(self._server) - before).per(times))
            stored = _size(kept) - stored
        return Single(costs, len(photo), stored / _UPLOADS)

    def wire_bytes(self) -> dict[str, tuple[float, float]]:
        """The bytes of a request and of its answer, on average, of each kind of call."""
        sizes = {}
        for kind in self._sources.kinds:
            calls = self._sources.take(kind, 50)
            outcomes = measure(self.side, self._load(calls, 4, keep=1, seconds=20, warm_up=0)).kept
            asked = statistics.mean(len(call.message) for call in calls)
            sizes[kind] = (asked, statistics.mean(len(each.message) for each in outcomes))
        return sizes

    def _most(self) -> int:
        """More calls than are made of a kind."""
        return int(_MOST_PER_SECOND * (self._options.seconds + self._options.warm_up))

    def _measure(self, calls: Sequence[Call], at_once: int, rate: float = 0, once: bool = True) -> tuple[Measured, int]:
        """Make calls; what came of them, and how many were answered well, those of the warm-up as well."""
        found, outcomes = observe(self.side, self._load(calls, at_once, rate, once=once))
        return found, sum(each.code == "OK" for each in outcomes)

    def _load(
        self,
        calls: Sequence[Call],
        at_once: int,
        rate: float = 0,
        once: bool = True,
        keep: int = 0,
        seconds: float | None = None,
        warm_up: float | None = None,
    ) -> Load:
        return Load(
            self.side.address,
            calls,
            [*data.bearers(self._settings, self._sources.people), ""],
            self._options.seconds if seconds is None else seconds,
            per_second=rate,
            at_once=min(at_once, self._options.at_most),
            warm_up=self._options.warm_up if warm_up is None else warm_up,
            once=once,
            keep=keep,
            channels=_CHANNELS,
            core=LOAD_CORE if self._options.pinned else None,
        )

    def _idle(self, there: Server) -> Mapping[str, float]:
        before = server.tally(there)
        time.sleep(2 * self._options.seconds)
        return (server.tally(there) - before).per(2 * self._options.seconds).seconds

    def _tell(self, number: int, what: str, found: Measured, more: str = "") -> None:
        self._console.print(
            f"round {number + 1}/{self._options.rounds}  {self.name:10} {what:16} {found.per_second:7,.0f}/s"
            f"  {found.cpu_seconds * 1e6:6,.0f} + {found.database_seconds * 1e6:4,.0f} µs CPU"
            f"  {found.busy:4.0%} busy{more}{'' if set(found.codes) == {'OK'} else ' (!)'}",
            style="dim",
            highlight=False,
        )


# Which database a call changes.
_HOME = {
    "LikePost": "social",
    "CreateComment": "social",
    "FollowUser": "social",
    "CreatePost": "posts",
    "UploadMedia": "posts",
    "RefreshSession": "users",
    "Login": "users",
}


def _cost(kind: str, application: float, took: server.Tally, wire_bytes: tuple[float, float] = (0, 0)) -> Cost:
    home = _HOME.get(kind)
    if home is None:
        return Cost(application, took.seconds, wire_bytes=wire_bytes)
    return Cost(application, took.seconds, {home: took.changes}, took.log_bytes, took.stored_bytes, wire_bytes)


def _costs(
    rounds: Sequence[Round], single: Single, wire_bytes: Mapping[str, tuple[float, float]], process_bytes: int
) -> Costs:
    """Medians of the rounds, each call as it is between others."""
    mixing = statistics.median(each.mixing for each in rounds)
    calls = dict(single.costs)
    for kind in rounds[0].alone:
        tallies = [each.costs[kind] for each in rounds]
        took = server.Tally(
            {name: mixing * statistics.median(each.seconds[name] for each in tallies) for name in model.DATABASES},
            *(
                statistics.median(values)
                for values in zip(*((t.changes, t.log_bytes, t.stored_bytes) for t in tallies), strict=True)
            ),
        )
        application = mixing * statistics.median(each.alone[kind].cpu_seconds for each in rounds)
        calls[kind] = _cost(kind, application, took, wire_bytes[kind])
    idle = {name: statistics.median(each.idle[name] for each in rounds) for name in model.DATABASES}
    return Costs(calls, idle, process_bytes, single.image_bytes)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def summed_up(rounds: Mapping[str, Sequence[Round]], costs: Costs, photo_bytes: float) -> Part:
    """What was found, and what the model makes of it."""
    needs = [model.need(people, costs, photo_bytes) for people in (1e6, 1e8)]
    bars = [
        (f"the mix on {name}", whose, statistics.median(values))
        for name, found in rounds.items()
        for whose, values in (
            ("model", [each.predicted for each in found]),
            ("together", [each.saturated.per_second for each in found if each.saturated]),
        )
    ]
    found = [
        tables.day(DAY, [*costs.calls]),
        tables.costs(costs, {kind: _on_files(rounds[SQLITE], kind) for kind in rounds[SQLITE][0].alone}),
        tables.predictions(rounds),
        tables.needs(needs),
        tables.saturations(model.saturations(costs)),
    ]
    figures = {
        "shares": model.mix(DAY, rounds[SQLITE][0].alone),
        "rounds": {name: [_figures(each) for each in of] for name, of in rounds.items()},
        "costs": asdict(costs),
        "photo_bytes": photo_bytes,
        "likes_of_one_post_per_second": statistics.median(each.hot for each in rounds[POSTGRESQL]),
        "needs": [asdict(each) for each in needs],
    }
    return Part(NAME, TITLE, _verdicts(rounds), [Bars("Calls of the mix", "a second", bars)], found, figures)


def _on_files(rounds: Sequence[Round], kind: str) -> float:
    return statistics.median(each.alone[kind].cpu_seconds * each.mixing for each in rounds)


def _verdicts(rounds: Mapping[str, Sequence[Round]]) -> list[Verdict]:
    verdicts = []
    for name, of in rounds.items():
        saturated = [(each.predicted, each.saturated) for each in of if each.saturated]
        goal = Goal(f"the mix on {name}, calls a second: off by", "the model", MOST_OFF, unit="%", at_most=True)
        off = [abs(predicted / found.per_second - 1) * 100 for predicted, found in saturated if found.per_second]
        verdicts.append(judged(goal, off or [100.0], _doubt(name, [found for _, found in saturated])))
        steady = [each.steady for each in of if each.steady]
        goal = Goal(
            f"the mix on {name} at {model.UTILISATION:.0%}, processor time: off by",
            "the model",
            MOST_OFF,
            unit="%",
            at_most=True,
        )
        off = [abs(found.busy / model.UTILISATION - 1) * 100 for found in steady]
        verdicts.append(judged(goal, off, _doubt(name, steady, busy=0)))
    return verdicts


def _doubt(name: str, found: Sequence[Measured], busy: float = BUSY) -> str:
    """Why a comparison does not count. Empty: it does."""
    doubts = []
    was = statistics.median(each.busy for each in found)
    if was < busy:
        doubts.append(f"the suite on {name} was {was:.1%} busy")
    if failed := sum((each.codes for each in found), Counter()).keys() - {"OK"}:
        doubts.append(f"the suite on {name} answered {', '.join(sorted(failed))}")
    return "; ".join(doubts)


def _figures(found: Round) -> dict[str, Any]:
    assert found.saturated is not None
    assert found.steady is not None
    return {
        "predicted": found.predicted,
        "mixing": found.mixing,
        "saturated": _of(found.saturated),
        "steady": _of(found.steady),
        "alone": {kind: _of(each) for kind, each in found.alone.items()},
        "idle_database_seconds": dict(found.idle),
        "hot_per_second": found.hot,
    }


def _of(found: Measured) -> dict[str, Any]:
    return {
        "per_second": found.per_second,
        "cpu_microseconds": found.cpu_seconds * 1e6,
        "database_microseconds": found.database_seconds * 1e6,
        "busy": found.busy,
        "p50_milliseconds": found.p50 * 1e3,
        "p99_milliseconds": found.p99 * 1e3,
        "codes": dict(found.codes),
    }

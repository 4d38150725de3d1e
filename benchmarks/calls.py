"""The table of calls: how many the core of a server answers in a second, side by side.

Each side holds the same rows and answers the same, which is looked at first. Then, in each round, each call is
measured on all its sides, one after the other, each of which has its core for itself.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import data, echo, peer, sides
from benchmarks.data import Seed
from benchmarks.kinds import Kind, Kinds
from benchmarks.load import GRPC, HTTP, Call, Load, raw
from benchmarks.measuring import BUSY, Measured, measure
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Rows, Verdict, figure, judged
from benchmarks.sides import BUILD, LOAD_CORE, SERVER_CORE, Side

NAME, TITLE = "calls", "Calls at saturation, one core for the server"
TOGETHER, DRF = "together", "DRF"
_ECHO, _WORKERS, _APART = "bare echo", "two workers", "apart"
# Where GetPost is measured; the other calls together and on DRF.
_EVERYWHERE = (_ECHO, TOGETHER, _WORKERS, _APART, DRF)

# Calls at a time that keep a side busy. Apart, more of them would wait longer than a suite lets calls wait.
# Of two workers each has as many as one alone.
_AT_ONCE = {_APART: 8, _WORKERS: 64}
_ANY_AT_ONCE = 32
# Of calls that take longer: the last of many more would wait for too long whenever the machine is slow for a moment.
_LONG_AT_ONCE = {"ListHomeFeed": 16}
# So many that the system spreads them over both workers.
_CHANNELS = 8
# Sides that are started for each load have kept nothing yet: neither tokens nor short profiles of 2,000 people.
_WARM_UP_SECONDS = {_APART: 10.0, _WORKERS: 5.0}
# Calls that are made once: more than a side could answer in a second.
_MOST_PER_SECOND = {GRPC: 8_000, HTTP: 3_000}
# Less of the time waited for the disk explains nothing.
_TOLD = 0.01
_COMPARED = 50
_COMPARE_SECONDS = 20.0

_GOALS = {
    ("GetPost", TOGETHER, _ECHO): Goal("GetPost composed", "bare echo", 0.42, 0.48),
    ("GetPost", TOGETHER, DRF): Goal("GetPost composed", "DRF", 13, 15),
    ("ListHomeFeed", TOGETHER, DRF): Goal("ListHomeFeed of 20, 50 followees", "DRF", 9, 12),
    ("GetProfile", TOGETHER, DRF): Goal("GetProfile", "DRF", 10, 13),
    ("ListComments", TOGETHER, DRF): Goal("ListComments of 20", "DRF", 5, 7),
    ("CreatePost", TOGETHER, DRF): Goal("CreatePost, durable", "DRF", 2.5, 3.5),
    ("LikePost", TOGETHER, DRF): Goal("LikePost, durable", "DRF", 3, 4.5),
    ("GetPost", _APART, DRF): Goal("GetPost apart, mutual TLS", "DRF", 2, 3),
}
# Of the processor's time for a call, and not of the calls in a second.
_CPU_GOAL = Goal("GetPost, two workers: CPU a call", "one worker", 1.1, 1.05, at_most=True)


def run(options: Options, console: Console) -> Part:
    """Measure all calls on all sides."""
    seed = Seed()
    programs = peer.install()
    BUILD.mkdir(parents=True, exist_ok=True)
    # Not where a system keeps what is temporary, which may be memory: what is written has to be synced to a disk.
    with tempfile.TemporaryDirectory(prefix="calls-", dir=BUILD) as folder:
        there = Path(folder)
        console.print("filling the databases ...", style="dim")
        fill(there, seed)
        for name in (_WORKERS, _APART):
            shutil.copytree(there / TOGETHER, there / name)
        peer.prepare(there / DRF, programs, seed)
        # Or the first who writes would wait until the disk has all this.
        os.sync()
        return Table(options, console, seed, there, _EVERYWHERE, programs / "gunicorn").part()


def run_briefly(options: Options, console: Console, seed: Seed, folder: Path) -> Part:
    """Compare all calls and measure some, together and beside the echo: what needs no network, and no minutes."""
    fill(folder, seed)
    return Table(options, console, seed, folder, (_ECHO, TOGETHER), Path(), ("GetPost", "LikePost")).part()


def fill(folder: Path, seed: Seed) -> None:
    """Make the data of the suite together, in a folder of that name."""
    (folder / TOGETHER).mkdir()
    data.fill(sides.suite_settings(folder / TOGETHER), seed)


class Table:
    """The measuring of a table.

    Attributes:
        goals: By the name of the call, whose it is, and whose it is compared with.
        warm_up: Of sides that take longer to warm up, the seconds.

    Args:
        folder: Of the sides' data, each in a folder of its name.
        names: Of the sides.
        gunicorn: The program, if the Django REST framework is one of them.
        only: The kinds of call to measure. Empty: all.
    """

    name, title = NAME, TITLE
    goals: Mapping[tuple[str, str, str], Goal] = _GOALS
    warm_up: Mapping[str, float] = _WARM_UP_SECONDS

    def __init__(
        self,
        options: Options,
        console: Console,
        seed: Seed,
        folder: Path,
        names: Sequence[str],
        gunicorn: Path,
        only: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._core = SERVER_CORE if options.pinned else None
        self._console = console
        self._folder = folder
        self._names = names
        self._gunicorn = gunicorn
        self._only = only
        self._kinds = Kinds(seed)
        self._measured: dict[tuple[str, str], list[Measured]] = {}
        # Sides that run all the time, and calls that were not made yet.
        self._running: dict[str, Side] = {}
        self._calls: dict[tuple[str, str], Iterator[Call]] = {}
        self._request_size = self._answer_size = 0
        self._rss: dict[str, int] = {}

    def part(self) -> Part:
        """Measure, and sum up."""
        kinds = self._kinds.all()
        with ExitStack() as running:
            self._start(running)
            for side in self._running.values():
                self._compare(kinds, side)
            if _ECHO in self._names:
                self._running[_ECHO] = running.enter_context(sides.echo(self._answer_size, self._core))
            for number in range(self._options.rounds):
                for kind in kinds:
                    for name in self._sides(kind):
                        with self._alone(name) as side:
                            self._note(number, kind, side, self._measure(kind, side))
            self._rss |= {name: side.rss_bytes() for name, side in self._running.items()}
        return Part(self.name, self.title, self._verdicts(), self._bars(), [self._rows()], self._figures())

    def _start(self, running: ExitStack) -> None:
        """Start the sides that run all the time."""
        self._running[TOGETHER] = running.enter_context(sides.together(self._folder / TOGETHER, self._core))
        if DRF in self._names:
            self._running[DRF] = running.enter_context(sides.drf(self._folder / DRF, self._gunicorn, self._core))

    def _sides(self, kind: Kind) -> Sequence[str]:
        if self._only and kind.name not in self._only:
            return []
        return [name for name in self._names if kind.name == "GetPost" or name in (TOGETHER, DRF)]

    def _compare(self, kinds: Sequence[Kind], side: Side) -> None:
        """Look whether a side answers as the seed says.

        Raises:
            AssertionError: it does not.
        """
        calls = [(kind, call) for kind in kinds for call in self._take(kind, side, _COMPARED)]
        load = Load(
            side.address,
            [call for _, call in calls],
            self._tokens(side),
            _COMPARE_SECONDS,
            at_once=4,
            protocol=side.protocol,
            once=True,
            keep=1,
        )
        outcomes = measure(side, load).kept
        if len(outcomes) < len(calls):
            raise AssertionError(f"{side.name} answered {len(outcomes)} of {len(calls)} calls")
        for number, kind in enumerate(kinds):
            first = number * _COMPARED
            of_kind = [each._replace(call=each.call - first) for each in outcomes if calls[each.call][0] is kind]
            if wrong := kind.wrong(side.protocol, of_kind):
                raise AssertionError(f"{side.name} answers {kind.name} in another way than it has to: {wrong[0]}")
            if (kind.name, side.name) == ("GetPost", TOGETHER):
                self._request_size = round(statistics.mean(len(call.message) for each, call in calls if each is kind))
                self._answer_size = round(statistics.mean(len(each.message) for each in of_kind))

    @contextmanager
    def _alone(self, name: str) -> Iterator[Side]:
        """A side that has its core for itself."""
        with ExitStack() as context:
            for other, side in self._running.items():
                if other != name:
                    context.enter_context(side.aside())
            if name in self._running:
                yield self._running[name]
            else:
                with self._started(name) as side:
                    yield side
                    self._rss[name] = side.rss_bytes()

    def _started(self, name: str) -> AbstractContextManager[Side]:
        """A side that runs only while it is measured."""
        start = sides.workers if name == _WORKERS else sides.apart
        return start(self._folder / name, self._core)

    def _measure(self, kind: Kind, side: Side) -> Measured:
        warm_up = self.warm_up.get(side.name, self._options.warm_up)
        if side.name == _ECHO:
            # Without a token: the limit is what calls cost that carry nothing beside their messages.
            calls, tokens = [raw(echo.METHOD, b"\0" * self._request_size)], [""]
        else:
            most = _MOST_PER_SECOND[side.protocol] * (self._options.seconds + warm_up)
            calls, tokens = self._take(kind, side, int(most)), self._tokens(side)
        at_once = _LONG_AT_ONCE.get(kind.name) or _AT_ONCE.get(side.name, _ANY_AT_ONCE)
        load = Load(
            side.address,
            calls,
            tokens,
            self._options.seconds,
            at_once=min(at_once, self._options.at_most),
            protocol=side.protocol,
            warm_up=warm_up,
            once=kind.once,
            channels=_CHANNELS,
            core=LOAD_CORE if self._options.pinned else None,
        )
        return measure(side, load)

    def _take(self, kind: Kind, side: Side, most: int) -> list[Call]:
        """At most so many calls: those that can be made once are never taken again."""
        if not kind.once:
            return list(itertools.islice(kind.calls[side.protocol](), most))
        calls = self._calls.setdefault((kind.name, side.name), kind.calls[side.protocol]())
        return list(itertools.islice(calls, most))

    def _tokens(self, side: Side) -> list[str]:
        if side.settings is None:
            return peer.tokens(self._folder / DRF, self._kinds.people)
        return data.bearers(side.settings, self._kinds.people)

    def _note(self, number: int, kind: Kind, side: Side, found: Measured) -> None:
        self._measured.setdefault((kind.name, side.name), []).append(found)
        self._console.print(
            f"round {number + 1}/{self._options.rounds}  {kind.name:12} {side.name:11} {found.per_second:7,.0f}/s"
            f"  {found.cpu_seconds * 1e6:6,.0f} µs CPU  {found.busy:4.0%} busy"
            f"{'' if found.counts else ' (!)'}",
            style="dim",
            highlight=False,
        )

    def _verdicts(self) -> list[Verdict]:
        verdicts = []
        for (kind, side, against), goal in self.goals.items():
            if pairs := self._pairs(kind, side, against):
                ratios = [_ratio(ours.per_second, theirs.per_second) for ours, theirs in pairs]
                verdicts.append(judged(goal, ratios, self._doubt(kind, side, against)))
        if pairs := self._pairs("GetPost", _WORKERS, TOGETHER):
            ratios = [_ratio(two.cpu_seconds, one.cpu_seconds) for two, one in pairs]
            verdicts.append(judged(_CPU_GOAL, ratios, self._doubt("GetPost", _WORKERS, TOGETHER)))
        return verdicts

    def _pairs(self, kind: str, side: str, against: str) -> list[tuple[Measured, Measured]]:
        """Of each round what was measured of two sides: the machine is not as fast from one minute to the next."""
        ours, theirs = self._measured.get((kind, side), []), self._measured.get((kind, against), [])
        return list(zip(ours, theirs, strict=False))

    def _doubt(self, kind: str, *names: str) -> str:
        """Why a comparison does not count. Empty: it does."""
        doubts = []
        for name in names:
            rounds = self._measured[kind, name]
            busy = statistics.median(each.busy for each in rounds)
            failed = sum((each.codes for each in rounds), Counter()).keys() - {"OK"}
            if busy < BUSY:
                disk = statistics.median(each.disk for each in rounds)
                waited = f", its core waited for the disk {disk:.1%}" if disk >= _TOLD else ""
                doubts.append(f"{name} was {busy:.1%} busy{waited}")
            if failed:
                doubts.append(f"{name} answered {', '.join(sorted(failed))}")
        return "; ".join(doubts)

    def _bars(self) -> list[Bars]:
        rows = [
            (kind, side, statistics.median(each.per_second for each in rounds))
            for (kind, side), rounds in self._measured.items()
        ]
        return [Bars("Calls answered", "a second", rows)]

    def _rows(self) -> Rows:
        on_server = any(side.database is not None for side in self._running.values())
        columns: list[tuple[str, Callable[[Measured], float], Callable[[float], str]]] = [
            ("calls/s", lambda found: found.per_second, figure),
            ("µs CPU", lambda found: found.cpu_seconds * 1e6, figure),
            *([("PostgreSQL", lambda found: found.database_seconds * 1e6, figure)] if on_server else []),
            ("busy", lambda found: found.busy, "{:.0%}".format),
            ("p50 ms", lambda found: found.p50 * 1e3, figure),
            ("p99 ms", lambda found: found.p99 * 1e3, figure),
        ]
        rows = [
            (kind, side, *(write(statistics.median(map(of, rounds))) for _, of, write in columns))
            for (kind, side), rounds in self._measured.items()
        ]
        return Rows("Medians of the rounds", ("call", "side", *(heading for heading, *_ in columns)), rows)

    def _figures(self) -> dict[str, Any]:
        return {
            "message_bytes": {"request": self._request_size, "answer": self._answer_size},
            "rss_bytes": self._rss,
            "measured": [
                {
                    "call": kind,
                    "side": side,
                    "per_second": [each.per_second for each in rounds],
                    "cpu_microseconds": [each.cpu_seconds * 1e6 for each in rounds],
                    "database_microseconds": [each.database_seconds * 1e6 for each in rounds],
                    "busy": [each.busy for each in rounds],
                    "disk": [each.disk for each in rounds],
                    "p50_milliseconds": [each.p50 * 1e3 for each in rounds],
                    "p99_milliseconds": [each.p99 * 1e3 for each in rounds],
                    "codes": dict(sum((each.codes for each in rounds), Counter())),
                }
                for (kind, side), rounds in self._measured.items()
            ],
        }


def _ratio(ours: float, theirs: float) -> float:
    """How many times as much. 0 beside a side that answered nothing, which counts as little."""
    return ours / theirs if theirs else 0.0

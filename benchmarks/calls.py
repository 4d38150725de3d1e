"""The table of calls: how many the core of a server answers in a second, side by side.

Each side holds the same rows and answers the same, which is looked at first. Then, in each round, each call is
measured on all its sides, one after the other, while the others are halted.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
_ECHO, _TOGETHER, _WORKERS, _APART, _DRF = "bare echo", "together", "two workers", "apart", "DRF"
# Where GetPost is measured; the other calls together and on DRF.
_EVERYWHERE = (_ECHO, _TOGETHER, _WORKERS, _APART, _DRF)

_WARM_UP_SECONDS = 0.5
# Calls at a time that keep a side busy. Apart, more of them would wait longer than a suite lets calls wait.
_AT_ONCE = {_APART: 16}
_ANY_AT_ONCE = 32
# So many that the system spreads them over both workers.
_CHANNELS = 16
# Calls that are made once: more than a side could answer in a second.
_MOST_PER_SECOND = {GRPC: 8_000, HTTP: 3_000}
_COMPARED = 50
_COMPARE_SECONDS = 20.0

GOALS = {
    ("GetPost", _TOGETHER, _ECHO): Goal("GetPost composed, together", "bare echo", 0.42, 0.48),
    ("GetPost", _TOGETHER, _DRF): Goal("GetPost composed, together", "DRF", 13, 15),
    ("ListHomeFeed", _TOGETHER, _DRF): Goal("ListHomeFeed of 20, 50 followees, together", "DRF", 9, 12),
    ("GetProfile", _TOGETHER, _DRF): Goal("GetProfile, together", "DRF", 10, 13),
    ("ListComments", _TOGETHER, _DRF): Goal("ListComments of 20, together", "DRF", 5, 7),
    ("CreatePost", _TOGETHER, _DRF): Goal("CreatePost, durable, together", "DRF, as durable", 2.5, 3.5),
    ("LikePost", _TOGETHER, _DRF): Goal("LikePost, durable, together", "DRF, as durable", 3, 4.5),
    ("GetPost", _APART, _DRF): Goal("GetPost apart, mutual TLS, on one core", "DRF", 2, 3),
}
# Of the processor's time for a call, and not of the calls in a second.
CPU_GOAL = Goal("GetPost, two workers: CPU of a call", "one worker", 1.1, 1.05, at_most=True)


def run(options: Options, console: Console) -> Part:
    """Measure all calls on all sides."""
    seed = Seed()
    programs = peer.install()
    BUILD.mkdir(parents=True, exist_ok=True)
    # On the disk that it is on: it is synced as the disk syncs.
    with tempfile.TemporaryDirectory(prefix="calls-", dir=BUILD) as folder:
        there = Path(folder)
        console.print("Filling the databases ...", style="dim")
        fill(there, seed)
        peer.prepare(there / _DRF, programs, seed)
        return _Table(options, console, seed, there, programs / "gunicorn").part()


def run_without_peer(options: Options, console: Console, seed: Seed, folder: Path) -> Part:
    """Measure all calls on all sides but the Django REST framework, which takes a while to install and to fill."""
    fill(folder, seed)
    return _Table(options, console, seed, folder, None).part()


def fill(folder: Path, seed: Seed) -> None:
    """Make the data of all suites, in folders of their names."""
    (folder / _TOGETHER).mkdir()
    data.fill(folder / _TOGETHER, seed)
    for name in (_WORKERS, _APART):
        shutil.copytree(folder / _TOGETHER, folder / name)


class _Table:
    """The measuring of a table.

    Args:
        gunicorn: The program. None: the Django REST framework is left out.
    """

    def __init__(self, options: Options, console: Console, seed: Seed, folder: Path, gunicorn: Path | None) -> None:
        self._options = options
        self._core = SERVER_CORE if options.pinned else None
        self._console = console
        self._folder = folder
        self._gunicorn = gunicorn
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
            self._running[_TOGETHER] = running.enter_context(sides.together(self._folder / _TOGETHER, self._core))
            if self._gunicorn is not None:
                self._running[_DRF] = running.enter_context(sides.drf(self._folder / _DRF, self._gunicorn, self._core))
            for kind in kinds:
                for side in self._running.values():
                    self._compare(kind, side)
            self._running[_ECHO] = running.enter_context(sides.echo(self._answer_size, self._core))
            for number in range(self._options.rounds):
                for kind in kinds:
                    for name in self._sides(kind):
                        with self._alone(name) as side:
                            self._note(number, kind, side, self._measure(kind, side))
            self._rss |= {name: side.rss_bytes() for name, side in self._running.items()}
        return Part(NAME, TITLE, self._verdicts(), self._bars(), [self._rows()], self._figures())

    def _sides(self, kind: Kind) -> Sequence[str]:
        names = _EVERYWHERE if kind.name == "GetPost" else (_TOGETHER, _DRF)
        return [name for name in names if name != _DRF or self._gunicorn is not None]

    def _compare(self, kind: Kind, side: Side) -> None:
        """Look whether a side answers as the seed says.

        Raises:
            AssertionError: it does not.
        """
        calls = self._take(kind, side, _COMPARED)
        load = Load(
            side.address,
            calls,
            self._tokens(side),
            _COMPARE_SECONDS,
            at_once=4,
            protocol=side.protocol,
            once=True,
            keep=1,
        )
        outcomes = measure(side, load).kept
        wrong = kind.wrong(side.protocol, outcomes)
        if wrong or len(outcomes) < _COMPARED:
            raise AssertionError(
                f"{side.name} answered {len(outcomes)} of {_COMPARED} calls of {kind.name}; {wrong[:1]}"
            )
        if (kind.name, side.name) == ("GetPost", _TOGETHER):
            self._request_size = round(statistics.mean(len(each.message) for each in calls))
            self._answer_size = round(statistics.mean(len(each.message) for each in outcomes))

    @contextmanager
    def _alone(self, name: str) -> Iterator[Side]:
        """A side, while no other one runs."""
        with ExitStack() as context:
            for other, side in self._running.items():
                if other != name:
                    context.enter_context(side.halted())
            if name in self._running:
                yield self._running[name]
            else:
                start = sides.workers if name == _WORKERS else sides.apart
                with start(self._folder / name, self._core) as side:
                    yield side
                    self._rss[name] = side.rss_bytes()

    def _measure(self, kind: Kind, side: Side) -> Measured:
        if side.name == _ECHO:
            # Without a token: the limit is what calls cost that carry nothing beside their messages.
            calls, tokens = [raw(echo.METHOD, b"\0" * self._request_size)], [""]
        else:
            most = _MOST_PER_SECOND[side.protocol] * (self._options.seconds + _WARM_UP_SECONDS)
            calls, tokens = self._take(kind, side, int(most)), self._tokens(side)
        load = Load(
            side.address,
            calls,
            tokens,
            self._options.seconds,
            at_once=_AT_ONCE.get(side.name, _ANY_AT_ONCE),
            protocol=side.protocol,
            warm_up=_WARM_UP_SECONDS,
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
            return peer.tokens(self._folder / _DRF, self._kinds.people)
        return data.bearers(side.settings, self._kinds.people)

    def _note(self, number: int, kind: Kind, side: Side, found: Measured) -> None:
        self._measured.setdefault((kind.name, side.name), []).append(found)
        self._console.print(
            f"round {number + 1} of {self._options.rounds}: {kind.name:12} {side.name:11}"
            f" {found.per_second:8,.0f}/s  {found.cpu_seconds * 1e6:6,.0f} µs of CPU a call  {found.busy:4.0%} busy"
            f"{'' if found.counts else '  (does not count)'}",
            style="dim",
            highlight=False,
        )

    def _verdicts(self) -> list[Verdict]:
        verdicts = []
        for (kind, side, against), goal in GOALS.items():
            if (kind, against) in self._measured:
                pairs = self._pairs(kind, side, against)
                ratios = [ours.per_second / theirs.per_second for ours, theirs in pairs if theirs.per_second]
                verdicts.append(judged(goal, ratios, self._doubt(kind, side, against)))
        pairs = self._pairs("GetPost", _WORKERS, _TOGETHER)
        ratios = [two.cpu_seconds / one.cpu_seconds for two, one in pairs if one.cpu_seconds]
        verdicts.append(judged(CPU_GOAL, ratios, self._doubt("GetPost", _WORKERS, _TOGETHER)))
        return verdicts

    def _pairs(self, kind: str, side: str, against: str) -> list[tuple[Measured, Measured]]:
        """Of each round what was measured of two sides: the machine is not as fast from one minute to the next."""
        return list(zip(self._measured[kind, side], self._measured[kind, against], strict=True))

    def _doubt(self, kind: str, *names: str) -> str:
        """Why a comparison does not count. Empty: it does."""
        doubts = []
        for name in names:
            rounds = self._measured[kind, name]
            busy = statistics.median(each.busy for each in rounds)
            failed = sum((each.codes for each in rounds), Counter()).keys() - {"OK"}
            if busy < BUSY:
                doubts.append(f"{name} was {busy:.0%} busy")
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
        headings = ("call", "side", "calls/s", "µs of CPU", "core busy", "p50 ms", "p99 ms")
        rows = []
        for (kind, side), rounds in self._measured.items():
            middle = [
                statistics.median(values)
                for values in zip(
                    *((m.per_second, m.cpu_seconds * 1e6, m.busy, m.p50 * 1e3, m.p99 * 1e3) for m in rounds),
                    strict=True,
                )
            ]
            per_second, cpu, busy, p50, p99 = middle
            rows.append((kind, side, figure(per_second), figure(cpu), f"{busy:.0%}", figure(p50), figure(p99)))
        return Rows("Medians of the rounds", headings, rows)

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
                    "busy": [each.busy for each in rounds],
                    "p50_milliseconds": [each.p50 * 1e3 for each in rounds],
                    "p99_milliseconds": [each.p99 * 1e3 for each in rounds],
                    "codes": dict(sum((each.codes for each in rounds), Counter())),
                }
                for (kind, side), rounds in self._measured.items()
            ],
        }

"""The social mix as a part of the benchmarks: sets up both sides, lets them compete, and says how they did."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks import peer
from benchmarks.curves import Curves, Line
from benchmarks.mix import sides
from benchmarks.mix.contest import Contest, Standing
from benchmarks.mix.contestant import Contestant, Step
from benchmarks.mix.plan import PAGE_SIZE, Kind
from benchmarks.mix.world import World
from benchmarks.options import Options
from benchmarks.report import Bars, Goal, Part, Rows, Verdict, figure, judged
from benchmarks.sides import BUILD

NAME, TITLE = "mix", "The social mix, 99 of 100 calls within 20 ms, one core for the server"
BOUND_SECONDS = 0.02
GOAL = Goal("social mix, together, p99 under 20 ms", "DRF", 8, 10)

# Where the search begins: less than a core of today does.
_SUITE_START, _DRF_START = 500.0, 60.0
# A generator that is busier is late by itself.
_GENERATOR_BUSY = 0.9
_FAULTS_SHOWN = 5


def run(options: Options, console: Console, bound: float = BOUND_SECONDS) -> Part:
    """Find the best rate of the suite and of the Django REST framework server.

    Args:
        bound: What 99 of 100 calls have to be answered within, in seconds.
    """
    programs = peer.install()
    world = World()
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mix-", dir=BUILD) as folder:
        console.print("Filling the databases ...", style="dim")
        with (
            sides.suite(Path(folder) / "suite", world, options.pinned) as suite,
            sides.drf(Path(folder) / "drf", programs, world, options.pinned) as drf,
        ):
            # What was filled is on the disk then, and not on its way while anything is measured.
            os.sync()
            contest = Contest([suite, drf], options.seconds, bound, _Teller(console, bound))
            contest.hold({suite: _SUITE_START, drf: _DRF_START}, options.rounds)
            ours, theirs = contest.standings[suite], contest.standings[drf]
    return summed_up(world, {suite.name: ours, drf.name: theirs}, [verdict(ours, theirs)], bound)


def summed_up(world: World, standings: dict[str, Standing], verdicts: Sequence[Verdict], bound: float) -> Part:
    """What the sides did."""
    best = [(name, standing.rounds[standing.best]) for name, standing in standings.items() if standing.best]
    rows = [("within the bound", name, median(step.measured.per_second for step in steps)) for name, steps in best]
    figures = {
        "users": world.users,
        "mutual_follows": len(world.follows) // 2,
        "posts": world.posts,
        "page_size": PAGE_SIZE,
        "percent": {kind.name.lower(): kind.value for kind in Kind},
        "bound_milliseconds": bound * 1e3,
        "sides": {name: _figures(standing) for name, standing in standings.items()},
    }
    bars = [Bars("Calls answered at the best rate", "a second", rows)] if rows else []
    return Part(NAME, TITLE, verdicts, bars, [_rows(standings)], figures, _curves(standings, bound))


class _Teller:
    """Prints each step as it was made."""

    def __init__(self, console: Console, bound: float) -> None:
        self._console = console
        self._bound = bound

    def __call__(self, contestant: Contestant, step: Step) -> None:
        measured = step.measured
        failed = measured.codes.total() - measured.codes["OK"]
        self._console.print(
            f"{contestant.name:11} {step.rate:8,.0f}/s  p50 {step.p50 * 1e3:7.1f} ms  p99 {step.p99 * 1e3:7.1f} ms"
            f"  {measured.busy:4.0%} busy, load {measured.generator_busy:4.0%}"
            f"{'' if step.p99 < self._bound else '  late'}{f'  {failed} failed' if failed else ''}",
            style="dim",
            highlight=False,
        )
        for fault in step.faults[:_FAULTS_SHOWN]:
            self._console.print(f"WRONG: {fault}", style="bold red", highlight=False)


def verdict(ours: Standing, theirs: Standing) -> Verdict:
    """How many times as many calls the suite answers in time, and whether that counts."""
    doubts = [*_doubts("together", ours), *_doubts("DRF", theirs)]
    if not (ours.best and theirs.best):
        return Verdict(GOAL, 0.0, 0.0, 0.0, "; ".join(doubts))
    rounds = zip(ours.rounds[ours.best], theirs.rounds[theirs.best], strict=False)
    ratios = [our.measured.per_second / their.measured.per_second for our, their in rounds]
    return judged(GOAL, ratios, "; ".join(doubts))


def _doubts(name: str, standing: Standing) -> list[str]:
    """Why the best rate of a side does not count. Empty: it does."""
    doubts = []
    faults = sum(len(step.faults) for steps in standing.made.values() for step in steps)
    if faults:
        doubts.append(f"{name} answered {faults} calls wrongly")
    if not standing.best:
        doubts.append(f"{name} was in time at no rate")
        return doubts
    if not standing.settled:
        doubts.append(f"{name} may do more")
    busy = median(step.measured.generator_busy for step in standing.rounds[standing.best])
    if busy >= _GENERATOR_BUSY:
        doubts.append(f"the load on {name} was the limit, {busy:.0%} busy")
    return doubts


def _point(standing: Standing, steps: Sequence[Step]) -> dict[str, Any]:
    """What came of the steps at one rate: medians."""
    measured = [step.measured for step in steps]
    p50, p99 = median(step.p50 for step in steps), median(step.p99 for step in steps)
    return {
        "rate": steps[0].rate,
        "steps": len(steps),
        "per_second": median(each.per_second for each in measured),
        # JSON knows no infinity.
        "p50_milliseconds": p50 * 1e3 if math.isfinite(p50) else None,
        "p99_milliseconds": p99 * 1e3 if math.isfinite(p99) else None,
        "busy": median(each.busy for each in measured),
        "disk": median(each.disk for each in measured),
        "generator_busy": median(each.generator_busy for each in measured),
        "cpu_microseconds": median(each.cpu_seconds for each in measured) * 1e6,
        "codes": dict(sum((each.codes for each in measured), Counter())),
        "in_time": standing.in_time(steps),
    }


def _figures(standing: Standing) -> dict[str, Any]:
    steps = [step for made in standing.made.values() for step in made]
    faults = [fault for step in steps for fault in step.faults]
    return {
        "best": _point(standing, standing.rounds[standing.best]) if standing.best else None,
        "settled": standing.settled,
        "points": [_point(standing, made) for made in standing.made.values()],
        "answers_checked": sum(step.checked for step in steps),
        "answers_wrong": len(faults),
        "first_wrong": faults[:_FAULTS_SHOWN],
    }


def _curves(standings: dict[str, Standing], bound: float) -> list[Curves]:
    points = {name: [_point(each, made) for made in each.made.values()] for name, each in standings.items()}
    lines = [
        Line(
            name,
            what,
            [(each["rate"], each[f"{what}_milliseconds"]) for each in made if each[f"{what}_milliseconds"] is not None],
        )
        for name, made in points.items()
        for what in ("p99", "p50")
    ]
    drawn = [line for line in lines if line.points]
    title = "Latency from the intended start"
    return [Curves(title, "calls a second", "ms", drawn, (bound * 1e3, "bound"))] if drawn else []


def _rows(standings: dict[str, Standing]) -> Rows:
    headings = ("side", "due/s", "done/s", "p50 ms", "p99 ms", "busy", "disk", "load", "n", "failed", "")
    rows = []
    for name, standing in standings.items():
        for rate, steps in standing.made.items():
            point = _point(standing, steps)
            codes = Counter(point["codes"])
            p50, p99 = point["p50_milliseconds"], point["p99_milliseconds"]
            rows.append(
                (
                    name,
                    figure(rate),
                    figure(point["per_second"]),
                    "-" if p50 is None else figure(p50),
                    "-" if p99 is None else figure(p99),
                    f"{point['busy']:.0%}",
                    f"{point['disk']:.0%}",
                    f"{point['generator_busy']:.0%}",
                    str(len(steps)),
                    str(codes.total() - codes["OK"]),
                    "best" if rate == standing.best else "" if point["in_time"] else "late",
                )
            )
    checked = sum(step.checked for each in standings.values() for made in each.made.values() for step in made)
    return Rows(f"Medians at each rate; all {checked:,} answers were looked at", headings, rows)

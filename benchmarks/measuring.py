"""One side under one load: calls a second, what each costs of the processor, how long it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import processes
from benchmarks.load import Load, Outcome, Running
from benchmarks.sides import Side

# A figure of a core that had time to spare is no figure of the server's.
BUSY = 0.95


@dataclass(frozen=True)
class Measured:
    """What came of a load.

    Attributes:
        per_second: Calls that were answered well in each second.
        cpu_seconds: Of all processes of the side, for each of these calls.
        busy: How much of its core the side used, 1.0 for all.
        p50, p99: Of the seconds that calls took which were due and answered well.
        codes: How often each status code came.
        generator_busy: How much of its core the load used.
        outcomes: Of all calls, those of the warm-up as well.
    """

    per_second: float
    cpu_seconds: float
    busy: float
    p50: float
    p99: float
    codes: Counter[str]
    generator_busy: float = 0.0
    outcomes: Sequence[Outcome] = field(default=(), repr=False)

    @property
    def kept(self) -> Sequence[Outcome]:
        """The outcomes whose answers were kept."""
        return [each for each in self.outcomes if each.due >= 0 and each.answer]

    @property
    def counts(self) -> bool:
        """Whether it says what the side can do at most: its core was busy, and no call failed."""
        return self.busy >= BUSY and set(self.codes) == {"OK"}


def measure(side: Side, load: Load) -> Measured:
    """Put a load on a side."""
    at: list[tuple[float, float, float]] = []
    running = Running(load)

    def look() -> None:
        at.append((time.perf_counter(), side.cpu_seconds(), processes.cpu_seconds(running.pid)))

    outcomes = running.outcomes(look, look)
    (began, cpu_before, load_before), (ended, cpu_after, load_after) = at
    cpu = cpu_after - cpu_before
    # Those that end in the time that counts, whenever they began: as many are under way at its start as at its end.
    answered = sum(0 <= each.due + each.seconds < load.seconds for each in outcomes if each.code == "OK")
    # Those that were due then, however late they ended.
    due = [each for each in outcomes if each.due >= 0]
    seconds = sorted(each.seconds for each in due if each.code == "OK")
    return Measured(
        per_second=answered / load.seconds,
        cpu_seconds=cpu / answered if answered else 0.0,
        busy=cpu / (ended - began),
        p50=quantile(seconds, 0.5),
        p99=quantile(seconds, 0.99),
        codes=Counter(each.code for each in outcomes),
        generator_busy=(load_after - load_before) / (ended - began),
        outcomes=outcomes,
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that this part of some numbers in order stays below. 0: there are none."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0

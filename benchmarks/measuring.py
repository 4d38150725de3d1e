"""One side under one load: calls a second, what each costs of the processor, how long it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks import processes
from benchmarks.load import Load, Outcome, Running
from benchmarks.sides import SERVER_CORE, Side

# A figure of a core that had time to spare is no figure of the server's.
BUSY = 0.95


@dataclass(frozen=True)
class Measured:
    """What came of a load.

    Attributes:
        per_second: Calls that were answered well in each second.
        cpu_seconds: Of all processes of the side, for each of these calls.
        database_seconds: The same of its database server, which shares its core.
        busy: How much of its core the side used, and its database server, 1.0 for all.
        disk: How much of the time the core waited for a disk, with nothing else to do.
        p50, p99: Of the seconds that calls took which were due and answered well.
        codes: How often each status code came, of these calls.
        kept: The outcomes whose answers were kept.
        generator_busy: How much of its core the load used.
    """

    per_second: float
    cpu_seconds: float
    busy: float
    disk: float
    p50: float
    p99: float
    codes: Counter[str]
    kept: Sequence[Outcome] = field(default=(), repr=False)
    generator_busy: float = 0.0
    database_seconds: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether it says what the side can do at most: its core was busy, and no call failed."""
        return self.busy >= BUSY and set(self.codes) == {"OK"}


def measure(side: Side, load: Load) -> Measured:
    """Put a load on a side."""
    measured, outcomes = observe(side, load)
    return replace(measured, kept=[each for each in outcomes if each.due >= 0 and each.answer])


def observe(side: Side, load: Load) -> tuple[Measured, list[Outcome]]:
    """Put a load on a side. All outcomes stand beside what came of it, those of the warm-up as well."""
    at: list[tuple[float, float, float, float, float]] = []
    running = Running(load)

    def look() -> None:
        disk, load_cpu = processes.disk_seconds(SERVER_CORE), processes.cpu_seconds(running.pid)
        at.append((time.perf_counter(), side.cpu_seconds(), side.database_seconds(), disk, load_cpu))

    outcomes = running.outcomes(look, look)
    (began, *before), (ended, *after) = at
    cpu, database, disk, load_cpu = (later - earlier for earlier, later in zip(before, after, strict=True))
    last = max((each.due + each.seconds for each in outcomes), default=0.0)
    # Calls that are made once may have run out.
    length = min(load.seconds, last) if load.once else load.seconds
    # Those that end in the time that counts, whenever they began: as many are under way at its start as at its end.
    answered = sum(0 <= each.due + each.seconds <= length for each in outcomes if each.code == "OK")
    # Those that were due then, however late they ended.
    due = [each for each in outcomes if each.due >= 0]
    seconds = sorted(each.seconds for each in due if each.code == "OK")
    measured = Measured(
        per_second=answered / length if answered else 0.0,
        cpu_seconds=cpu / answered if answered else 0.0,
        busy=(cpu + database) / (ended - began),
        disk=disk / (ended - began),
        p50=quantile(seconds, 0.5),
        p99=quantile(seconds, 0.99),
        codes=Counter(each.code for each in due),
        generator_busy=load_cpu / (ended - began),
        database_seconds=database / answered if answered else 0.0,
    )
    return measured, outcomes


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that this part of some numbers in order stays below. 0: there are none."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0

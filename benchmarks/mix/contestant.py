"""One side under the mix: a step at one rate, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from benchmarks import processes
from benchmarks.load import Load, Outcome, Running
from benchmarks.mix.apis import Api
from benchmarks.mix.checker import Checker
from benchmarks.mix.examination import examine
from benchmarks.mix.plan import Plan
from benchmarks.mix.world import World
from benchmarks.sides import LOAD_CORE, Side

BOUND_SECONDS = 0.02
_WARM_UP_SECONDS = 1.0
# Access tokens live a quarter of an hour.
_RENEW_SECONDS = 420.0


@dataclass(frozen=True)
class Step:
    """What came of the mix at one rate.

    Attributes:
        rate: Calls that were due in each second, on average.
        per_second: Those that were answered well, of the ones that were due in each second.
        p50, p99: Of the seconds from the moment at which a call was due to its answer.
        server_busy, generator_busy: How much of its core each used, 1.0 for all.
        codes: How often each status code came.
        checked: Answers that were looked at, all of them.
        faults: What was wrong with some.
    """

    rate: float
    per_second: float
    p50: float
    p99: float
    server_busy: float
    generator_busy: float
    codes: Counter[str]
    checked: int
    faults: Sequence[str] = field(default=(), repr=False)

    @property
    def right(self) -> bool:
        """Whether all calls were answered, and rightly."""
        return set(self.codes) == {"OK"} and not self.faults

    @property
    def passed(self) -> bool:
        """Whether that was in time, too."""
        return self.right and self.p99 < BOUND_SECONDS


class Contestant:
    """A side that holds a world.

    Args:
        renewed: Makes what authorises each user, in the order of their ids.
    """

    def __init__(self, side: Side, api: Api, world: World, renewed: Callable[[], list[str]]) -> None:
        self.name = side.name
        self._side = side
        self._api = api
        self._users = world.users
        self._checker = Checker(world)
        self._renewed = renewed
        self._tokens: list[str] = []
        self._renewed_at = float("-inf")
        self._steps = 0

    def step(self, rate: float, seconds: float) -> Step:
        """Make so many calls in each second for a while, and look at what came back."""
        self._renew()
        self._steps += 1
        plan = Plan(f"{self.name}-{self._steps}", self._users, rate, seconds, _WARM_UP_SECONDS)
        arrivals = plan.arrivals()
        load = Load(
            address=self._side.address,
            calls=[self._api.call(arrival) for arrival in arrivals],
            moments=[arrival.due for arrival in arrivals],
            tokens=self._tokens,
            seconds=seconds,
            warm_up=_WARM_UP_SECONDS,
            protocol=self._side.protocol,
            keep=1,
            core=LOAD_CORE,
        )
        running = Running(load)
        at: list[tuple[float, float, float]] = []

        def look() -> None:
            at.append((time.perf_counter(), self._side.cpu_seconds(), processes.cpu_seconds(running.pid)))

        outcomes = running.outcomes(look, look)
        (began, server_before, generator_before), (ended, server_after, generator_after) = at
        findings = examine(self._checker, self._api, arrivals, outcomes)
        counted = [outcome for outcome in outcomes if outcome.due >= 0]
        answered = [outcome.seconds for outcome in counted if outcome.code == "OK"]
        percentiles = quantiles(answered, n=100) if len(answered) > 1 else [float("inf")] * 99
        return Step(
            rate=rate,
            per_second=len(answered) / seconds,
            p50=percentiles[49],
            p99=percentiles[98],
            server_busy=(server_after - server_before) / (ended - began),
            generator_busy=(generator_after - generator_before) / (ended - began),
            codes=Counter(outcome.code for outcome in outcomes),
            checked=findings.checked,
            faults=findings.faults,
        )

    def _renew(self) -> None:
        """Have tokens that will last."""
        if time.monotonic() > self._renewed_at + _RENEW_SECONDS:
            self._tokens = self._renewed()
            self._renewed_at = time.monotonic()

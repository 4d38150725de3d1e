"""One side under the mix: a step at one rate, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.load import Load
from benchmarks.measuring import Measured, observe, quantile
from benchmarks.mix.apis import Api
from benchmarks.mix.checker import Checker
from benchmarks.mix.examination import examine
from benchmarks.mix.plan import Plan
from benchmarks.mix.world import World
from benchmarks.sides import LOAD_CORE, Side

_WARM_UP_SECONDS = 1.0
# Access tokens live a quarter of an hour.
_RENEW_SECONDS = 420.0


@dataclass(frozen=True)
class Step:
    """What came of the mix at one rate.

    Attributes:
        rate: Calls that were due in each second, on average.
        p50, p99: Of the seconds from the moment when a call was due to its answer. One that failed is late for ever.
        checked: Answers that were looked at: every one, those of the warm-up as well.
        faults: What was wrong with some of them.
    """

    rate: float
    p50: float
    p99: float
    measured: Measured
    checked: int
    faults: Sequence[str] = field(repr=False)


class Contestant:
    """A side that holds a world.

    Args:
        renewed: Makes what authorises each user, in the order of their ids.
        pinned: Whether the load has a core of its own.
    """

    def __init__(self, side: Side, api: Api, world: World, renewed: Callable[[], list[str]], pinned: bool) -> None:
        self.name = side.name
        self._side = side
        self._api = api
        self._users = world.users
        self._checker = Checker(world)
        self._renewed = renewed
        self._core = LOAD_CORE if pinned else None
        self._tokens: list[str] = []
        self._renewed_at = float("-inf")
        self._steps = 0

    def aside(self) -> AbstractContextManager[None]:
        """Leave the core to another side."""
        return self._side.aside()

    def step(self, rate: float, seconds: float) -> Step:
        """Make so many calls in each second for a while, and look at what came back."""
        if time.monotonic() > self._renewed_at + _RENEW_SECONDS:
            self._tokens = self._renewed()
            self._renewed_at = time.monotonic()
        self._steps += 1
        seed = f"{self.name}-{self._steps}".replace(" ", "-")
        arrivals = Plan(seed, self._users, rate, seconds, _WARM_UP_SECONDS).arrivals()
        load = Load(
            address=self._side.address,
            calls=[self._api.call(arrival) for arrival in arrivals],
            moments=[arrival.due for arrival in arrivals],
            tokens=self._tokens,
            seconds=seconds,
            warm_up=_WARM_UP_SECONDS,
            protocol=self._side.protocol,
            keep=1,
            core=self._core,
        )
        measured, outcomes = observe(self._side, load)
        due = [outcome for outcome in outcomes if outcome.due >= 0]
        taken = sorted(outcome.seconds if outcome.code == "OK" else math.inf for outcome in due)
        findings = examine(self._checker, self._api, arrivals, outcomes)
        return Step(
            rate=rate,
            p50=quantile(taken, 0.5),
            p99=quantile(taken, 0.99),
            measured=measured,
            checked=findings.checked,
            faults=findings.faults,
        )

"""Both sides under the mix: how many calls a second each answers in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median

from benchmarks.mix import search
from benchmarks.mix.contestant import Contestant, Step

# The rates of the rounds, around the one that the search found.
_RUNGS = (0.88, 0.94, 1.0, 1.06, 1.12)
# The search may have met a good moment, or a bad one: then the rounds are made once more, at other rates.
_ATTEMPTS = 3


@dataclass
class Standing:
    """What is known of a side.

    Attributes:
        bound: What 99 of 100 calls have to be answered within, in seconds.
        base: The rate around which the rounds are made. 0: none was in time.
        searched, rounds: The steps that were made, by rate: those in search of the base, and those of the rounds.
        best: The highest rate of the rounds that was in time. 0: none was.
        settled: Whether there is one above it that was not.
    """

    bound: float
    base: float = 0.0
    searched: dict[float, list[Step]] = field(default_factory=dict)
    rounds: dict[float, list[Step]] = field(default_factory=dict)
    best: float = 0.0
    settled: bool = False

    @property
    def rates(self) -> Sequence[float]:
        """Those of the rounds."""
        return [self.base * rung for rung in _RUNGS] if self.base else ()

    @property
    def made(self) -> dict[float, list[Step]]:
        """All steps, by rate."""
        rates = sorted(self.searched | self.rounds)
        return {rate: [*self.searched.get(rate, ()), *self.rounds.get(rate, ())] for rate in rates}

    def in_time(self, steps: Sequence[Step]) -> bool:
        """Whether the calls of some steps were answered in time, in the median, and all of them rightly."""
        return median(step.p99 for step in steps) < self.bound and not any(step.faults for step in steps)

    def settle(self) -> None:
        """Choose the best of the rates of the rounds. If it may be another one, the next rounds move there."""
        rates = self.rates
        self.best = search.highest_rung({rate: self.in_time(self.rounds[rate]) for rate in rates})
        self.settled = True
        if rates and self.best == rates[-1]:
            self.base *= _RUNGS[-1] / _RUNGS[0]
            self.settled = False
        elif rates and not self.best:
            self.base *= _RUNGS[0] / _RUNGS[-1]
            self.settled = False


class Contest:
    """Sides that take turns: while one answers, the others leave it the core.

    Args:
        seconds: How long calls are due in a step.
        tell: Is told each step as it was made, and whose it was.
    """

    def __init__(
        self, contestants: Sequence[Contestant], seconds: float, bound: float, tell: Callable[[Contestant, Step], None]
    ) -> None:
        self.standings = {contestant: Standing(bound) for contestant in contestants}
        self._seconds = seconds
        self._tell = tell

    def hold(self, starts: Mapping[Contestant, float], rounds: int) -> None:
        """Find the best rate of each, and confirm it in rounds.

        Args:
            starts: The rate at which the search begins.
        """
        for contestant, standing in self.standings.items():
            self._search(contestant, standing, starts[contestant])
        for _ in range(_ATTEMPTS):
            for _ in range(rounds):
                self._round()
            for standing in self.standings.values():
                standing.settle()
            if all(standing.settled for standing in self.standings.values()):
                break

    def _search(self, contestant: Contestant, standing: Standing, start: float) -> None:
        def passes(rate: float) -> bool:
            steps = standing.searched[rate] = [self._step(contestant, rate)]
            if not standing.in_time(steps):
                # The machine may have had a bad moment. The rounds decide, and are not to begin too low for it.
                steps.append(self._step(contestant, rate))
            return any(standing.in_time([step]) for step in steps)

        standing.base = search.highest(passes, start)

    def _round(self) -> None:
        # Of unlike lengths only if a side is in time at no rate.
        for rates in zip_longest(*(standing.rates for standing in self.standings.values())):
            for (contestant, standing), rate in zip(self.standings.items(), rates, strict=True):
                if rate:
                    standing.rounds.setdefault(rate, []).append(self._step(contestant, rate))

    def _step(self, contestant: Contestant, rate: float) -> Step:
        with ExitStack() as others:
            for other in self.standings:
                if other is not contestant:
                    others.enter_context(other.aside())
            step = contestant.step(rate, self._seconds)
        self._tell(contestant, step)
        return step

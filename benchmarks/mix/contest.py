"""Both sides under the mix: how many calls a second each answers in time, and how many times as many the one does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from typing import Any

from benchmarks.mix import search
from benchmarks.mix.contestant import Contestant, Step

BOUND_SECONDS = 0.02
# The rates of the rounds, around the one that the search found.
_RUNGS = (0.88, 0.94, 1.0, 1.06, 1.12)
# The search may have met a good moment, or a bad one: then the rounds are made once more, at other rates.
_ATTEMPTS = 3
_FAULTS_SHOWN = 5


@dataclass
class Standing:
    """What is known of a side.

    Attributes:
        base: The rate around which the rounds are made.
        searched, rounds: The steps that were made, by rate: one each in search of the best, and those of the rounds.
        best: The highest rate that passed in the rounds. 0: none did.
    """

    contestant: Contestant
    bound: float
    base: float = 0.0
    searched: dict[float, list[Step]] = field(default_factory=dict)
    rounds: dict[float, list[Step]] = field(default_factory=dict)
    best: float = 0.0

    def search(self, start: float, seconds: float) -> None:
        """Find the rate around which the rounds are to be made, from one to begin with."""

        def passes(rate: float) -> bool:
            self.searched[rate] = [self.contestant.step(rate, seconds)]
            return self._in_time(self.searched[rate])

        self.base = search.highest(passes, start)

    def rates(self) -> Sequence[float]:
        """Those of the rounds."""
        return [self.base * rung for rung in _RUNGS] if self.base else ()

    def step(self, rate: float, seconds: float) -> None:
        """Make a step of a round."""
        self.rounds.setdefault(rate, []).append(self.contestant.step(rate, seconds))

    def settle(self) -> bool:
        """Choose the best of the rates of the rounds. False: it may be another one, to which the next rounds move."""
        rates = self.rates()
        self.best = search.highest_rung({rate: self._in_time(self.rounds[rate]) for rate in rates})
        if rates and self.best == rates[-1]:
            self.base *= _RUNGS[-1] / _RUNGS[0]
            return False
        if rates and not self.best:
            self.base *= _RUNGS[0] / _RUNGS[-1]
            return False
        return True

    def result(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        made = {
            rate: [*self.searched.get(rate, ()), *self.rounds.get(rate, ())] for rate in self.searched | self.rounds
        }
        steps = [step for each in made.values() for step in each]
        best = self._point(self.rounds[self.best]) if self.best else None
        return {
            "best": best,
            "points": [self._point(made[rate]) for rate in sorted(made)],
            "checked": sum(step.checked for step in steps),
            "faults": sum(len(step.faults) for step in steps),
            "first_faults": [fault for step in steps for fault in step.faults][:_FAULTS_SHOWN],
        }

    def _in_time(self, steps: Sequence[Step]) -> bool:
        """Whether the calls of these steps were answered in time, in the median, and all of them rightly."""
        return median(step.p99 for step in steps) < self.bound and not any(step.faults for step in steps)

    def _point(self, steps: Sequence[Step]) -> dict[str, Any]:
        """What came of the steps at one rate: medians."""
        measured = [step.measured for step in steps]
        p50, p99 = median(step.p50 for step in steps), median(step.p99 for step in steps)
        return {
            "rate": steps[0].rate,
            "rounds": len(steps),
            "per_second": median(each.per_second for each in measured),
            # JSON knows no infinity.
            "p50": p50 if math.isfinite(p50) else None,
            "p99": p99 if math.isfinite(p99) else None,
            "busy": median(each.busy for each in measured),
            "generator_busy": median(each.generator_busy for each in measured),
            "failed": sum(each.codes.total() - each.codes["OK"] for each in measured),
            "in_time": self._in_time(steps),
        }


def hold(
    contestants: Mapping[Contestant, float], rounds: int, seconds: float, bound: float = BOUND_SECONDS
) -> dict[str, Any]:
    """Find the best rate of each, and confirm it in rounds in which they take turns.

    Args:
        contestants: And the rate at which the search for each begins.
        seconds: How long calls are due in a step.
        bound: What 99 of 100 calls have to be answered within, in seconds.
    """
    standings = [Standing(contestant, bound) for contestant in contestants]
    for standing, start in zip(standings, contestants.values(), strict=True):
        standing.search(start, seconds)
    for _ in range(_ATTEMPTS):
        for _ in range(rounds):
            # Of unlike lengths only if one of the sides is in time at no rate.
            for turns in zip_longest(*(standing.rates() for standing in standings)):
                for standing, rate in zip(standings, turns, strict=True):
                    if rate:
                        standing.step(rate, seconds)
        settled = [standing.settle() for standing in standings]
        if all(settled):
            break
    return {standing.contestant.name: standing.result() for standing in standings}

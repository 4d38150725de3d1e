"""Which calls the mix consists of, and when each is due."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import NamedTuple

PAGE_SIZE = 10


class Kind(Enum):
    """What somebody does; its value is its share of the calls in DeathStarBench's mix, in percent."""

    HOME = 60
    TIMELINE = 30
    CREATE = 10


class Arrival(NamedTuple):
    """A call that is to be made.

    Attributes:
        name: Another one for each call of each plan.
        due: The second after the start at which it is to begin.
        subject: Whose timeline; otherwise the caller.
    """

    name: str
    due: float
    kind: Kind
    caller: int
    subject: int


@dataclass(frozen=True)
class Plan:
    """A load: the same calls at the same moments for the same plan.

    Attributes:
        seed: Letters, digits and dashes.
        users: So many call, each as often as others: those with the ids from 1.
        per_second: Calls that are due in each second, on average.
        warm_up: So many seconds of the same go before: calls of then are due before 0.
    """

    seed: str
    users: int
    per_second: float
    seconds: float
    warm_up: float

    def arrivals(self) -> list[Arrival]:
        """The calls, the first that is due first.

        They come independently of each other, so the gaps between them are exponential, as those of wrk2 in
        DeathStarBench.
        """
        rng = Random(self.seed)
        kinds, shares = list(Kind), [kind.value for kind in Kind]
        arrivals: list[Arrival] = []
        due = -self.warm_up
        while (due := due + rng.expovariate(self.per_second)) < self.seconds:
            (kind,) = rng.choices(kinds, shares)
            caller = rng.randint(1, self.users)
            subject = rng.randint(1, self.users) if kind is Kind.TIMELINE else caller
            arrivals.append(Arrival(f"{self.seed}-{len(arrivals)}", due, kind, caller, subject))
        return arrivals

"""How long a part of the benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        rounds: Each measures everything once; figures are the medians of them.
        seconds: For which each load runs.
        warm_up: Seconds of each load that do not count, before those that do.
        at_most: Calls at a time, where more would be made.
        pinned: Whether servers and load have a core each. Without, figures mean little.
    """

    rounds: int = 5
    seconds: float = 4
    warm_up: float = 1
    at_most: int = 1_000
    pinned: bool = True

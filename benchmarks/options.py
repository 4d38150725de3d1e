"""How long a part of the benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        rounds: Each measures everything once; figures are the medians of them.
        seconds: For which each load runs.
        pinned: Whether servers and load have a core each. Without, figures mean little.
    """

    rounds: int = 5
    seconds: float = 4
    pinned: bool = True

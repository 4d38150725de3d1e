"""The highest rate at which a side still answers in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Steps up from the first rate, and how near to the bound the search ends.
_STRIDE = 1.6
_PRECISION = 1.05
# The rates at which the sides meet in the rounds, around what the search found.
RUNGS = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1)


def highest(passes: Callable[[float], bool], start: float) -> float:
    """A rate that passes, while one that is a twentieth higher does not; below `start` it goes down without an end.

    Args:
        passes: Whether it does at a rate. Is asked once for each rate.
    """
    good, bad = 0.0, 0.0
    rate = start
    while not (good and bad):
        if passes(rate):
            good = rate
            rate *= _STRIDE
        else:
            bad = rate
            rate /= _STRIDE
    while bad / good > _PRECISION:
        rate = (good * bad) ** 0.5
        if passes(rate):
            good = rate
        else:
            bad = rate
    return good


def best_rung(passed: Mapping[float, bool]) -> float | None:
    """The highest rate up to which all pass. None: the lowest one does not."""
    best = None
    for rate in sorted(passed):
        if not passed[rate]:
            break
        best = rate
    return best

"""The highest rate at which a side still answers in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Steps up from the first rate, and how near to the bound the search ends.
_STRIDE = 1.6
_PRECISION = 1.1
# A side that cannot keep up with so few calls a second is not one to search any further.
_LEAST = 2.0


def highest(passes: Callable[[float], bool], start: float) -> float:
    """A rate that passes, while one that is a tenth higher does not. 0: none passes.

    Args:
        passes: Whether a rate does. It is asked once for each.
        start: The rate to ask for first.
    """
    good = bad = 0.0
    rate = start
    while not (good and bad):
        if passes(rate):
            good = rate
            rate *= _STRIDE
        else:
            bad = rate
            rate /= _STRIDE
            if rate < _LEAST:
                return good
    while bad / good > _PRECISION:
        rate = (good * bad) ** 0.5
        if passes(rate):
            good = rate
        else:
            bad = rate
    return good


def highest_rung(passed: Mapping[float, bool]) -> float:
    """The highest rate up to which all pass. 0: the lowest one does not."""
    highest = 0.0
    for rate in sorted(passed):
        if not passed[rate]:
            break
        highest = rate
    return highest

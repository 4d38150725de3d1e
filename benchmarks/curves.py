"""Curves for the terminal, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

_WIDTH, _HEIGHT = 66, 18
_MARKS = "●○▲△"


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        whose: The side whose color it has.
        what: What it is of; in one plot the first kind is drawn solid, others fainter.
        points: Of x and y, all above 0.
    """

    whose: str
    what: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """Lines in one plot.

    Attributes:
        x, y: What the axes count.
        bound: A value of y that is drawn as a line of its own, and what it is.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    bound: tuple[float, str]

    @property
    def kinds(self) -> list[str]:
        """What lines are of, each once."""
        return list(dict.fromkeys(line.what for line in self.lines))

    @property
    def marks(self) -> Mapping[str, str]:
        """The mark of each kind."""
        return dict(zip(self.kinds, _MARKS, strict=False))


def text(curves: Curves, colors: Mapping[str, str]) -> Text:
    """The plot, as wide as a usual terminal."""
    level, meaning = curves.bound
    across = _Scale((x for line in curves.lines for x, _ in line.points), _WIDTH)
    up = _Scale((*(y for line in curves.lines for _, y in line.points), level), _HEIGHT)
    grid: list[list[tuple[str, str]]] = [[(" ", "")] * _WIDTH for _ in range(_HEIGHT)]
    grid[up.place(level)] = [("┄", "dim")] * _WIDTH
    for line in curves.lines:
        for x, y in line.points:
            grid[up.place(y)][across.place(x)] = (curves.marks[line.what], colors[line.whose])
    plot = Text(f"{curves.title} ({curves.y})\n", "bold", no_wrap=True, end="")
    labels = {0: _figure(up.least), _HEIGHT - 1: _figure(up.most), up.place(level): meaning}
    for number in reversed(range(_HEIGHT)):
        plot.append(f"{labels.get(number, ''):>8} │", "not bold dim")
        for mark, style in grid[number]:
            plot.append(mark, f"not bold {style}")
        plot.append("\n")
    plot.append(f"{'':8} └{'─' * _WIDTH}\n", "not bold dim")
    ends = f"{across.least:,.0f}", f"{across.most:,.0f}"
    plot.append(f"{'':10}{ends[0]}{curves.x:^{_WIDTH - len(''.join(ends))}}{ends[1]}\n", "not bold dim")
    plot.append(" " * 10)
    for line in curves.lines:
        plot.append(f"{curves.marks[line.what]} {line.what} {line.whose}   ", f"not bold {colors[line.whose]}")
    return plot


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class _Scale:
    """Puts numbers above 0 into so many places, the logarithm deciding."""

    def __init__(self, numbers: Iterable[float], places: int) -> None:
        known = [*numbers]
        self.least, self.most = min(known), max(known)
        self._last = places - 1

    def place(self, number: float) -> int:
        if self.most == self.least:
            return 0
        return round(math.log(number / self.least) / math.log(self.most / self.least) * self._last)

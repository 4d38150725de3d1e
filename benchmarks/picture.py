"""The picture of a part: its bars, and how near it came to its goals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.curves import Curves
from benchmarks.report import COLORS, Bars, Goal, Part, Verdict, figure

matplotlib.use("agg")

_WIDTH = 10.0
_ROW = 0.27
_HEAD = 1.1
_CURVES = 4.2
_VERDICTS = {"aim": "#1f8a4c", "met": "#7cc08f", "missed": "#d1495b", "uncounted": "#ccd0d6"}
_WORDS = {"aim": "aim reached", "met": "met", "missed": "missed", "uncounted": "does not count"}
_STYLE: Any = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.edgecolor": "#b5bac2",
    "xtick.color": "#5b616b",
    "ytick.left": False,
    "axes.axisbelow": True,
}


def draw(part: Part, path: Path) -> None:
    """Draw a part into a PNG file."""
    heights = [_HEAD + _ROW * _lines(bars) for bars in part.bars] + [_CURVES] * len(part.curves)
    if part.verdicts:
        heights.append(_HEAD + 1.5 * _ROW * len(part.verdicts))
    with pyplot.rc_context(_STYLE):
        figure_, axes = pyplot.subplots(
            len(heights), 1, figsize=(_WIDTH, sum(heights) + 0.5), height_ratios=heights, squeeze=False
        )
        for bars, axis in zip(part.bars, axes[:, 0], strict=False):
            _draw_bars(bars, axis)
        for curves, axis in zip(part.curves, axes[len(part.bars) :, 0], strict=False):
            _draw_curves(curves, axis)
        if part.verdicts:
            _draw_goals(part.verdicts, axes[-1, 0])
        figure_.suptitle(part.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        figure_.tight_layout()
        figure_.savefig(path, dpi=140)
        pyplot.close(figure_)


def _name(goal: Goal) -> str:
    return f"{goal.what}\nagainst {goal.against}" if goal.against else goal.what


def _lines(bars: Bars) -> float:
    return len(bars.rows) + 0.7 * len({what for what, _, _ in bars.rows})


def _draw_bars(bars: Bars, axis: Any) -> None:
    place = 0.0
    groups: dict[str, list[float]] = {}
    most = max(value for _, _, value in bars.rows)
    for what, whose, value in bars.rows:
        place += 1 if what in groups else 1.7
        groups.setdefault(what, []).append(place)
        axis.barh(place, value, 0.86, color=COLORS.get(whose, COLORS["together"]))
        label = f"{figure(value)}  {whose}"
        axis.text(value + most * 0.008, place, label, va="center", color="#333840", fontsize=8.5)
    axis.set_yticks([sum(places) / len(places) for places in groups.values()], groups)
    axis.invert_yaxis()
    axis.set_xlim(0, most * 1.16)
    axis.set_title(f"{bars.title} ({bars.unit})")
    axis.xaxis.set_major_formatter("{x:,.6g}")
    axis.grid(axis="x", color="#e6e8eb")


def _draw_curves(curves: Curves, axis: Any) -> None:
    for line in curves.lines:
        first = line.what == curves.kinds[0]
        style = {"linestyle": "-" if first else ":", "marker": "o", "markersize": 3.5, "alpha": 1 if first else 0.7}
        axis.plot(*zip(*line.points, strict=True), color=COLORS[line.whose], label=f"{line.what} {line.whose}", **style)
    level, meaning = curves.bound
    axis.axhline(level, color="#333840", linestyle=(0, (3, 3)), linewidth=1, label=meaning)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_locator(LogLocator(subs=(1, 2, 5)))
        which.set_major_formatter("{x:,g}")
        which.set_minor_formatter(NullFormatter())
    axis.set_xlabel(curves.x)
    axis.set_title(f"{curves.title} ({curves.y})")
    axis.grid(color="#e6e8eb")
    axis.legend(frameon=False, fontsize=8.5)


def _draw_goals(verdicts: Any, axis: Any) -> None:
    verdict: Verdict
    for place, verdict in enumerate(verdicts):
        goal = verdict.goal
        axis.barh(place, verdict.reached, 0.62, color=_VERDICTS[verdict.word])
        if goal.aim is not None:
            aim = goal.least / goal.aim if goal.at_most else goal.aim / goal.least
            axis.plot([aim, aim], [place - 0.4, place + 0.4], color="#333840", linewidth=1.6)
        label = f"{figure(verdict.value)} {goal.unit}, {_WORDS[verdict.word]}"
        axis.text(0.015, place, label, va="center", fontsize=8.5)
    axis.set_yticks(range(len(verdicts)), [_name(each.goal) for each in verdicts], fontsize=8.5)
    axis.axvline(1, color="#333840", linestyle=(0, (3, 3)), linewidth=1)
    axis.invert_yaxis()
    axis.set_title("Reached, of what it must (dashed line; the mark is the aim)")
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.grid(axis="x", color="#e6e8eb")

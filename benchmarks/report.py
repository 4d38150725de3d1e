"""What the parts of the benchmark have found: tables and bars for the terminal, a picture, and JSON."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import apsw
from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks import curves
from benchmarks.curves import Curves
from benchmarks.sides import BUILD

_VERSIONS = ("grpcio", "peewee", "apsw", "protobuf", "protovalidate", "uvloop")


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Attributes:
        what, against: What is measured, and what it is compared with, if it is.
        least, aim: What it must reach, and what it should.
        unit: Of the figure; x for how many times as much.
        at_most: Whether less is better: it must not exceed `least`.
    """

    what: str
    against: str
    least: float
    aim: float | None = None
    unit: str = "x"
    at_most: bool = False

    def met(self, value: float, bound: float | None) -> bool:
        """Whether a figure keeps to a bound."""
        return bound is not None and (value <= bound if self.at_most else value >= bound)


@dataclass(frozen=True)
class Verdict:
    """What came of a goal.

    Attributes:
        lowest, highest: Of the rounds.
        doubt: Why the figure does not count. Empty: it does.
    """

    goal: Goal
    value: float
    lowest: float
    highest: float
    doubt: str = ""

    @property
    def word(self) -> str:
        """aim, met or missed; uncounted if there is a doubt."""
        if self.doubt:
            return "uncounted"
        if self.goal.met(self.value, self.goal.aim):
            return "aim"
        return "met" if self.goal.met(self.value, self.goal.least) else "missed"

    @property
    def reached(self) -> float:
        """The part of the least that was reached; more than 1 is better, also where less is."""
        if self.goal.at_most:
            return self.goal.least / self.value if self.value else 0.0
        return self.value / self.goal.least


def judged(goal: Goal, rounds: Sequence[float], doubt: str = "") -> Verdict:
    """What came of a goal in several rounds: their median counts."""
    return Verdict(goal, statistics.median(rounds), min(rounds), max(rounds), doubt)


@dataclass(frozen=True)
class Bars:
    """Figures to be shown side by side.

    Attributes:
        rows: What the figure is of, whose it is, and the figure; rows of the same stand together.
        unit: What is counted.
    """

    title: str
    unit: str
    rows: Sequence[tuple[str, str, float]]


@dataclass(frozen=True)
class Rows:
    """Figures to be read.

    Attributes:
        rows: A text for each heading; numbers as `figure` writes them.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Part:
    """What a part of the benchmark has found.

    Attributes:
        name: Its name on the command line, in JSON and of its picture.
        figures: All that it measured, as JSON takes it.
    """

    name: str
    title: str
    verdicts: Sequence[Verdict]
    bars: Sequence[Bars] = ()
    tables: Sequence[Rows] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    curves: Sequence[Curves] = ()


def machine() -> dict[str, Any]:
    """Where it was measured: figures of another machine are no others to compare with."""
    versions = {name: metadata.version(name) for name in _VERSIONS}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        **versions,
    }


def save(part: Part, settings: Mapping[str, Any], folder: Path = BUILD) -> Path:
    """Put what a part has found into the results, in the place of what it found before. Returns their file."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[part.name] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "settings": dict(settings),
        "goals": [{**asdict(verdict), "verdict": verdict.word} for verdict in part.verdicts],
        **part.figures,
        "tables": [asdict(rows) for rows in part.tables],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def show(part: Part, console: Console) -> None:
    """Print the goals of a part and its bars."""
    console.print()
    console.rule(f"[bold]{part.title}", align="left", characters="━")
    for bars in part.bars:
        console.print(_bars(bars))
    for each in part.curves:
        console.print(curves.text(each, COLORS))
    for rows in part.tables:
        console.print(_rows(rows))
    if part.verdicts:
        console.print(_goals(part.verdicts))


def draw(part: Part, folder: Path = BUILD) -> Path:
    """Draw a part. Returns the picture's file."""
    # It takes a second to import, and a suite's users do not have it.
    from benchmarks import picture

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name}.png"
    picture.draw(part, path)
    return path


def figure(value: float) -> str:
    """A number in as many digits as one reads."""
    # What rounds to a thousand, too: three digits would be 1e+03.
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


_STYLES = {"aim": "bold green", "met": "green", "missed": "bold red", "uncounted": "yellow"}


def _goals(verdicts: Sequence[Verdict]) -> Group:
    table = _table("Goals")
    table.add_column("what")
    table.add_column("against", no_wrap=True)
    for heading in ("measured", "must be", "aim"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    notes = list(dict.fromkeys(verdict.doubt for verdict in verdicts if verdict.doubt))
    for verdict in verdicts:
        goal = verdict.goal
        word = Text(verdict.word, _STYLES[verdict.word])
        if verdict.doubt:
            word.append(f" ({notes.index(verdict.doubt) + 1})", "yellow")
        table.add_row(
            goal.what,
            goal.against,
            Text(_with_unit(verdict.value, goal), "bold"),
            f"{'≤' if goal.at_most else '≥'} {_with_unit(goal.least, goal)}",
            "" if goal.aim is None else _with_unit(goal.aim, goal),
            word,
        )
    told = [Text(f"({number}) does not count: {note}", "yellow") for number, note in enumerate(notes, 1)]
    return Group(table, *told)


def _rows(rows: Rows) -> Table:
    table = _table(rows.title)
    for number, heading in enumerate(rows.headings):
        numbers = all(row[number][:1].isdigit() for row in rows.rows)
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    before = ""
    for first, *rest in rows.rows:
        table.add_row("" if first == before else first, *rest)
        before = first
    return table


def _bars(bars: Bars) -> Group:
    most = max((value for _, _, value in bars.rows), default=1.0)
    names = max((len(whose) for _, whose, _ in bars.rows), default=0)
    digits = max((len(figure(value)) for *_, value in bars.rows), default=0)
    lines: list[RenderableType] = [Text(f"\n{bars.title} ({bars.unit})", "bold")]
    for what, rows in itertools.groupby(bars.rows, key=lambda row: row[0]):
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(style="dim", min_width=names, no_wrap=True)
        table.add_column(justify="right", min_width=digits, no_wrap=True)
        table.add_column(ratio=1)
        for _, whose, value in rows:
            bar = Bar(most, 0, value, color=COLORS.get(whose, COLORS["together"]))
            table.add_row(whose, figure(value), bar)
        # Above its bars, not beside them: it may be long.
        lines += [Text(what), Padding(table, (0, 0, 0, 2))]
    return Group(*lines)


def _table(title: str) -> Table:
    # Above it a line is free: the title is part of the table.
    return Table(
        box=box.SIMPLE_HEAD,
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )


# Of the sides, sizes and disks, wherever one is seen.
COLORS = {
    "bare echo": "#8a8f98",
    "together": "#2f6fde",
    "two workers": "#6fb1ff",
    "apart": "#19a38c",
    "1 % traced": "#8fb8f7",
    "DRF": "#e08a2e",
    "10k posts, 10k likes": "#a9cbff",
    "1M posts, 1M likes": "#5b93f0",
    "1M posts, 10M likes": "#1f4fae",
    "usual disk": "#8a8f98",
    "2 ms a sync": "#2f6fde",
    "model": "#8a8f98",
}


def _with_unit(value: float, goal: Goal) -> str:
    return f"{figure(value)} {goal.unit}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip()

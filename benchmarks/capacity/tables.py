"""What the capacity model says, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.capacity.day import Habit
from benchmarks.capacity.model import DATABASES, LIMITS, UTILISATION, Costs, Need, Saturation
from benchmarks.report import Rows, figure

if TYPE_CHECKING:
    from benchmarks.capacity.part import Round


def day(habits: Sequence[Habit], kinds: Sequence[str]) -> Rows:
    """What somebody does on a day."""
    rows = [(each.call, figure(each.per_day), each.why) for each in habits if each.call in kinds]
    return Rows("The assumed day", ("call", "a day", "because"), rows)


def costs(of: Costs, on_files: Mapping[str, float]) -> Rows:
    """What a call takes."""
    headings = ("call", "SQLite µs", "PG: suite µs", "server µs", "commits", "log KB", "stored KB", "answer bytes")
    rows = [
        (
            kind,
            figure(on_files[kind] * 1e6) if kind in on_files else "-",
            figure(cost.application * 1e6),
            figure(sum(cost.database.values()) * 1e6),
            figure(sum(cost.commits.values())) if cost.commits else "-",
            figure(cost.log_bytes / 1e3) if cost.commits else "-",
            figure(cost.stored_bytes / 1e3) if cost.commits else "-",
            figure(cost.wire_bytes[1]) if cost.wire_bytes[1] else "-",
        )
        for kind, cost in of.calls.items()
    ]
    return Rows("Measured: what a call takes", headings, rows)


def predictions(rounds: Mapping[str, Sequence[Round]]) -> Rows:
    """What the model said, and what was measured."""
    rows = []
    for name, of in rounds.items():
        saturated = [each.saturated for each in of if each.saturated]
        steady = [each.steady for each in of if each.steady]
        predicted = statistics.median(each.predicted for each in of)
        per_second = statistics.median(each.per_second for each in saturated)
        busy = statistics.median(each.busy for each in steady)
        mixing = statistics.median(each.mixing for each in of)
        rows += [
            (f"a call on {name} among others, against alone", "-", f"{mixing:.2f} x", "-"),
            (f"the mix on {name}, calls/s", figure(predicted), figure(per_second), _off(predicted, per_second)),
            (f"busy at {UTILISATION:.0%} of that", f"{UTILISATION:.0%}", f"{busy:.0%}", _off(UTILISATION, busy)),
        ]
    return Rows("The model and what was measured, one core", ("what", "model", "measured", "off by"), rows)


def needs(of: Sequence[Need]) -> Rows:
    """What so many people a day take."""
    rows: list[tuple[str, ...]] = [
        ("calls/s in the busiest hour", *(figure(each.calls) for each in of)),
        (f"cores of the suite, {UTILISATION:.0%} busy", *(figure(each.cores) for each in of)),
        ("memory of its processes, GB", *(figure(each.memory_bytes / 1e9) for each in of)),
    ]
    for name in DATABASES:
        for limit in LIMITS:
            values = [each.databases[name][limit.what] for each in of]
            unit = f", {limit.unit}" if limit.unit else ""
            rows.append((f"{name}: {limit.what}{unit}", *map(figure, values)))
        rows.append((f"{name}: servers", *(str(each.shards(name)) for each in of)))
    rows += [
        ("rows a year, TB", *(figure(each.rows_bytes / 1e12) for each in of)),
        ("images a year, TB", *(figure(each.images_bytes / 1e12) for each in of)),
        ("calls in, Mbit/s", *(figure(each.in_bytes * 8 / 1e6) for each in of)),
        ("answers out, Mbit/s", *(figure(each.out_bytes * 8 / 1e6) for each in of)),
        ("images uploaded, Mbit/s", *(figure(each.uploads_bytes * 8 / 1e6) for each in of)),
        ("images shown, Gbit/s", *(figure(each.images_out_bytes * 8 / 1e9) for each in of)),
        ("of that from the bucket, Gbit/s", *(figure(each.bucket_bytes * 8 / 1e9) for each in of)),
    ]
    return Rows("What it takes", ("", *(f"{each.people / 1e6:.0f} M people a day" for each in of)), rows)


def saturations(of: Sequence[Saturation]) -> Rows:
    """What ends first."""
    rows = [
        (
            each.database,
            each.limit.what,
            f"{figure(each.limit.most)} {each.limit.unit}".strip(),
            f"{each.people / 1e6:.1f} M",
        )
        for each in of
    ]
    return Rows("One server each: what ends first", ("database", "what", "limit", "people a day"), rows)


def _off(said: float, found: float) -> str:
    return f"{abs(said / found - 1):.0%}" if found else "-"

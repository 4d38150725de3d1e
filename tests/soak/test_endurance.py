"""Twenty minutes at 70 % of what a suite can do: it holds no more memory, threads and files at the end than before.

Meanwhile somebody reads from each database from one moment, for half of the time, again and again.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.processes import pin
from chassis import wal
from tests.mixture import KINDS, Load, Window, windows
from tests.people import People
from tests.resources import Resources, resources
from tests.running import RunningSuite, running
from tests.soak.report import machine, tell
from tests.suite.killing import children

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

# To try it out in fewer: at least a minute, so that the log can be short between two long reads.
SECONDS = float(os.environ.get("INSTA_SOAK_SECONDS", 20 * 60))
SERVER_CORE, LOAD_CORE = 0, 1
PART_OF_PEAK = 0.7
PEAK_SECONDS = 15.0
WINDOW_SECONDS = 3.0
PEOPLE, POSTS_EACH, COMMENTS_EACH = 8, 5, 20
# For so long somebody reads from one moment, and then nobody.
HOLD_SECONDS = min(60.0, SECONDS / 8)
# The log is short again so soon after somebody has read for long.
SHORT_AGAIN_SECONDS = 5.0
# Most that the log of a database grows by for one write: some 12 pages of rows, indexes, events and kept answers.
BYTES_A_WRITE = 50_000
# From the second quarter to the last, of the medians. SQLite keeps the pages written last, 16 MiB of them for each
# connection: the writers' fill up within the first minutes.
MEMORY_GROWTH, MEMORY_FLOOR = 0.1, 16 * 1024 * 1024
# Pools of threads that gRPC and asyncio keep may breathe.
THREADS_GROWTH = DESCRIPTORS_GROWTH = 3
REFUSED = 0.001
DATABASES = ("users", "posts", "social")


@dataclass(frozen=True)
class Sample:
    """What a window of the load tells, and a look at the suite at its end.

    Attributes:
        time: Seconds since the start of the load.
        held: By the processes of the suite.
        logs: Bytes of the write-ahead log of each database.
        reading: Whether somebody reads from one moment, or did until just now.
    """

    time: float
    window: Window
    held: Resources
    logs: dict[str, int]
    reading: bool


class LongReader:
    """Somebody who reads from the databases from one moment for long, then not at all for as long, and so on.

    Another connection of theirs is open all the time and reads nothing.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._reading = False
        self._changed_at = float("-inf")

    @property
    def reading(self) -> bool:
        """Whether they read at the moment, or did until just now."""
        return self._reading or time.monotonic() < self._changed_at + SHORT_AGAIN_SECONDS

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Let them read, and end it."""
        connections, idle = ([apsw.Connection(str(path)) for path in self._paths] for _ in range(2))
        reading = asyncio.ensure_future(self._read(connections))
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            for connection in (*connections, *idle):
                connection.close()
        assert reading.cancelled(), reading.exception()

    async def _read(self, connections: Sequence[apsw.Connection]) -> None:
        while True:
            for connection in connections:
                connection.execute("BEGIN; SELECT COUNT(*) FROM sqlite_schema").fetchall()
            self._reading = True
            await asyncio.sleep(HOLD_SECONDS)
            for connection in connections:
                connection.execute("COMMIT")
            self._reading, self._changed_at = False, time.monotonic()
            await asyncio.sleep(HOLD_SECONDS)


@pytest.mark.parametrize("mode", ["together", "workers"])
async def test_a_suite_at_work_for_long_grows_nothing_but_its_data(mode: str, tmp_path: Path) -> None:
    tell(f"{machine()}; {mode}, {SECONDS:.0f} seconds")
    # Who is refused when, others test.
    with running(mode, tmp_path / "var", INSTA_MAX_WAIT_MILLISECONDS="1000", INSTA_LOG_LEVEL="info") as suite:
        assert suite.process is not None
        pids = list(children(suite))
        if mode == "together":
            pids = [suite.process.pid]
            # Workers are for several cores: on one they only wait for each other's turn to write.
            pin(suite.process.pid, SERVER_CORE)
        names, post_ids = await _write_what_is_read(suite)
        load = Load(suite.address, names, post_ids, PEAK_SECONDS, 1.0, at_once=32, core=LOAD_CORE)
        peak = statistics.median([window.per_second async for window in windows(load)][3:])
        offered = PART_OF_PEAK * peak
        load = Load(suite.address, names, post_ids, SECONDS, WINDOW_SECONDS, per_second=offered, core=LOAD_CORE)
        samples = await _watch(load, suite, pids)

    tell(f"peak {peak:.0f} calls a second, offered {offered:.0f}")
    _print(samples)
    _check_resources(samples)
    _check_logs(samples)
    _check_answers(samples, offered)


async def _write_what_is_read(suite: RunningSuite) -> tuple[list[str], list[int]]:
    """The names of some people, and the ids of their posts, each of which has comments."""
    people = People(suite.address)
    pats = [await people.join() for _ in range(PEOPLE)]
    posts = [await pat.post(f"Light {number}") for pat in pats for number in range(POSTS_EACH)]
    for post in posts:
        for number in range(COMMENTS_EACH):
            await pats[number % PEOPLE].comment(post)
    await people.channel.close()
    return [pat.username for pat in pats], [post.id for post in posts]


async def _watch(load: Load, suite: RunningSuite, pids: Sequence[int]) -> list[Sample]:
    data = Path(suite.environment["INSTA_DATA"])
    reader = LongReader(data / f"{name}.db" for name in DATABASES)
    began = time.monotonic()
    samples = []
    async with reader.at_work():
        async for window in windows(load):
            logs = {name: (data / f"{name}.db-wal").stat().st_size for name in DATABASES}
            samples.append(Sample(time.monotonic() - began, window, resources(pids), logs, reader.reading))
    return samples


def _check_resources(samples: Sequence[Sample]) -> None:
    before, after = _quarter(samples, 1), _quarter(samples, 3)
    growth = after.memory - before.memory
    assert growth <= max(MEMORY_GROWTH * before.memory, MEMORY_FLOOR), (before, after)
    assert after.threads <= before.threads + THREADS_GROWTH, (before, after)
    assert after.descriptors <= before.descriptors + DESCRIPTORS_GROWTH, (before, after)


def _check_logs(samples: Sequence[Sample]) -> None:
    kinds = _total(sample.window.kinds for sample in samples)
    writes = sum(count for kind, count in kinds.items() if not kind.startswith(("Get", "List")))
    a_second = writes / sum(sample.window.seconds for sample in samples)
    bound = wal.LIMIT_BYTES + BYTES_A_WRITE * a_second * (HOLD_SECONDS + SHORT_AGAIN_SECONDS)
    assert max(size for sample in samples for size in sample.logs.values()) <= bound
    unread = [sample for sample in samples if not sample.reading]
    assert unread
    assert max(size for sample in unread for size in sample.logs.values()) <= wal.LIMIT_BYTES


def _check_answers(samples: Sequence[Sample], offered: float) -> None:
    assert _total(sample.window.kinds for sample in samples).keys() == set(KINDS)
    codes = _total(sample.window.codes for sample in samples)
    assert codes.keys() <= {"OK", "RESOURCE_EXHAUSTED"}, codes
    assert codes["RESOURCE_EXHAUSTED"] <= REFUSED * codes.total(), codes
    assert codes.total() > 0.95 * offered * sum(sample.window.seconds for sample in samples)


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return total


def _quarter(samples: Sequence[Sample], number: int) -> Resources:
    """What the suite held in a quarter of the time, as a rule."""
    part = samples[len(samples) * number // 4 : len(samples) * (number + 1) // 4]
    return Resources(
        *(int(statistics.median(values)) for values in zip(*(sample.held for sample in part), strict=True))
    )


def _print(samples: Sequence[Sample]) -> None:
    table = Table("second", "calls/s", "p50 ms", "p99 ms", "longest ms", "refused", "MB", "threads", "files")
    for name in DATABASES:
        table.add_column(f"log MB: {name}")
    table.add_column("held")
    a_row = max(len(samples) // 20, 1)
    for start in range(0, len(samples), a_row):
        some = samples[start : start + a_row]
        spent = [sample.window for sample in some]
        table.add_row(
            f"{some[-1].time:.0f}",
            f"{statistics.mean(window.per_second for window in spent):.0f}",
            f"{statistics.median(window.p50 for window in spent) * 1000:.1f}",
            f"{statistics.median(window.p99 for window in spent) * 1000:.0f}",
            f"{max(window.longest for window in spent) * 1000:.0f}",
            f"{sum(sum(window.codes.values()) - window.codes.get('OK', 0) for window in spent)}",
            f"{statistics.median(sample.held.memory for sample in some) / 1e6:.1f}",
            f"{statistics.median(sample.held.threads for sample in some):.0f}",
            f"{statistics.median(sample.held.descriptors for sample in some):.0f}",
            *(f"{max(sample.logs[name] for sample in some) / 1e6:.1f}" for name in DATABASES),
            "yes" if all(sample.reading for sample in some) else "",
        )
    Console(width=120).print(table)

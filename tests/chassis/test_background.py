"""Work beside the calls: one process at a time does it, and another goes on when that one is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis.background import BackgroundTask
from chassis.store import Store
from tests import databases
from tests.chassis import items
from tests.people import until


class Work:
    """Counts who does it."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()

    @asynccontextmanager
    async def by(self, store: Store, worker: str, name: str = "work") -> AsyncIterator[None]:
        """Let a worker do it, whenever it may, until the end of this."""

        async def step() -> bool:
            self.done[worker] += 1
            return False

        running = asyncio.create_task(BackgroundTask(name, step, pause_seconds=0.001).run(store))
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def goes_on(self, worker: str) -> None:
        """Wait until a worker has done it some more times."""
        before = self.done[worker]

        async def enough() -> bool:
            return self.done[worker] >= before + 20

        await until(enough)


async def test_one_process_at_a_time_does_the_work(tmp_path: Path) -> None:
    # Locks of files tell them apart as they do processes: each has opened them for itself.
    first, second = (databases.open_store(tmp_path / "items.db", items.MIGRATIONS) for _ in range(2))
    work = Work()
    async with work.by(second, "other", "another piece of work"), work.by(first, "first"):
        await work.goes_on("first")
        async with work.by(second, "second"):
            await work.goes_on("first")
            await work.goes_on("other")
            alone = dict(work.done)
            first.close()
            await work.goes_on("second")
    second.close()

    assert alone.keys() == {"first", "other"}

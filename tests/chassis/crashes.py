"""A store on a disk that loses its power, again and again, while clients write to it."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from chassis.sqlite import SQLiteStore
from chassis.store import Database
from tests.chassis import items
from tests.chassis.power_loss import Disk, any_part, nothing

_CLIENTS = 4
_POINTS_A_ROUND = 20
_numbers = itertools.count()


@dataclass
class Outcome:
    """What was found after losses of power.

    Attributes:
        points: How many there were.
        acknowledged: How many writes had been answered before the last of each round.
        lost: Writes that were answered before a loss, and were not there after it.
        halves: Writes of which a part was there.
        corrupt: What SQLite says of databases that are.
    """

    points: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)


def add_both(db: Database, name: str) -> None:
    """A write of two rows, which must be there both or not at all."""
    items.add(db, f"{name}/a")
    items.add(db, f"{name}/b")


async def crash(points: int, seed: int) -> Outcome:
    """Let the power go at so many moments of a workload, and look at what is left each time."""
    outcome = Outcome()
    while outcome.points < points:
        await _round(outcome, min(points - outcome.points, _POINTS_A_ROUND), seed + outcome.points)
    return outcome


async def _round(outcome: Outcome, points: int, seed: int) -> None:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="power-loss-"))
    disk = Disk(f"disk-{next(_numbers)}")
    store = SQLiteStore(folder / "items.db", items.MIGRATIONS, vfs=disk.name)
    acknowledged: list[str] = []
    images: list[tuple[Path, list[str]]] = []

    def lose_power() -> None:
        with disk.lock:
            if len(images) >= points:
                return
            image = folder / f"image-{len(images)}"
            image.mkdir()
            # What was answered by now, before the disk is looked at.
            images.append((image, acknowledged.copy()))
            disk.lose_power(image, nothing if rng.random() < 0.3 else any_part(rng.getrandbits(32)))

    def at_some_moment() -> None:
        if rng.random() < 0.02:
            lose_power()

    async def client(number: int) -> None:
        for count in itertools.count():
            if len(images) >= points:
                return
            name = f"{number}-{count}-" + "x" * rng.randrange(1500)
            await store.write(add_both, name)
            acknowledged.append(name)
            if rng.random() < 0.02:
                lose_power()

    # Small, so that it is emptied into the database many times.
    await store.write(_empty_log_after, rng.choice([5, 30, 1000]))
    disk.on_write = at_some_moment
    await asyncio.gather(*(client(number) for number in range(_CLIENTS)))
    disk.on_write = lambda: None
    store.close()
    for image, before in images:
        _look_at(image / "items.db", before, outcome)
        outcome.points += 1
    outcome.acknowledged += len(acknowledged)
    shutil.rmtree(folder)


def _empty_log_after(db: Database, pages: int) -> None:
    db.execute_sql(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()


def _look_at(path: Path, acknowledged: list[str], outcome: Outcome) -> None:
    with closing(apsw.Connection(str(path))) as database:
        try:
            ((said,),) = database.execute("PRAGMA integrity_check").fetchall()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
            # A store that syncs too late loses its tables, too.
            rows = database.execute("SELECT name FROM item") if "item" in tables else ()
            found = {name for (name,) in rows}
        except apsw.Error as failure:
            outcome.corrupt.append(repr(failure))
            return
    if said != "ok":
        outcome.corrupt.append(str(said))
    whole = {name[:-2] for name in found if name.endswith("/a")}
    outcome.halves += sorted(whole ^ {name[:-2] for name in found if name.endswith("/b")})
    outcome.lost += [name for name in acknowledged if name not in whole]

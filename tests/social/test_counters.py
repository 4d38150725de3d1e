"""Counters of the social service, at every moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chassis import errors, tombstones
from chassis.store import Database
from chassis.tombstones import POST, USER
from services.social import comments, erasure, follows, likes
from services.social import service as social
from tests import databases

PEOPLE = range(1, 5)
POSTS = range(1, 4)
CHANGES: list[Callable[[Database, random.Random], Any]] = [
    lambda db, rng: likes.add(db, rng.choice(POSTS), rng.choice(PEOPLE)),
    lambda db, rng: likes.remove(db, rng.choice(POSTS), rng.choice(PEOPLE)),
    lambda db, rng: follows.add(db, *rng.sample(PEOPLE, 2)),
    lambda db, rng: follows.remove(db, *rng.sample(PEOPLE, 2)),
    lambda db, rng: comments.create(db, rng.choice(POSTS), rng.choice(PEOPLE), "Lovely"),
    lambda db, rng: comments.delete(db, rng.randrange(1, 10)),
]


async def test_counters_equal_the_rows_after_every_commit(tmp_path: Path) -> None:
    """So they do wherever the process is killed."""
    path = tmp_path / "social.db"
    wrong = []

    def look(writes: int) -> None:
        wrong.append(databases.counted_wrongly({"social": path}))

    store = databases.open_store(path, social.SERVICE.migrations, on_commit=look)
    rng = random.Random(1)
    for _ in range(120):
        try:
            await store.write(rng.choice(CHANGES), rng)
        except errors.NotFound:
            # There is no such comment now.
            continue
    for kind, gone_id in ((POST, 1), (USER, 1)):
        await store.write(tombstones.add, kind, gone_id)
        await store.write(erasure.erase_some, await store.read(tombstones.pending))
    left = await store.read(lambda db: db.execute_sql("SELECT SUM(like_count) FROM post_counter").fetchall())
    store.close()

    assert left[0][0] > 0
    assert len(wrong) > 60
    assert [found for found in wrong if found] == []

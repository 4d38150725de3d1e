"""What comes late for something that is gone: refused in its own transaction, whatever was known before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chassis import tombstones
from chassis.errors import Error
from chassis.store import Database, Store
from chassis.tombstones import POST, USER
from services.social import comments, follows, likes
from services.social import service as social
from tests import databases

POST_ID, ANA, BEN = 1, 2, 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = databases.open_store(tmp_path / "social.db", social.SERVICE.migrations)
    yield opened
    opened.close()


def rows(db: Database) -> dict[str, int]:
    """How many there are, by table, of those that have any."""
    tables = ("like", "comment", "follow", "post_counter", "user_counter", "logged_event")
    counts = {table: db.execute_sql(f'SELECT COUNT(*) FROM "{table}"').fetchall()[0][0] for table in tables}
    return {table: count for table, count in counts.items() if count}


@pytest.mark.parametrize(
    ("kind", "gone_id", "change", "reason"),
    [
        (POST, POST_ID, lambda db: likes.add(db, POST_ID, ANA), "POST_NOT_FOUND"),
        (POST, POST_ID, lambda db: comments.create(db, POST_ID, ANA, "Late"), "POST_NOT_FOUND"),
        (USER, BEN, lambda db: follows.add(db, ANA, BEN), "USER_NOT_FOUND"),
        (USER, ANA, lambda db: follows.add(db, ANA, BEN), "TOKEN_INVALID"),
        (USER, ANA, lambda db: likes.add(db, POST_ID, ANA), "TOKEN_INVALID"),
        (USER, ANA, lambda db: comments.create(db, POST_ID, ANA, "Late"), "TOKEN_INVALID"),
    ],
    ids=["like", "comment", "follow", "follow by", "like by", "comment by"],
)
async def test_what_comes_after_a_deletion_is_refused_and_leaves_nothing(
    store: Store, kind: str, gone_id: int, change: Callable[[Database], Any], reason: str
) -> None:
    await store.write(tombstones.add, kind, gone_id)

    with pytest.raises(Error) as refused:
        await store.write(change)

    assert refused.value.reason_name == reason
    assert await store.read(rows) == {}


@pytest.mark.parametrize("kind", [POST, USER])
async def test_a_tombstone_is_for_its_own_kind(store: Store, kind: str) -> None:
    # Users and posts may have the same number.
    gone_id = ANA if kind == POST else POST_ID
    await store.write(tombstones.add, kind, gone_id)

    assert await store.write(likes.add, POST_ID, ANA) == 1

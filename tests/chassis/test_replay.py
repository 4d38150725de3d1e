"""Answers that are kept for retries: for how long, for whom, and what becomes of those that are too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import peewee
import pytest
import pytest_asyncio

from chassis import clock, replay, tombstones
from chassis.errors import InvalidArgument, Unauthenticated
from chassis.replay import Replies, Reply
from chassis.store import Database, Store
from chassis.tombstones import USER, Tombstone
from insta.posts.v1 import posts_pb2
from tests import databases
from tests.chassis import items
from tests.chassis.calls import called_by

HOUR = 3600 * 1_000_000
KEY = b"0123456789abcdef"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ahead = 0
        self._now = clock.now

    def now(self) -> int:
        return self._now() + self.ahead


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Clock:
    shifted = Clock()
    monkeypatch.setattr(clock, "now", shifted.now)
    return shifted


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    def make_table(db: Database) -> None:
        with db.bind_ctx([Reply, Tombstone]):
            db.create_tables([Reply, Tombstone])

    opened = databases.open_store(tmp_path / "items.db", items.MIGRATIONS)
    opened.write_now(make_table)
    yield opened
    opened.close()


@pytest.fixture
def replies(store: Store) -> Replies:
    return Replies(store, KEY)


def request(request_id: str, title: str = "First light") -> posts_pb2.CreatePostRequest:
    return posts_pb2.CreatePostRequest(title=title, request_id=request_id)


def adding(name: str) -> Callable[[Database], posts_pb2.CreatePostResponse]:
    """A change that adds an item, and answers its id."""

    def add(db: Database) -> posts_pb2.CreatePostResponse:
        return posts_pb2.CreatePostResponse(post=posts_pb2.Post(id=items.add(db, name)))

    return add


async def answer(replies: Replies, request_id: str, name: str, *, user_id: int = 1) -> int:
    """Add an item as the effect of a request. Returns the id in the answer."""
    with called_by(user_id):
        response = await replies.write(request(request_id), posts_pb2.CreatePostResponse, adding(name))
    return response.post.id


def kept(db: Database) -> list[str]:
    return [row[0] for row in db.execute_sql("SELECT request_id FROM reply ORDER BY id").fetchall()]


async def test_of_two_equal_requests_at_once_one_makes_the_change_and_both_get_its_answer(
    replies: Replies, store: Store
) -> None:
    # Neither has an answer when the other begins.
    answers = await asyncio.gather(answer(replies, "one", "a"), answer(replies, "one", "b"))

    assert answers[0] == answers[1]
    assert len(await store.read(items.names)) == 2


async def test_an_id_is_good_for_24_hours_and_new_again_after_them(replies: Replies, later: Clock) -> None:
    first = await answer(replies, "one", "a")
    later.ahead = 24 * HOUR - 60_000_000
    again = await answer(replies, "one", "b")
    later.ahead = 24 * HOUR + 60_000_000
    with called_by(1):
        found = await replies.find(request("one"), posts_pb2.CreatePostResponse)
    after = await answer(replies, "one", "c")
    later.ahead = 25 * HOUR
    after_again = await answer(replies, "one", "d")

    assert again == first
    assert found is None
    assert after != first
    assert after_again == after


async def test_answers_that_are_too_old_are_forgotten_the_oldest_first(
    replies: Replies, store: Store, later: Clock
) -> None:
    for number in range(5):
        await answer(replies, f"old-{number}", f"old {number}")
    later.ahead = 25 * HOUR
    await answer(replies, "new", "new")

    forgotten = [await store.write(replay.forget_old, 3)]
    left = await store.read(kept)
    forgotten += [await store.write(replay.forget_old, 3) for _ in range(2)]

    assert (forgotten, left) == ([3, 2, 0], ["old-3", "old-4", "new"])
    assert await store.read(kept) == ["new"]


async def test_a_service_forgets_them_by_itself(replies: Replies, store: Store, later: Clock) -> None:
    for number in range(3):
        await answer(replies, f"old-{number}", f"old {number}")
    later.ahead = 25 * HOUR

    forgetting = asyncio.ensure_future(replay.forgetting(store).run(store))
    async with asyncio.timeout(20):
        while await store.read(kept):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    forgetting.cancel()


@pytest.mark.sqlite
async def test_keeping_an_answer_takes_no_longer_where_many_are_kept(replies: Replies, store: Store) -> None:
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    def count_steps(db: Database) -> None:
        # Of the virtual machine of SQLite.
        db.connection().set_progress_handler(step, 1)

    await answer(replies, "first", "a")
    await store.write(count_steps)
    await answer(replies, "second", "b")
    with_one, steps = steps, 0
    for number in range(1000):
        await answer(replies, f"kept-{number}", f"kept {number}")
    steps = 0
    await answer(replies, "last", "c")

    assert 0 < steps < 2 * with_one


async def test_an_answer_that_is_not_too_old_is_never_forgotten(replies: Replies, store: Store, later: Clock) -> None:
    await answer(replies, "one", "a")
    later.ahead = 23 * HOUR

    assert await store.write(replay.forget_old, 10) == 0
    assert await store.read(kept) == ["one"]


async def test_another_request_under_the_same_id_is_refused_also_where_both_are_under_way(
    replies: Replies, store: Store
) -> None:
    with called_by(1):
        answers = await asyncio.gather(
            *(
                replies.write(request("one", title), posts_pb2.CreatePostResponse, adding(title))
                for title in ("this", "that")
            ),
            return_exceptions=True,
        )

    (refused,) = (found for found in answers if isinstance(found, InvalidArgument))
    assert refused.reason_name == "REQUEST_ID_REUSED"
    made = {posts_pb2.CreatePostResponse: "this", InvalidArgument: "that"}[type(answers[0])]
    assert await store.read(items.names) == ["first", made]


async def test_an_answer_is_kept_with_its_effect_after_every_commit(store: Store, tmp_path: Path) -> None:
    """So it is wherever the process is killed."""
    seen = []

    def look(writes: int) -> None:
        with closing(databases.Connection(tmp_path / "items.db")) as database:
            effects = database.execute("SELECT name FROM item WHERE id > ?", [items.FIRST])
            seen.append((effects, database.execute("SELECT request_id FROM reply ORDER BY id")))

    watched = databases.open_store(tmp_path / "items.db", items.MIGRATIONS, on_commit=look)
    for name in ("a", "b"):
        await answer(Replies(watched, KEY), f"request {name}", name)
    watched.close()

    first, second = [("a",)], [("a",), ("b",)]
    assert seen == [(first, [("request a",)]), (second, [("request a",), ("request b",)])]


async def test_the_same_id_of_another_caller_is_another_request(replies: Replies, store: Store) -> None:
    first = await answer(replies, "one", "a", user_id=1)
    second = await answer(replies, "one", "b", user_id=2)

    assert first != second
    assert await store.read(items.names) == ["first", "a", "b"]


async def test_a_change_that_fails_keeps_no_answer(replies: Replies, store: Store) -> None:
    await answer(replies, "one", "a")
    with pytest.raises(peewee.IntegrityError):
        await answer(replies, "two", "a")

    assert await store.read(kept) == ["one"]
    assert await answer(replies, "two", "b")


async def test_the_answers_of_one_caller_are_forgotten_some_at_a_time(replies: Replies, store: Store) -> None:
    for number in range(250):
        await answer(replies, f"mine-{number}", f"mine {number}", user_id=1)
    await answer(replies, "theirs", "theirs", user_id=2)

    forgotten = [await store.write(replay.forget_some, 1) for _ in range(3)]

    assert forgotten == [200, 50, 0]
    assert await store.read(kept) == ["theirs"]


async def test_nothing_is_done_or_kept_for_a_caller_who_is_gone(replies: Replies, store: Store) -> None:
    first = await answer(replies, "one", "a")
    await store.write(tombstones.add, USER, 1)

    with pytest.raises(Unauthenticated):
        await answer(replies, "two", "b")

    assert await store.read(kept) == ["one"]
    assert await store.read(items.names) == ["first", "a"]
    # A retry of what was done before still gets its answer, until that is erased.
    assert await answer(replies, "one", "a") == first


async def test_an_answer_is_forgotten_with_whom_it_tells_of(replies: Replies, store: Store) -> None:
    with called_by(1):
        await replies.write(request("one"), posts_pb2.CreatePostResponse, adding("a"), lambda response: 7)

    assert await store.write(replay.forget_some, 7) == 1
    assert await store.read(kept) == []
